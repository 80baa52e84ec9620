"""Schedule work items on the workers of a cluster.

The caller takes finished items in the order of their keys. One worker runs an item. It may run the
item before the earlier items whose outputs it needs. In that case the worker holds the item, and
finishes it once those outputs are known.

The schedule starts nothing and reads no clock: its decisions depend only on the reported events.

    waiting --run--> running --ran--> held by its worker --finish--> finishing --done--> done
       ^                |                  |                             |
       +----------------+-- the worker is lost, or the call failed ------+
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["MOST_LOSSES", "ClusterTally", "WorkItem", "WorkOrder", "WorkSchedule"]


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A unit of work: a block of a scene, or a whole scene.

    Args:
        key: Number of the item; items are taken in this order.
        needs: Keys of the earlier items whose outputs it needs to be finished.
    """

    key: int
    needs: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """An order to a worker.

    Args:
        worker: Worker that receives the order.
        what: `run` an item, and finish it if all that it needs is known; `finish` or `drop` an item
            that the worker holds.
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
        lost: Number of workers that were lost.
    """

    runs: int = 0
    repeated: int = 0
    lost: int = 0

    def plus(self, other: ClusterTally) -> ClusterTally:
        """Return the sum of two tallies."""
        return ClusterTally(
            self.runs + other.runs, self.repeated + other.repeated, self.lost + other.lost
        )


_RUNS_AT_ONCE = 2
"""Maximum number of items that a worker runs at once: one reads tiles while the other is in the
network."""

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

    runner: Hashable | None = None
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
        return not self.done and self.runner is None and self.holder is None


@dataclass
class _WorkerLoad:
    runs: set[int] = field(default_factory=set)
    holds: set[int] = field(default_factory=set)
    is_alone: bool = False
    """True while the worker runs an item with which another worker was lost."""


class WorkSchedule:
    """Decides which worker does which item next.

    Args:
        items: Items with the keys 0, 1, 2…; they are pulled as there is room for them.
        ahead: Maximum number of items that are started and not taken. It bounds the memory.
    """

    def __init__(self, items: Iterable[WorkItem], *, ahead: int) -> None:
        self.tally = ClusterTally()
        self._items: Iterator[WorkItem] = iter(items)
        self._ahead = ahead
        self._states: dict[int, _ItemState] = {}
        self._taken = 0
        """Key of the next item to be taken."""

        self._pulled = 0
        """Key of the next item to be pulled from `items`."""

        self._more = True
        self._workers: dict[Hashable, _WorkerLoad] = {}
        self._waiting: list[int] = []
        """Heap of keys; items that wait no longer are skipped."""

        self._due: list[int] = []
        """Keys of items whose holder can finish them now."""

        self._dependents: dict[int, list[int]] = {}
        self._strikes: Counter[Hashable] = Counter()
        self._drops: list[WorkOrder] = []

    # Events that the caller reports.

    def join(self, worker: Hashable) -> None:
        """Report that a worker has joined."""
        self._workers[worker] = _WorkerLoad()

    def leave(self, worker: Hashable) -> list[int]:
        """Report that a worker is lost, with the items that it ran and held.

        Returns:
            Keys of the items that were lost with `MOST_LOSSES` workers and are blamed for it.
        """
        known = self._workers.pop(worker, None)
        if known is None:
            return []
        self.tally.lost += 1
        blamed = []
        for key in sorted(known.runs | known.holds):
            state = self._states.get(key)
            if state is None or state.done:
                continue
            # An item that was only held cannot be the reason of the loss.
            state.losses += key in known.runs or state.finishing
            if state.runner == worker:
                state.runner = None
            if state.holder == worker:
                state.holder, state.finishing = None, False
            self._wait(state)
            if state.losses >= MOST_LOSSES:
                blamed.append(key)
        return blamed

    def ran(self, worker: Hashable, key: int, *, finished: bool) -> bool:
        """Report that a worker has run an item.

        Args:
            worker: Worker that ran the item.
            key: Key of the item.
            finished: Whether the item was finished at once.

        Returns:
            True if the result is used; False if the item was given up or the worker was lost.
        """
        state = self._states.get(key)
        if not self._stopped(worker, key):
            return False
        if state is None or state.done:
            if not finished:
                self._drops.append(WorkOrder(worker, "drop", key))
            return False
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
        ran = self._stopped(worker, key)
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
        # Another worker succeeded where these failed.
        self._strikes.update(self._states.pop(key).failed_on)

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

    def unfit(self) -> Hashable | None:
        """Return a worker that failed where others did not; the caller stops it."""
        for worker, count in self._strikes.items():
            if count >= _MOST_STRIKES and worker in self._workers and len(self._workers) > 1:
                return worker
        return None

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

    def orders(self) -> list[WorkOrder]:
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
        while self._waiting:
            key = heapq.heappop(self._waiting)
            state = self._states.get(key)
            if state is None or not state.is_waiting:
                continue
            worker = self._room_for(state)
            if worker is None:
                passed_over.append(key)
                if state.losses or not state.failed_on:
                    # No worker has room, or an item waits until a worker has time for it alone.
                    break
                continue
            self.tally.repeated += state.started > 0
            orders.append(self._run(state, worker))
        for key in passed_over:
            heapq.heappush(self._waiting, key)
        return orders

    def is_ready(self, key: int) -> bool:
        """Return True if all items that an item needs have been run."""
        return self._states[key].missing == 0

    def _room_for(self, state: _ItemState) -> Hashable | None:
        """Return the worker with the least work that has not failed on the item."""
        if state.failed_on.issuperset(self._workers):
            # The other worker was lost in the meantime.
            state.failed_on.clear()
        limit = 1 if state.losses else _RUNS_AT_ONCE
        fitting = [
            (len(load.runs), number, worker)
            for number, (worker, load) in enumerate(self._workers.items())
            if worker not in state.failed_on and len(load.runs) < limit and not load.is_alone
        ]
        return min(fitting)[2] if fitting else None

    def _run(self, state: _ItemState, worker: Hashable) -> WorkOrder:
        load = self._workers[worker]
        state.runner = worker
        state.started += 1
        load.runs.add(state.item.key)
        load.is_alone = state.losses > 0
        self.tally.runs += 1
        return WorkOrder(worker, "run", state.item.key)

    def _stopped(self, worker: Hashable, key: int) -> bool:
        """End the run of an item on a worker; return False if there was no such run."""
        load = self._workers.get(worker)
        if load is None or key not in load.runs:
            return False
        state = self._states.get(key)
        if state is not None and state.runner == worker:
            state.runner = None
        load.runs.discard(key)
        load.is_alone = False
        return True

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
