"""Tasks that a worker does by itself, such as all of a scene: what the driver does about them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.predict.cluster.pool import Answered, Failed, Pool
from rooftrace.predict.cluster.schedule import MOST_LOSSES, Schedule
from rooftrace.predict.cluster.work import Piece

__all__ = ["Run", "Task", "TaskRun", "TaskTaker"]


_AHEAD_PER_WORKER = 30
_FEWEST_AHEAD = 1000
"""Known tasks: far more than are under way, since they are taken in order, and one that takes long
is not to hold up the others. Each is a path or an address."""


class Run(Protocol):
    """Something that a driver drives."""

    schedule: Schedule

    def step(self) -> bool:
        """Do what can be done now; whether there is more to come."""
        ...

    def tell(self, event: Answered | Failed) -> None:
        """What became of a call."""
        ...

    def lost(self, worker: Hashable) -> None:
        """A worker is gone."""
        ...

    def cancel(self) -> None:
        """Take nothing more."""
        ...


@dataclass(frozen=True)
class Task:
    """One of them.

    Args:
        name: what errors call it.
        method: of the worker.
        given: to the method.
        cost: of it, in any unit.
    """

    name: str
    method: str
    given: Any
    cost: float


class TaskTaker(Protocol):
    """Is told what becomes of tasks, by their numbers."""

    @property
    def wants_no_more(self) -> bool:
        """Whether those that are not done are not to be done any more."""
        ...

    def done(self, number: int, value: Any) -> None: ...
    def failed(self, number: int, error: RooftraceError) -> None: ...


class TaskRun:
    """Tasks under way; see `Run`.

    Args:
        pool: of workers that have the tasks' methods.
        tasks: taken as there is room for them.
        taker: is told of each once.
        patient: see `Schedule`.
    """

    def __init__(
        self, pool: Pool, tasks: Iterable[Task], taker: TaskTaker, *, patient: bool
    ) -> None:
        self._pool = pool
        self._tasks: dict[int, Task] = {}
        self._taker = taker
        self._next = 0
        ahead = max(_FEWEST_AHEAD, _AHEAD_PER_WORKER * pool.size)
        self.schedule = Schedule(self._work(tasks), ahead=ahead, patient=patient)

    def step(self) -> bool:
        self.schedule.pull()
        if self._taker.wants_no_more:
            self.schedule.given_up(list(self._tasks))
        for order in self.schedule.orders(monotonic()):
            task = self._tasks.get(order.key)
            if task is not None and order.what == "run":
                self._pool.call(order.worker, (order.key, task.method), task.method, [task.given])
        while self.schedule.is_done(self._next):
            self.schedule.taken(self._next)
            del self._tasks[self._next]
            self._next += 1
        return not self.schedule.is_over

    def tell(self, event: Answered | Failed) -> None:
        match event:
            case Answered(worker, (key, _), value):
                if self.schedule.ran(worker, key, monotonic(), finished=True):
                    self._taker.done(key, value)
            case Failed(worker, (key, _), error):
                if self.schedule.failed(worker, key):
                    self._give_up(key, error)

    def lost(self, worker: Hashable) -> None:
        for key in self.schedule.leave(worker):
            told = f"{self._tasks[key].name}: {MOST_LOSSES} workers were lost with it."
            remedy = "See why they ended, in Ray's logs; they may need more memory."
            self._give_up(key, PredictError(told, remedy=remedy))

    def cancel(self) -> None:
        """There is nothing that would be taken later."""

    def _give_up(self, key: int, error: RooftraceError) -> None:
        self.schedule.given_up([key])
        self._taker.failed(key, error)

    def _work(self, tasks: Iterable[Task]) -> Iterator[Piece]:
        for key, task in enumerate(tasks):
            self._tasks[key] = task
            yield Piece(key, cost=task.cost)
