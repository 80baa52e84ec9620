"""Calls of functions on the workers of a cluster, beside the blocks that they run.

The driver makes outlines at the seams of blocks, footprints and overviews in this way. A call
depends on its arguments alone, so that any worker can make it, and make it again.
"""

from __future__ import annotations

import pickle
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future
from threading import Lock
from typing import Any, TypeVar, TypeVarTuple

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.predict.cluster.pool import Answered, Failed, Pool
from rooftrace.predict.cluster.schedule import MOST_LOSSES
from rooftrace.predict.cluster.worker import packed

__all__ = ["WorkerCalls"]

_AT_ONCE = 2
"""Maximum number of calls of a worker at the same time."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_Call = tuple[bytes, Future[Any], int]
"""Function and arguments, the result, and how many workers were lost with it or failed on it."""


class WorkerCalls:
    """Hands out calls, and hands them out again where a worker is lost; see `Workers`.

    Args:
        pool: Pool of workers that have the method `call`.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: deque[_Call] = deque()
        self._running: defaultdict[Hashable, dict[int, _Call]] = defaultdict(dict)
        """Calls by worker and number."""

        self._next = 0
        self._lock = Lock()
        self._error: BaseException | None = None

    @property
    def size(self) -> int:
        return _AT_ONCE * self._pool.size

    def submit(self, work: Callable[[*Ts], T], /, *given: *Ts) -> Future[T]:
        """Make a call, from any thread; see `Workers`."""
        result: Future[T] = Future()
        with self._lock:
            if self._error is None:
                self._waiting.append((packed((work, given)), result, 0))
            else:
                result.set_exception(self._error)
        return result

    # In the driver's thread.

    def step(self, workers: Iterable[Hashable]) -> None:
        """Hand out calls to the workers that have the fewest."""
        room = sorted(workers, key=lambda worker: len(self._running[worker]))
        for worker in room * _AT_ONCE if self._waiting else ():
            if self._waiting and len(self._running[worker]) < _AT_ONCE:
                made = self._running[worker][self._next] = self._waiting.popleft()
                self._pool.call(worker, (self._next, "call"), "call", [made[0]])
                self._next += 1

    def leave(self, worker: Hashable) -> None:
        """Hand out the calls of a lost worker again."""
        error = PredictError(
            f"{MOST_LOSSES} workers were lost while they made the same outlines.",
            remedy="Check in Ray's logs why they ended; they may need more memory.",
        )
        for made in self._running.pop(worker, {}).values():
            self._again(made, error)

    def notify(self, event: Answered | Failed) -> None:
        """Handle the outcome of a call."""
        made = self._running[event.worker].pop(event.token[0], None)
        if made is None:
            return
        if isinstance(event, Answered):
            # Packed by a worker of this run.
            made[1].set_result(pickle.loads(event.value))  # noqa: S301  # nosec B301
        else:
            self._again(made, event.error)

    def close(self, error: BaseException | None) -> None:
        """Give up all calls, those that follow included, because of an error or without one."""
        error = error or PredictError("The run was stopped.")
        with self._lock:
            self._error = error
        for calls in (self._waiting, *(own.values() for own in self._running.values())):
            for _, result, _ in calls:
                result.set_exception(error)

    def _again(self, made: _Call, error: RooftraceError) -> None:
        content, result, attempts = made
        if attempts + 1 < MOST_LOSSES:
            self._waiting.appendleft((content, result, attempts + 1))
        else:
            result.set_exception(error)
