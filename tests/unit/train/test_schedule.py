"""The rate rises, falls, and goes on after a resume exactly where it was."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from rooftrace.train.config import ScheduleConfig
from rooftrace.train.schedule import Schedule


def schedule(total: int = 100, **settings: object) -> Schedule:
    return Schedule(ScheduleConfig(**settings), base_lr=0.1, total_steps=total)  # type: ignore[arg-type]


def test_none_is_one() -> None:
    s = schedule(kind="none")
    for loss in (1, 2, 3, 4, 5, 6, 7, 8):
        s.observe(loss)
    assert [s.factor(step) for step in (0, 50, 1000)] == [1, 1, 1]


def test_warmup_rises_evenly_to_one() -> None:
    s = schedule(kind="none", warmup_steps=4)
    assert [s.factor(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_cosine_by_hand() -> None:
    s = schedule(kind="cosine", min_lr=0.01)
    assert s.factor(0) == 1
    assert s.factor(25) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert s.factor(50) == pytest.approx(0.55)
    assert s.factor(100) == pytest.approx(0.1)
    assert s.factor(500) == pytest.approx(0.1)


@given(st.integers(0, 20), st.integers(30, 200))
def test_cosine_rises_then_falls(warmup: int, total: int) -> None:
    s = schedule(total, kind="cosine", warmup_steps=warmup, min_lr=0.001)
    factors = [s.factor(step) for step in range(total + 5)]
    top = factors.index(max(factors))
    assert top in (warmup, max(0, warmup - 1))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert 0.01 - 1e-12 <= factors[-1] <= 0.011


def test_plateau_by_hand() -> None:
    s = schedule(kind="plateau", patience=1, factor=0.5, min_lr=0.02)
    seen = []
    for loss in (1.0, 0.9, 0.95, 0.92, 0.91, 0.99, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8):
        s.observe(loss)
        seen.append(s.factor(0))
    # Two epochs without a better loss halve it; a better one starts the count anew; 0.2 is least.
    assert seen == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2, 0.2, 0.2])


@given(st.lists(st.floats(0, 10), max_size=30), st.lists(st.floats(0, 10), max_size=10))
def test_state_goes_on_where_it_was(before: list[float], after: list[float]) -> None:
    one, other = schedule(patience=1), schedule(patience=1)
    for loss in before:
        one.observe(loss)
    other.load_state_dict(one.state_dict())
    for loss in after:
        one.observe(loss)
        other.observe(loss)
        assert one.factor(3) == other.factor(3)
    assert one.state_dict() == other.state_dict()


def test_a_loss_that_is_no_number_is_no_better() -> None:
    s = schedule(patience=0, factor=0.5)
    for loss in (1.0, float("nan"), float("nan")):
        s.observe(loss)
    assert s.factor(0) == 0.25
