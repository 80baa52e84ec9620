"""Who does what next: the decisions of a cluster's driver, without a cluster.

The work is a row of pieces that are taken in order. A piece is run by one worker, which may come
before those are run that hand something on to it; then the same worker finishes it. What is decided
depends on what was told and on the times that came with it, so that a simulation (bench/cluster.py)
decides as a real run does.

    waiting --run--> running --ran--> held by its worker --finish--> finishing --done--> done
       ^                |                  |                             |
       +----------------+--- the worker is lost, or failed on it --------+
"""

from __future__ import annotations

import heapq
import statistics
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from rooftrace.predict.cluster.work import Order, Piece, Tally

__all__ = ["MOST_LOSSES", "Schedule"]

_RUNS_AT_ONCE = 2
"""Of a worker: one reads while the network has the other's tiles."""

_SLOW = 3.0
"""Times what a piece usually takes: then another worker with nothing to do is given it, too."""

_LOOK_S = 1.0
"""Between two looks for pieces that take long."""

_FEWEST_TIMES = 5
"""Pieces that were run before it is known what one usually takes."""

MOST_LOSSES = 3
"""Workers that may be lost with one piece; it is to blame then. After the first of them a worker
has it alone, so that no other piece is blamed for what this one does."""

_MOST_STRIKES = 3
"""Pieces that a worker failed on and others did not, before it is given nothing more."""


@dataclass
class _State:
    piece: Piece
    missing: int = 0
    """Of what it needs, pieces that were not run."""

    running: dict[Hashable, float] = field(default_factory=dict)
    """The workers that run it, and since when."""

    holder: Hashable | None = None
    finishing: bool = False
    ran: bool = False
    """Whether what it hands on is known, be its worker lost since or not."""

    done: bool = False
    begun: int = 0
    losses: int = 0
    failed_on: set[Hashable] = field(default_factory=set)

    @property
    def waits(self) -> bool:
        """Whether a worker is to be found for it."""
        return not (self.done or self.running or self.holder is not None)


@dataclass
class _Worker:
    runs: set[int] = field(default_factory=set)
    holds: set[int] = field(default_factory=set)


class Schedule:
    """The decisions of a driver.

    Each costs some microseconds, whatever the number of pieces and of workers.

    Args:
        pieces: taken as there is room for them; keys 0, 1, 2…
        ahead: so many pieces at most are begun and not taken: what is held is bounded by it.
        patient: whether a piece that takes long is left to its worker.
    """

    def __init__(self, pieces: Iterable[Piece], *, ahead: int, patient: bool = False) -> None:
        self.tally = Tally()
        self._pieces: Iterator[Piece] = iter(pieces)
        self._ahead = ahead
        self._patient = patient
        self._states: dict[int, _State] = {}
        self._taken = 0
        """All before this key were taken."""

        self._told = 0
        """All before this key came out of `pieces`."""

        self._more = True
        self._workers: dict[Hashable, _Worker] = {}
        self._with_room: list[dict[Hashable, None]] = [{} for _ in range(_RUNS_AT_ONCE)]
        """By how many pieces they run, those that can have one more; who came first, first."""

        self._waiting: list[int] = []
        """A heap of keys; those that wait no more are passed over."""

        self._ripe: list[int] = []
        """Held by a worker that can finish them now."""

        self._dependents: dict[int, list[int]] = {}
        self._strikes: dict[Hashable, int] = {}
        self._drops: list[Order] = []
        self._rates: deque[float] = deque(maxlen=200)
        self._looked = 0.0

    # What is told.

    def join(self, worker: Hashable) -> None:
        """A worker is there."""
        self._workers[worker] = _Worker()
        self._with_room[0][worker] = None

    def leave(self, worker: Hashable) -> list[int]:
        """A worker is lost, with all that it ran and held.

        Returns:
            Pieces that were lost with so many workers that they are to blame.
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
            # What it only held cannot be why it was lost.
            state.losses += key in known.runs or state.finishing
            state.running.pop(worker, None)
            if state.holder == worker:
                state.holder, state.finishing = None, False
            self._wait(state)
            if state.losses >= MOST_LOSSES:
                blamed.append(key)
        return blamed

    def ran(self, worker: Hashable, key: int, now: float, *, finished: bool) -> bool:
        """A worker has run a piece.

        Args:
            finished: whether it could be finished at once.

        Returns:
            Whether what it says is of use; else another was faster.
        """
        state = self._states.get(key)
        began = self._stopped(worker, key)
        if began is None:
            # Of a worker that was lost.
            return False
        if state is None or state.done or state.holder is not None:
            self.tally.wasted += 1
            if not finished:
                self._drops.append(Order(worker, "drop", key))
            return False
        self._rates.append((now - began) / state.piece.cost)
        if finished:
            self._done(state)
        else:
            state.holder = worker
            self._workers[worker].holds.add(key)
        self._is_run(state)
        return True

    def finished(self, worker: Hashable, key: int) -> bool:
        """A worker has finished a piece that it held.

        Returns:
            Whether it is of use.
        """
        state = self._states.get(key)
        if state is None or state.done or state.holder != worker:
            return False
        self._done(state)
        return True

    def known(self, key: int) -> None:
        """A piece was done by an earlier run."""
        state = self._states[key]
        self._done(state)
        self._is_run(state)

    def failed(self, worker: Hashable, key: int) -> bool:
        """A worker could not do a piece.

        Returns:
            Whether that is for good: another one failed on it, too, or there is no other.
        """
        state = self._states.get(key)
        ran = self._stopped(worker, key) is not None
        if state is None or state.done or not (ran or state.holder == worker):
            return False
        if state.holder == worker:
            self._let_go(state)
        if state.failed_on or len(self._workers) < 2:
            return True
        state.failed_on.add(worker)
        self._wait(state)
        return False

    def taken(self, key: int) -> None:
        """The next piece has been taken, and what it was is of use to nobody any more."""
        assert key == self._taken
        self._taken += 1
        state = self._states.pop(key)
        for worker in state.failed_on:
            # Others could do it.
            self._strikes[worker] = self._strikes.get(worker, 0) + 1

    def given_up(self, keys: Iterable[int]) -> None:
        """Pieces that nobody is to do any more; they count as done."""
        for key in keys:
            state = self._states.get(key)
            if state is None or state.done:
                continue
            if state.holder is not None:
                self._drops.append(Order(state.holder, "drop", key))
            # What nobody could do is held against nobody.
            state.failed_on.clear()
            self._done(state)
            self._is_run(state)

    # What is decided.

    def dismissed(self) -> list[Hashable]:
        """Workers that failed where others did not; they are to be let go, and have to `leave`."""
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
        """Whether a piece can be taken, when all before it were."""
        state = self._states.get(key)
        return state is not None and state.done

    @property
    def is_over(self) -> bool:
        """Whether all pieces were taken, and no more come."""
        return not self._more and not self._states

    def pull(self) -> list[Piece]:
        """New pieces, as many as there is room for: whoever knows them done says `known`."""
        new: list[Piece] = []
        while self._more and self._told < self._taken + self._ahead:
            piece = next(self._pieces, None)
            if piece is None:
                self._more = False
                break
            assert piece.key == self._told
            self._told += 1
            state = self._states[piece.key] = _State(piece)
            for key in piece.needs:
                other = self._states.get(key)
                # Those that were taken have been run.
                if other is not None and not other.ran:
                    state.missing += 1
                    self._dependents.setdefault(key, []).append(piece.key)
            heapq.heappush(self._waiting, piece.key)
            new.append(piece)
        return new

    def orders(self, now: float) -> list[Order]:
        """What is to be done now, by workers that wait for it."""
        orders, self._drops = self._drops, []
        for key in self._ripe:
            state = self._states.get(key)
            if state is None or state.holder is None or state.finishing:
                continue
            state.finishing = True
            orders.append(Order(state.holder, "finish", key))
        self._ripe.clear()
        passed_over = []
        while self._waiting and any(self._with_room):
            key = heapq.heappop(self._waiting)
            state = self._states.get(key)
            if state is None or not state.waits:
                continue
            worker = self._room_for(state)
            if worker is None:
                passed_over.append(key)
                if state.losses:
                    # Nothing more is begun before a worker has time for it alone.
                    break
                continue
            self.tally.repeated += state.begun > 0
            orders.append(self._run(state, worker, now))
        for key in passed_over:
            heapq.heappush(self._waiting, key)
        if not self._patient and now - self._looked >= _LOOK_S:
            self._looked = now
            orders += self._doubled(now)
        return orders

    def is_ready(self, key: int) -> bool:
        """Whether all that hand something on to a piece have been run."""
        return self._states[key].missing == 0

    def _room_for(self, state: _State) -> Hashable | None:
        """A worker that has least to do, and has not failed on a piece."""
        if state.failed_on.issuperset(self._workers):
            # The other one was lost meanwhile.
            state.failed_on.clear()
        for room in self._with_room[: 1 if state.losses else None]:
            for worker in room:
                if worker not in state.failed_on:
                    return worker
        return None

    def _run(self, state: _State, worker: Hashable, now: float) -> Order:
        known = self._workers[worker]
        state.running[worker] = now
        state.begun += 1
        self._with_room[len(known.runs)].pop(worker, None)
        known.runs.add(state.piece.key)
        if len(known.runs) < _RUNS_AT_ONCE and not state.losses:
            self._with_room[len(known.runs)][worker] = None
        self.tally.runs += 1
        return Order(worker, "run", state.piece.key)

    def _stopped(self, worker: Hashable, key: int) -> float | None:
        """Note that a worker runs a piece no more; since when it did, if it did."""
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

    def _wait(self, state: _State) -> None:
        if state.waits:
            heapq.heappush(self._waiting, state.piece.key)

    def _let_go(self, state: _State) -> None:
        """Nobody holds a piece."""
        if state.holder in self._workers:
            self._workers[state.holder].holds.discard(state.piece.key)
        state.holder, state.finishing = None, False

    def _done(self, state: _State) -> None:
        self._let_go(state)
        state.done = True

    def _is_run(self, state: _State) -> None:
        """What a piece hands on is known."""
        if not state.ran:
            state.ran = True
            for key in self._dependents.pop(state.piece.key, ()):
                other = self._states.get(key)
                if other is not None:
                    other.missing -= 1
                    if not other.missing and other.holder is not None:
                        self._ripe.append(key)
        if state.holder is not None and not state.missing:
            self._ripe.append(state.piece.key)

    def _doubled(self, now: float) -> list[Order]:
        """The oldest pieces that take long, to workers that have nothing to do."""
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
            if now - began > _SLOW * usual * state.piece.cost and idle[0] != runner:
                self.tally.doubled += 1
                orders.append(self._run(state, idle.pop(0), now))
        return orders
