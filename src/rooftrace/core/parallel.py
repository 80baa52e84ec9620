"""Calls of functions that run at the same time, in threads or on the workers of a cluster."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice, starmap
from typing import Protocol, TypeVar, TypeVarTuple

__all__ = ["Threads", "Workers", "in_order"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Workers(Protocol):
    """Runs calls of functions. Function, arguments and result must be picklable for a cluster."""

    @property
    def size(self) -> int:
        """Number of calls that run at the same time."""
        ...

    def submit(self, work: Callable[[*Ts], T], /, *given: *Ts) -> Future[T]:
        """Begin a call and return its result, which may come later."""
        ...


class Threads(ThreadPoolExecutor):
    """Threads of this process; see `Workers`. Use it in a `with` block."""

    size = min(4, os.cpu_count() or 1)

    def __init__(self, name: str) -> None:
        super().__init__(self.size, name)


def in_order(
    work: Callable[[*Ts], T], given: Iterable[tuple[*Ts]], workers: Workers | None = None
) -> Iterator[T]:
    """Yield the results of calls in the order of their arguments.

    The arguments are made in the calling thread, a few of them ahead.

    Args:
        work: Function to call.
        given: Arguments of each call.
        workers: Workers that make the calls; default: threads, of which a single call needs none.
    """
    given = iter(given)
    if workers is None:
        first = list(islice(given, 2))
        if len(first) < 2:
            yield from starmap(work, first)
            return
        with Threads("parallel") as threads:
            yield from in_order(work, chain(first, given), threads)
        return
    waiting: deque[Future[T]] = deque()
    for one in given:
        waiting.append(workers.submit(work, *one))
        if len(waiting) > workers.size:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
