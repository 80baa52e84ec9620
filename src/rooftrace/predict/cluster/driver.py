"""Scenes through the networks of many machines: what stays on the one where the run was begun.

Workers read, run and blend blocks, and write their parts, or do all of a scene; the driver knows
who is there, asks the schedule who does what, and tells it what came of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor

from rooftrace.predict.cluster.blocks import BlockRun
from rooftrace.predict.cluster.pool import Event, Joined, Lost, Pool
from rooftrace.predict.cluster.tasks import Run, Task, TaskRun, TaskTaker
from rooftrace.predict.cluster.work import Tally
from rooftrace.predict.cluster.worker import Facts
from rooftrace.predict.passage import SceneStream

__all__ = ["Driver"]

_WAIT_S = 0.05


class Driver:
    """Runs scenes, and tasks that are all of one, on a pool.

    Args:
        pool: of workers that have the methods that are asked for.
        patient: whether a piece that takes long is left to its worker, see `Schedule`.
        ahead: blocks that are begun and not taken; default by the number of workers.
    """

    def __init__(self, pool: Pool, *, patient: bool = False, ahead: int | None = None) -> None:
        self.tally = Tally()
        self.notes: list[str] = []
        self._pool = pool
        self._patient = patient
        self._ahead = ahead
        self._facts: Facts | None = None
        self._workers: dict[Hashable, Facts] = {}
        self._nodes: Counter[str] = Counter()

    @property
    def size(self) -> int:
        """Workers that there are to be."""
        return self._pool.size

    @property
    def nodes(self) -> dict[str, int]:
        """How many workers took part, by machine."""
        return dict(self._nodes)

    def begin(self) -> Facts:
        """Wait for the first worker.

        Raises:
            PredictError: none comes.
        """
        while self._facts is None:
            for event in self._pool.wait(1.0):
                self._meet(event)
        return self._facts

    def run(self, scenes: Iterable[SceneStream]) -> None:
        """Predict scenes that share one model. What goes wrong with one is its `error`.

        Args:
            scenes: taken one after the other, in this thread; their blocks are taken in another.

        Raises:
            PredictError: no worker is left.
        """
        with ThreadPoolExecutor(1, "finish") as finisher:
            self._drive(
                BlockRun(self._pool, scenes, finisher, ahead=self._ahead, patient=self._patient)
            )

    def run_tasks(self, tasks: Iterable[Task], taker: TaskTaker) -> None:
        """Have workers do tasks, each all of one.

        Args:
            tasks: taken as there are workers for them.
            taker: is told what becomes of them, in this thread.

        Raises:
            PredictError: no worker is left.
        """
        self._drive(TaskRun(self._pool, tasks, taker, patient=self._patient))

    def _drive(self, run: Run) -> None:
        for worker in self._workers:
            run.schedule.join(worker)
        try:
            while run.step():
                for event in self._pool.wait(_WAIT_S):
                    if not self._meet(event):
                        continue
                    if isinstance(event, Joined):
                        run.schedule.join(event.worker)
                    elif isinstance(event, Lost):
                        run.lost(event.worker)
                    else:
                        run.tell(event)
                for worker in run.schedule.dismissed():
                    self._let_go(worker, "it failed where others did not")
                    run.lost(worker)
        except BaseException:
            run.cancel()
            raise
        finally:
            self.tally = self.tally.plus(run.schedule.tally)

    def _meet(self, event: Event) -> bool:
        """Note who is there; whether the event is of a worker that takes part."""
        if isinstance(event, Joined):
            self._facts = self._facts or event.facts
            unlike = event.facts.differs(self._facts)
            if unlike:
                self._let_go(event.worker, unlike, event.facts.node)
                return False
            self._workers[event.worker] = event.facts
            self._nodes[event.facts.node] += 1
            return True
        known = event.worker in self._workers
        if isinstance(event, Lost):
            facts = self._workers.pop(event.worker, None)
            lost = "A worker" if facts is None else f"A worker on {facts.node}"
            self.notes.append(f"{lost} was lost: {event.reason}.")
        return known

    def _let_go(self, worker: Hashable, why: str, node: str = "") -> None:
        facts = self._workers.pop(worker, None)
        self._pool.dismiss(worker, why)
        where = node or ("" if facts is None else facts.node)
        self.notes.append(f"A worker on {where} was not used: {why}.")
