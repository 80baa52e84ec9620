"""Schedule work items on the workers of a cluster.

The caller takes finished items in the order of their keys. One worker runs an item. It may run the
item before the earlier items whose outputs it needs. In that case the worker holds the item, and
finishes it once those outputs are known.

The schedule starts nothing and reads no clock: its decisions depend only on the reported events and
their times. A simulation (bench/cluster.py) therefore decides as a real run does.

    waiting --run--> running --ran--> held by its worker --finish--> finishing --done--> done
       ^                |                  |                             |
       +----------------+-- the worker is lost, or the call failed ------+
"""

from __future__ import annotations

import heapq
import statistics
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Literal

__all__ = ["MOST_LOSSES", "ClusterTally", "WorkItem", "WorkOrder", "WorkSchedule"]


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A unit of work: a block of a scene, or a whole scene.

    Args:
        key: Number of the item; items are taken in this order.
        needs: Keys of the earlier items whose outputs it needs to be finished.
        cost: Expected cost in any unit, such as pixels. Running times are compared per unit.
    """

    key: int
    needs: frozenset[int] = frozenset()
    cost: float = 1.0


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """An order to a worker.

    Args:
        worker: Worker that receives the order.
        what: `run` an item, and finish it if all that it needs is known; `finish` an item that the
            worker holds; `drop` an item that the worker holds, because another worker was faster.
        key: Key of the item.
    """

    worker: Hashable
    what: Literal["run", "finish", "drop"]
    key: int


@dataclass
class ClusterTally:
    """Counts of runs and failures on a cluster.

    Args:
        runs: Number of runs of items that were started.
        repeated: Number of runs that were repeated because a worker was lost or failed.
        doubled: Number of second runs that were started because a worker was slow.
        wasted: Number of runs whose result was not needed.
        lost: Number of workers that were lost.
        dismissed: Number of workers that were dismissed because they failed where others did not.
    """

    runs: int = 0
    repeated: int = 0
    doubled: int = 0
    wasted: int = 0
    lost: int = 0
    dismissed: int = 0

    def plus(self, other: ClusterTally) -> ClusterTally:
        """Return the sum of two tallies."""
        return ClusterTally(
            *(getattr(self, one.name) + getattr(other, one.name) for one in fields(self))
        )


_RUNS_AT_ONCE = 2
"""Maximum number of items that a worker runs at once: one reads tiles while the other is in the
network."""

_SLOW = 3.0
"""Multiple of the usual running time after which an idle worker runs the item, too."""

_LOOK_S = 1.0
"""Seconds between two checks for slow items."""

_FEWEST_TIMES = 5
"""Minimum number of measured runs from which the usual running time is derived."""

MOST_LOSSES = 3
"""Number of workers lost while they ran an item after which the item is blamed and given up. After
the first loss a worker runs the item alone, so that no other item is blamed for its effects."""

_MOST_STRIKES = 3
"""Number of items that a worker failed on, and others did not, after which it is dismissed."""


@dataclass
class _ItemState:
    item: WorkItem
    missing: int = 0
    """Number of needed items that have not been run."""

    running: dict[Hashable, float] = field(default_factory=dict)
    """Start times of the current runs, by worker."""

    holder: Hashable | None = None
    finishing: bool = False
    ran: bool = False
    """True once the outputs for later items are known, also if the worker is lost after that."""

    done: bool = False
    started: int = 0
    losses: int = 0
    failed_on: set[Hashable] = field(default_factory=set)

    @property
    def is_waiting(self) -> bool:
        """True if the item needs a worker."""
        return not (self.done or self.running or self.holder is not None)


@dataclass
class _WorkerLoad:
    runs: set[int] = field(default_factory=set)
    holds: set[int] = field(default_factory=set)


class WorkSchedule:
    """Decides which worker does which item next.

    A decision costs a few microseconds. The cost does not grow with the number of items or workers.

    Args:
        items: Items with the keys 0, 1, 2…; they are pulled as there is room for them.
        ahead: Maximum number of items that are started and not taken. It bounds the memory.
        patient: Whether a slow item is left to its worker.
    """

    def __init__(self, items: Iterable[WorkItem], *, ahead: int, patient: bool = False) -> None:
        self.tally = ClusterTally()
        self._items: Iterator[WorkItem] = iter(items)
        self._ahead = ahead
        self._patient = patient
        self._states: dict[int, _ItemState] = {}
        self._taken = 0
        """Key of the next item to be taken."""

        self._pulled = 0
        """Key of the next item to be pulled from `items`."""

        self._more = True
        self._workers: dict[Hashable, _WorkerLoad] = {}
        self._with_room: list[dict[Hashable, None]] = [{} for _ in range(_RUNS_AT_ONCE)]
        """Workers that can run one more item, by the number of items they run; oldest first."""

        self._waiting: list[int] = []
        """Heap of keys; items that wait no longer are skipped."""

        self._due: list[int] = []
        """Keys of items whose holder can finish them now."""

        self._dependents: dict[int, list[int]] = {}
        self._strikes: dict[Hashable, int] = {}
        self._drops: list[WorkOrder] = []
        self._rates: deque[float] = deque(maxlen=200)
        self._looked = 0.0

    # Events that the caller reports.

    def join(self, worker: Hashable) -> None:
        """Report that a worker has joined."""
        self._workers[worker] = _WorkerLoad()
        self._with_room[0][worker] = None

    def leave(self, worker: Hashable) -> list[int]:
        """Report that a worker is lost, with the items that it ran and held.

        Returns:
            Keys of the items that were lost with `MOST_LOSSES` workers and are blamed for it.
        """
        known = self._workers.pop(worker, None)
        if known is None:
            return []
        for room in self._with_room:
            room.pop(worker, None)
        self.tally.lost += 1
        blamed = []
        for key in sorted(known.runs | known.holds):
            state = self._states.get(key)
            if state is None or state.done:
                continue
            # An item that was only held cannot be the reason of the loss.
            state.losses += key in known.runs or state.finishing
            state.running.pop(worker, None)
            if state.holder == worker:
                state.holder, state.finishing = None, False
            self._wait(state)
            if state.losses >= MOST_LOSSES:
                blamed.append(key)
        return blamed

    def ran(self, worker: Hashable, key: int, now: float, *, finished: bool) -> bool:
        """Report that a worker has run an item.

        Args:
            worker: Worker that ran the item.
            key: Key of the item.
            now: Current time in seconds.
            finished: Whether the item was finished at once.

        Returns:
            True if the result is used; False if another worker was faster or this one was lost.
        """
        state = self._states.get(key)
        began = self._stopped(worker, key)
        if began is None:
            # The answer of a worker that was lost.
            return False
        if state is None or state.done or state.holder is not None:
            self.tally.wasted += 1
            if not finished:
                self._drops.append(WorkOrder(worker, "drop", key))
            return False
        self._rates.append((now - began) / state.item.cost)
        if finished:
            self._done(state)
        else:
            state.holder = worker
            self._workers[worker].holds.add(key)
        self._is_run(state)
        return True

    def finished(self, worker: Hashable, key: int) -> bool:
        """Report that a worker has finished an item that it held.

        Returns:
            True if the result is used.
        """
        state = self._states.get(key)
        if state is None or state.done or state.holder != worker:
            return False
        self._done(state)
        return True

    def known(self, key: int) -> None:
        """Report that an earlier run has finished an item."""
        state = self._states[key]
        self._done(state)
        self._is_run(state)

    def failed(self, worker: Hashable, key: int) -> bool:
        """Report that a worker failed on an item.

        Returns:
            True if the failure is final: another worker failed on it, too, or there is no other.
        """
        state = self._states.get(key)
        ran = self._stopped(worker, key) is not None
        if state is None or state.done or not (ran or state.holder == worker):
            return False
        if state.holder == worker:
            self._release(state)
        if state.failed_on or len(self._workers) < 2:
            return True
        state.failed_on.add(worker)
        self._wait(state)
        return False

    def taken(self, key: int) -> None:
        """Report that the caller has taken the next item; the schedule forgets it."""
        assert key == self._taken
        self._taken += 1
        state = self._states.pop(key)
        for worker in state.failed_on:
            # Another worker succeeded where this one failed.
            self._strikes[worker] = self._strikes.get(worker, 0) + 1

    def given_up(self, keys: Iterable[int]) -> None:
        """Report items that are no longer wanted; they count as done."""
        for key in keys:
            state = self._states.get(key)
            if state is None or state.done:
                continue
            if state.holder is not None:
                self._drops.append(WorkOrder(state.holder, "drop", key))
            # An item on which every worker fails counts against none of them.
            state.failed_on.clear()
            self._done(state)
            self._is_run(state)

    # Decisions.

    @property
    def workers(self) -> list[Hashable]:
        """All workers, those that joined first before others."""
        return list(self._workers)

    def dismissed(self) -> list[Hashable]:
        """Return the workers that failed where others did not.

        The caller stops them and reports each with `leave`.
        """
        found = [
            worker
            for worker, count in self._strikes.items()
            if count >= _MOST_STRIKES and worker in self._workers
        ]
        found = found[: len(self._workers) - 1]
        for worker in found:
            del self._strikes[worker]
            self.tally.dismissed += 1
        return found

    def is_done(self, key: int) -> bool:
        """Return True if an item can be taken once all earlier items are."""
        state = self._states.get(key)
        return state is not None and state.done

    @property
    def is_over(self) -> bool:
        """True if all items are taken, and no more come."""
        return not self._more and not self._states

    def pull(self) -> list[WorkItem]:
        """Return new items, up to `ahead`.

        The caller reports those that an earlier run has finished with `known`.
        """
        new: list[WorkItem] = []
        while self._more and self._pulled < self._taken + self._ahead:
            item = next(self._items, None)
            if item is None:
                self._more = False
                break
            assert item.key == self._pulled
            self._pulled += 1
            state = self._states[item.key] = _ItemState(item)
            for key in item.needs:
                other = self._states.get(key)
                # Items that were taken have been run.
                if other is not None and not other.ran:
                    state.missing += 1
                    self._dependents.setdefault(key, []).append(item.key)
            heapq.heappush(self._waiting, item.key)
            new.append(item)
        return new

    def orders(self, now: float) -> list[WorkOrder]:
        """Return the orders that workers can carry out now."""
        orders, self._drops = self._drops, []
        for key in self._due:
            state = self._states.get(key)
            if state is None or state.holder is None or state.finishing:
                continue
            state.finishing = True
            orders.append(WorkOrder(state.holder, "finish", key))
        self._due.clear()
        passed_over = []
        while self._waiting and any(self._with_room):
            key = heapq.heappop(self._waiting)
            state = self._states.get(key)
            if state is None or not state.is_waiting:
                continue
            worker = self._room_for(state)
            if worker is None:
                passed_over.append(key)
                if state.losses:
                    # No further item starts until a worker has time for this one alone.
                    break
                continue
            self.tally.repeated += state.started > 0
            orders.append(self._run(state, worker, now))
        for key in passed_over:
            heapq.heappush(self._waiting, key)
        if not self._patient and now - self._looked >= _LOOK_S:
            self._looked = now
            orders += self._doubled(now)
        return orders

    def is_ready(self, key: int) -> bool:
        """Return True if all items that an item needs have been run."""
        return self._states[key].missing == 0

    def _room_for(self, state: _ItemState) -> Hashable | None:
        """Return the worker with the least work that has not failed on the item."""
        if state.failed_on.issuperset(self._workers):
            # The other worker was lost in the meantime.
            state.failed_on.clear()
        for room in self._with_room[: 1 if state.losses else None]:
            for worker in room:
                if worker not in state.failed_on:
                    return worker
        return None

    def _run(self, state: _ItemState, worker: Hashable, now: float) -> WorkOrder:
        known = self._workers[worker]
        state.running[worker] = now
        state.started += 1
        self._with_room[len(known.runs)].pop(worker, None)
        known.runs.add(state.item.key)
        if len(known.runs) < _RUNS_AT_ONCE and not state.losses:
            self._with_room[len(known.runs)][worker] = None
        self.tally.runs += 1
        return WorkOrder(worker, "run", state.item.key)

    def _stopped(self, worker: Hashable, key: int) -> float | None:
        """End the run of an item on a worker.

        Returns:
            Start time of the run, 0 if the item is already taken; None if there was no such run.
        """
        known = self._workers.get(worker)
        state = self._states.get(key)
        began = None if state is None else state.running.pop(worker, None)
        if known is None or key not in known.runs:
            return None
        if len(known.runs) < _RUNS_AT_ONCE:
            self._with_room[len(known.runs)].pop(worker, None)
        known.runs.discard(key)
        self._with_room[len(known.runs)][worker] = None
        return 0.0 if began is None else began

    def _wait(self, state: _ItemState) -> None:
        if state.is_waiting:
            heapq.heappush(self._waiting, state.item.key)

    def _release(self, state: _ItemState) -> None:
        """Note that no worker holds an item."""
        if state.holder in self._workers:
            self._workers[state.holder].holds.discard(state.item.key)
        state.holder, state.finishing = None, False

    def _done(self, state: _ItemState) -> None:
        self._release(state)
        state.done = True

    def _is_run(self, state: _ItemState) -> None:
        """Note that the outputs of an item for later items are known."""
        if not state.ran:
            state.ran = True
            for key in self._dependents.pop(state.item.key, ()):
                other = self._states.get(key)
                if other is not None:
                    other.missing -= 1
                    if not other.missing and other.holder is not None:
                        self._due.append(key)
        if state.holder is not None and not state.missing:
            self._due.append(state.item.key)

    def _doubled(self, now: float) -> list[WorkOrder]:
        """Order second runs of the oldest slow items on idle workers."""
        idle = list(self._with_room[0])
        if not idle or len(self._rates) < _FEWEST_TIMES:
            return []
        usual = statistics.median(self._rates)
        orders = []
        for state in self._states.values():
            if not idle:
                break
            if len(state.running) != 1 or state.done or state.holder is not None:
                continue
            ((runner, began),) = state.running.items()
            if now - began > _SLOW * usual * state.item.cost and idle[0] != runner:
                self.tally.doubled += 1
                orders.append(self._run(state, idle.pop(0), now))
        return orders
