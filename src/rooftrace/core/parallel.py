"""Calls of functions that run at the same time, in threads or by other workers."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice, starmap
from threading import Lock
from typing import Protocol, TypeVar, TypeVarTuple

from rooftrace.core.system import granted_cores

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


_LIMIT: list[int] = []
"""Number of cores that this process takes, if a caller has limited it."""


def limit_cores(count: int) -> None:
    """Limit the cores that this process takes, for processes that share a machine.

    Results do not depend on the limit. It holds for engines and threads that are made later.
    """
    _LIMIT[:] = [count]


def core_count() -> int:
    """Return the number of processor cores that this process may use."""
    return min(_LIMIT[0], granted_cores()) if _LIMIT else granted_cores()


def thread_limit() -> int | None:
    """Return the maximum number of threads of an engine; None where it may take all cores.

    Engines count the cores of the machine, of which this process may have only a part. Results do
    not depend on the limit.
    """
    cores = core_count()
    return cores if cores < (os.cpu_count() or 1) else None


class Workers(Protocol):
    """Runs calls of functions. Function, arguments and result must be picklable, except for
    threads.
    """

    @property
    def size(self) -> int:
        """Number of calls that run at the same time."""
        ...

    def submit(self, work: Callable[[*Ts], T], /, *given: *Ts) -> Future[T]:
        """Begin a call and return its result, which may come later."""
        ...


class Threads(ThreadPoolExecutor):
    """Threads of this process; see `Workers`. Use it in a `with` block."""

    def __init__(self, name: str) -> None:
        self.size = min(4, core_count())
        super().__init__(self.size, name)


def in_order(
    work: Callable[[*Ts], T],
    given: Iterable[tuple[*Ts]],
    workers: Workers | None = None,
    ahead: int = 1,
) -> Iterator[T]:
    """Yield the results of calls in the order of their arguments.

    The arguments are made in the calling thread, a few of them ahead.

    Args:
        work: Function to call.
        given: Arguments of each call.
        workers: Workers that make the calls; default: threads, of which a single call needs none.
        ahead: Calls for each worker that are begun before a result is waited for.
    """
    given = iter(given)
    if workers is None:
        first = list(islice(given, 2))
        if len(first) < 2:
            yield from starmap(work, first)
            return
        with Threads("parallel") as threads:
            yield from in_order(work, chain(first, given), threads, ahead)
        return
    waiting: deque[Future[T]] = deque()
    for one in given:
        waiting.append(workers.submit(work, *one))
        if len(waiting) > workers.size * ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def prefetched(items: Generator[T, None, None], count: int, name: str) -> Generator[T, None, None]:
    """Yield items that another thread computes in advance; `closing` ends the thread.

    Args:
        items: Generator of the items, which is also closed in the thread; None is not allowed
            among them.
        count: Number of items that are computed in advance.
        name: Name of the thread.
    """
    pool = ThreadPoolExecutor(1, name)
    waiting: deque[Future[T | None]] = deque()
    is_begun, is_ended, computing = False, False, Lock()

    def compute() -> T | None:
        with computing:
            return None if is_ended else next(items, None)

    def close() -> None:
        with computing:
            items.close()

    try:
        while True:
            while len(waiting) <= count:
                waiting.append(pool.submit(compute))
                is_begun = True
            item = waiting.popleft().result()
            if item is None:
                return
            yield item
    finally:
        for future in waiting:
            future.cancel()
        if is_begun:
            pool.submit(close)
        pool.shutdown(wait=True)
        # The pool does not know of a thread at whose start Ctrl-C came.
        with computing:
            is_ended = True
