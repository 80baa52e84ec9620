"""Run tasks on a cluster, each on one worker; a task is a whole scene, for example."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.predict.cluster.pool import Answered, Failed, Pool
from rooftrace.predict.cluster.schedule import MOST_LOSSES, WorkItem, WorkSchedule

__all__ = ["DriverRun", "TaskRun", "TaskSink", "WorkerTask"]


_AHEAD_PER_WORKER = 30
"""Number of tasks for each worker that may be pulled and not taken."""

_MIN_AHEAD = 1000
"""Number of tasks that may be pulled and not taken, however few workers there are.

It is far larger than the number of running tasks: tasks are taken in order, and one slow task must
not hold up the others. A task is small: a path or an address."""


class DriverRun(Protocol):
    """Work that a driver distributes: blocks or tasks."""

    schedule: WorkSchedule

    def step(self) -> bool:
        """Do what can be done now; return True if more work is to come."""
        ...

    def notify(self, event: Answered | Failed) -> None:
        """Handle the outcome of a call."""
        ...

    def lost(self, worker: Hashable) -> None:
        """Handle the loss of a worker."""
        ...


@dataclass(frozen=True)
class WorkerTask:
    """A task for one worker.

    Args:
        name: Name of the task in error messages.
        method: Name of the worker's method that does the task.
        given: Argument of the method.
        cost: Expected cost in any unit, see `WorkItem`.
    """

    name: str
    method: str
    given: Any
    cost: float


class TaskSink(Protocol):
    """Receives the outcomes of tasks, by their numbers."""

    @property
    def wants_no_more(self) -> bool:
        """True if the tasks that are not done are to be given up."""
        ...

    def done(self, number: int, value: Any) -> None:
        """Take the result of a task."""
        ...

    def failed(self, number: int, error: RooftraceError) -> None:
        """Take the final error of a task."""
        ...


class TaskRun:
    """Runs tasks on workers; see `DriverRun`.

    Args:
        pool: Pool of workers that have the methods of the tasks.
        tasks: The tasks; they are pulled as there is room for them.
        sink: Receives the outcome of each task once.
        patient: See `WorkSchedule`.
    """

    def __init__(
        self, pool: Pool, tasks: Iterable[WorkerTask], sink: TaskSink, *, patient: bool
    ) -> None:
        self._pool = pool
        self._tasks: dict[int, WorkerTask] = {}
        self._sink = sink
        self._next = 0
        ahead = max(_MIN_AHEAD, _AHEAD_PER_WORKER * pool.size)
        self.schedule = WorkSchedule(self._work(tasks), ahead=ahead, patient=patient)

    def step(self) -> bool:
        self.schedule.pull()
        if self._sink.wants_no_more:
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

    def notify(self, event: Answered | Failed) -> None:
        match event:
            case Answered(worker, (key, _), value):
                if self.schedule.ran(worker, key, monotonic(), finished=True):
                    self._sink.done(key, value)
            case Failed(worker, (key, _), error):
                if self.schedule.failed(worker, key):
                    self._give_up(key, error)

    def lost(self, worker: Hashable) -> None:
        for key in self.schedule.leave(worker):
            error = PredictError(
                f"{self._tasks[key].name}: {MOST_LOSSES} workers were lost with it.",
                remedy="Check in Ray's logs why they ended; they may need more memory.",
            )
            self._give_up(key, error)

    def _give_up(self, key: int, error: RooftraceError) -> None:
        self.schedule.given_up([key])
        self._sink.failed(key, error)

    def _work(self, tasks: Iterable[WorkerTask]) -> Iterator[WorkItem]:
        for key, task in enumerate(tasks):
            self._tasks[key] = task
            yield WorkItem(key, cost=task.cost)
