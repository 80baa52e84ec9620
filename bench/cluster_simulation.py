"""A cluster in virtual time: the schedule of a real run, with workers and machines made up.

Events are processed in the order of a simulated clock. The driver is modelled as two servers,
because it has two threads: one sends and receives, the other takes blocks in order.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rooftrace.predict.cluster.schedule import WorkItem, WorkOrder, WorkSchedule

__all__ = ["ASSUMED", "Costs", "World", "grid", "simulate"]

_FAILURE_HOURS = (1000.0, 100.0)
_NOTICED_S = 20.0
_REPLACED_S = 180.0
_SLOW_SHARE = 0.02
_SLOW_TIMES = 10.0
_SPREAD = 0.15
_FASTER = {"as here": 1.0, "8 times as fast": 8.0, "50 times as fast": 50.0}

ASSUMED = {
    "hours_between_failures_of_a_machine": list(_FAILURE_HOURS),
    "seconds_until_a_loss_is_noticed": _NOTICED_S,
    "seconds_until_a_machine_is_replaced": _REPLACED_S,
    "share_of_slow_machines": _SLOW_SHARE,
    "slow_machines_take_times_as_long": _SLOW_TIMES,
    "spread_of_a_block": _SPREAD,
    "faster_workers": _FASTER,
    "note": "assumed, not measured",
}

_WORKERS = (10, 100, 1000)
_SEEDS = (1, 2, 3)
_SIDE = 33
"""Blocks of a scene of 100,000 px."""

_SCENES = (40, 50_000)
_SCENE_MPX = 100.0
_MISHAPS: list[tuple[str, dict[str, Any]]] = [
    ("none", {}),
    *((f"a failure in {hours:g} h", {"failures_h": hours}) for hours in _FAILURE_HOURS),
    ("slow machines", {"slow": _SLOW_SHARE}),
    ("slow machines, left alone", {"slow": _SLOW_SHARE, "patient": True}),
]


@dataclass(frozen=True)
class Costs:
    """Cost of a run, in seconds.

    Args:
        run: a worker's time for a block.
        finish: a worker's, for one that it held.
        take: the driver's thread that takes blocks.
        hear: the driver's other thread, for each answer, sending included.
        end: the thread that writes the files at the end of a scene, for each of its blocks.
        end_fixed: the same thread, for a scene of any size.
    """

    run: float
    finish: float
    take: float
    hear: float
    end: float
    end_fixed: float = 0.0


def grid(rows: int, cols: int, first: int = 0) -> Iterator[WorkItem]:
    """The blocks of a scene, each handed something from the left and from above."""
    for row, col in itertools.product(range(rows), range(cols)):
        around = ((row, col - 1), (row - 1, col), (row - 1, col - 1))
        needs = {first + r * cols + c for r, c in around if r >= 0 and c >= 0}
        yield WorkItem(first + row * cols + col, frozenset(needs))


@dataclass
class World:
    """One run.

    Args:
        pieces: Pieces of the scene.
        workers: Number of workers.
        costs: Cost of a block.
        failures_h: hours between failures of one worker; None for never.
        slow: the share of workers that are slow.
        patient, ahead: see `WorkSchedule`; default as for blocks.
    """

    pieces: Iterator[WorkItem]
    workers: int
    costs: Costs
    seed: int
    failures_h: float | None = None
    slow: float = 0.0
    patient: bool = False
    ahead: int | None = None
    now: float = 0.0
    taken: int = 0
    busy_s: float = 0.0
    taking_s: float = 0.0
    hearing_s: float = 0.0
    blamed: int = 0
    schedule: WorkSchedule = field(init=False)

    def __post_init__(self) -> None:
        ahead = self.ahead or max(16, 6 * self.workers)
        self.schedule = WorkSchedule(self.pieces, ahead=ahead, patient=self.patient)
        self._random = random.Random(self.seed)
        self._count = itertools.count()
        self._events: list[tuple[float, int, str, Any, Any]] = []
        self._speed: dict[int, float] = {}
        self._busy_until: dict[int, float] = {}
        self._names = itertools.count()
        self._heard_at = 0.0
        self._taken_at = 0.0
        self._sent_for_taking = 0
        for _ in range(self.workers):
            self._come(0.0)

    def play(self) -> float:
        """Run to the end; the seconds that it takes."""
        self._decide()
        while not self.schedule.is_over:
            at, _, what, worker, detail = heapq.heappop(self._events)
            self.now = max(self.now, at)
            if what in ("ran", "finished"):
                # The driver hears one after the other.
                self._heard_at = max(self.now, self._heard_at) + self.costs.hear
                self.hearing_s += self.costs.hear
                self.now = self._heard_at
            getattr(self, f"_{what}")(worker, detail)
            self._decide()
        return max(self.now, self._taken_at)

    def _push(self, at: float, what: str, worker: Any, detail: Any = None) -> None:
        heapq.heappush(self._events, (at, next(self._count), what, worker, detail))

    def _come(self, at: float) -> None:
        worker = next(self._names)
        slow = self._random.random() < self.slow
        self._speed[worker] = _SLOW_TIMES if slow else 1.0
        self._push(at, "joined", worker)
        if self.failures_h is not None:
            lives_s = self._random.expovariate(1 / (3600 * self.failures_h))
            self._push(at + lives_s, "died", worker)

    def _decide(self) -> None:
        self.schedule.pull()
        for order in self.schedule.orders(self.now):
            self._send(order)
        while self.schedule.is_done(self._sent_for_taking):
            self._taken_at = max(self._taken_at, self.now) + self.costs.take
            self.taking_s += self.costs.take
            self._push(self._taken_at, "took", None, self._sent_for_taking)
            self._sent_for_taking += 1

    def _send(self, order: WorkOrder) -> None:
        worker = order.worker
        assert isinstance(worker, int)
        if worker not in self._speed or order.what == "drop":
            return
        ready = self.schedule.is_ready(order.key)
        if order.what == "run":
            work = self.costs.run * max(0.3, self._random.gauss(1, _SPREAD))
            work += self.costs.finish if ready else 0.0
        else:
            work = self.costs.finish
        work *= self._speed[worker]
        begins = max(self.now, self._busy_until.get(worker, 0.0))
        self._busy_until[worker] = begins + work
        self.busy_s += work
        self._push(begins + work, "ran" if order.what == "run" else "finished", worker,
                   (order.key, ready))  # fmt: skip

    # What happens.

    def _joined(self, worker: int, _: Any) -> None:
        self.schedule.join(worker)

    def _died(self, worker: int, _: Any) -> None:
        del self._speed[worker]
        self._push(self.now + _NOTICED_S, "lost", worker)

    def _lost(self, worker: int, _: Any) -> None:
        blamed = self.schedule.leave(worker)
        self.blamed += len(blamed)
        self.schedule.given_up(blamed)
        self._come(self.now + _REPLACED_S)

    def _ran(self, worker: int, detail: tuple[int, bool]) -> None:
        if worker in self._speed:
            self.schedule.ran(worker, detail[0], self.now, finished=detail[1])

    def _finished(self, worker: int, detail: tuple[int, bool]) -> None:
        if worker in self._speed:
            self.schedule.finished(worker, detail[0])

    def _took(self, _: Any, key: int) -> None:
        self.schedule.taken(key)
        self.taken += 1


def costs_of(measured: dict[str, Any], faster: float = 1.0) -> Costs:
    """Return the measured costs for workers that are `faster` times as fast."""
    driver, calls = measured["driver"], measured["calls"]
    return Costs(
        # With what it takes to finish it.
        run=measured["worker_block_s"] / faster,
        finish=0.0,
        take=driver["take_ms"] / 1e3,
        hear=(calls["call_cpu_ms"] + calls["schedule_ms_at_1000_workers"]) / 1e3,
        end=driver["finish_thread_ms"] / 1e3,
        end_fixed=driver["finish_thread_fixed_ms"] / 1e3,
    )


def whole_costs_of(measured: dict[str, Any]) -> Costs:
    """Return the measured cost of a scene of 10,000² pixels that one worker processes."""
    catalogue, calls = measured["catalogue"], measured["calls"]
    driver = catalogue["driver"]
    return Costs(
        run=_SCENE_MPX / catalogue["workers_1"]["mpx_per_s"],
        finish=0.0,
        take=0.0,
        hear=(driver["hand_out_ms"] + driver["take_ms"] + calls["call_cpu_ms"]
              + calls["schedule_ms_at_1000_workers"]) / 1e3,
        end=0.0,
    )  # fmt: skip


def simulate(measured: dict[str, Any], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Makespan, waste and the driver's load, for clusters of several sizes.

    One scene of 100,000² by blocks, and catalogues of scenes of 10,000² that workers do whole.

    Args:
        measured: Figures measured by bench/cluster.py.
        say: takes a line for each row.
    """
    rows = []
    for kind, factor in _FASTER.items():
        costs = costs_of(measured, factor)
        for workers in _WORKERS:
            for name, how in _MISHAPS if factor == 1 else _MISHAPS[:1]:
                found = [_scene(workers, costs, seed, how) for seed in _SEEDS]
                row = _row(found, _SIDE * _SIDE, costs)
                rows.append({"of": "one scene", "worker": kind, "workers": workers,
                             "mishaps": name, **row})  # fmt: skip
                say(str(rows[-1]))
    costs = whole_costs_of(measured)
    for scenes in _SCENES:
        for workers in _WORKERS:
            for name, how in _MISHAPS:
                found = [_catalogue(scenes, workers, costs, seed, how) for seed in _SEEDS]
                row = _row(found, scenes, costs)
                rows.append({"of": f"{scenes} scenes", "worker": "as here", "workers": workers,
                             "mishaps": name, **row})  # fmt: skip
                say(str(rows[-1]))
    return rows


def _scene(workers: int, costs: Costs, seed: int, how: dict[str, Any]) -> World:
    world = World(grid(_SIDE, _SIDE), workers, costs, seed, **how)
    world.now = world.play()
    assert world.taken == _SIDE * _SIDE
    return world


def _catalogue(scenes: int, workers: int, costs: Costs, seed: int, how: dict[str, Any]) -> World:
    ahead = max(1000, 30 * workers)
    world = World(
        (WorkItem(key) for key in range(scenes)), workers, costs, seed, ahead=ahead, **how
    )
    world.now = world.play()
    assert world.taken == scenes
    return world


def _row(found: list[World], blocks: int, costs: Costs) -> dict[str, Any]:
    count = len(found)
    span = sum(world.now for world in found) / count
    ideal = blocks * costs.run / found[0].workers
    tally = [world.schedule.tally for world in found]
    runs = sum(one.runs for one in tally) / count
    return {
        "minutes": round(span / 60, 2),
        "efficiency": round(ideal / span, 3),
        "waste": round((runs - blocks) / blocks, 4),
        "lost": round(sum(one.lost for one in tally) / count, 1),
        "given_up": sum(world.blamed for world in found),
        "doubled": round(sum(one.doubled for one in tally) / count, 1),
        "taking_share": round(sum(w.taking_s for w in found) / count / span, 3),
        "hearing_share": round(sum(w.hearing_s for w in found) / count / span, 3),
        "end_s": round(blocks * costs.end + costs.end_fixed, 1),
    }
