"""The simulated cluster: every block once, as many as there are, and the law of its clock."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

BENCH = Path(__file__).parents[3] / "bench"


@pytest.fixture(scope="module")
def simulation() -> Any:
    sys.path.insert(0, str(BENCH))
    try:
        import cluster_simulation
    finally:
        sys.path.remove(str(BENCH))
    return cluster_simulation


def play(simulation: Any, rows: int, cols: int, workers: int, seed: int = 0, **how: Any) -> Any:
    costs = simulation.Costs(run=10.0, finish=0.5, take=0.05, hear=0.001, end=0.01)
    world = simulation.World(simulation.grid(rows, cols), workers, costs, seed, **how)
    world.now = world.play()
    assert world.taken == rows * cols
    return world


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 30), st.integers(0, 2**32),
    st.sampled_from([None, 1.0, 0.1]), st.sampled_from([0.0, 0.3]), st.booleans(),
)  # fmt: skip
def test_every_block_is_taken_once(
    simulation: Any, rows: int, cols: int, workers: int, seed: int, failures_h: float | None,
    slow: float, patient: bool,
) -> None:  # fmt: skip
    world = play(
        simulation, rows, cols, workers, seed, failures_h=failures_h, slow=slow, patient=patient
    )
    tally = world.schedule.tally
    assert tally.runs >= rows * cols
    if failures_h is None and (patient or not slow):
        assert tally.lost == 0


def test_one_worker_takes_as_long_as_its_work(simulation: Any) -> None:
    world = play(simulation, 10, 10, 1)
    assert world.now == pytest.approx(100 * 10.5, rel=0.05)
    assert world.schedule.tally.wasted == 0


def test_ten_workers_take_a_tenth(simulation: Any) -> None:
    one, ten = play(simulation, 20, 20, 1), play(simulation, 20, 20, 10)
    assert one.now / ten.now == pytest.approx(10, rel=0.1)


def test_the_driver_is_the_limit_where_workers_are_fast(simulation: Any) -> None:
    costs = simulation.Costs(run=0.1, finish=0.0, take=0.2, hear=0.001, end=0.0)
    world = simulation.World(simulation.grid(20, 20), 50, costs, 0)
    assert world.play() == pytest.approx(400 * 0.2, rel=0.05)


def test_to_double_slow_blocks_saves_time_and_wastes_some(simulation: Any) -> None:
    spans, wasted = [], []
    for patient in (True, False):
        worlds = [
            play(simulation, 12, 12, 20, seed, slow=0.1, patient=patient) for seed in range(4)
        ]
        spans.append(sum(world.now for world in worlds))
        wasted.append(sum(world.schedule.tally.runs - 144 for world in worlds))
    assert spans[1] < 0.8 * spans[0]
    assert wasted[0] == 0 < wasted[1]


@pytest.mark.campaign
def test_rows_are_made_of_what_was_measured(
    simulation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulation, "_WORKERS", (10,))
    monkeypatch.setattr(simulation, "_SCENES", (400,))
    measured = {
        "worker_block_s": 2.0,
        "driver": {"take_ms": 120.0, "finish_thread_ms": 30.0, "finish_thread_fixed_ms": 500.0},
        "calls": {"call_cpu_ms": 1.0, "schedule_ms_at_1000_workers": 0.05},
        "catalogue": {
            "workers_1": {"mpx_per_s": 10.0},
            "driver": {"hand_out_ms": 0.5, "take_ms": 1.5},
        },
    }
    said: list[str] = []
    rows = simulation.simulate(measured, said.append)
    assert len(rows) == len(said) == 5 + 2 + 5
    plain = rows[0]
    assert plain["mishaps"] == "none"
    assert plain["minutes"] == pytest.approx(33 * 33 * 2.0 / 10 / 60, rel=0.1)
    assert plain["waste"] == 0
    assert plain["end_s"] == pytest.approx(33 * 33 * 0.03 + 0.5, abs=0.05)
    # Fifty times as fast, the driver takes blocks all the time.
    assert rows[6]["taking_share"] > 0.9
    wholes = rows[7]
    assert wholes["of"] == "400 scenes"
    assert wholes["minutes"] == pytest.approx(400 * 10.0 / 10 / 60, rel=0.1)
    assert wholes["taking_share"] == 0
    assert 0 < wholes["hearing_share"] < 0.01
