"""The rate goes as torch's schedulers say, and after a resume exactly on from where it was."""

import math
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.optim import lr_scheduler

from rooftrace.train.config import ScheduleConfig
from rooftrace.train.task import Schedule

LR = 0.1


def schedule(total: int = 100, **settings: Any) -> Schedule:
    return Schedule(ScheduleConfig(**settings), base_lr=LR, total_steps=total)


def observe(s: Schedule, loss: float) -> None:
    s.observe({"val_loss": loss})


def factors(s: Schedule, steps: int, epoch: int = 0) -> list[float]:
    return [s.factor(step, epoch) for step in range(steps)]


def torch_rates(make: Any, steps: int) -> list[float]:
    """The rates of a scheduler of torch, as shares of `LR`."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no step of the optimiser comes before
        scheduler = make(optimizer)
        seen = []
        for _ in range(steps):
            seen.append(optimizer.param_groups[0]["lr"] / LR)
            scheduler.step()
    return seen


def test_step_is_that_of_torch() -> None:
    s = schedule(kind="step", step_epochs=3, factor=0.2)
    expected = torch_rates(lambda o: lr_scheduler.StepLR(o, 3, 0.2), 10)
    assert [s.factor(7 * epoch, epoch) for epoch in range(10)] == pytest.approx(expected)
    by_default = torch_rates(lambda o: lr_scheduler.StepLR(o, 10), 40)
    s = schedule(kind="step")
    assert [s.factor(0, epoch) for epoch in range(40)] == pytest.approx(by_default)


def test_warmup_is_laid_over_the_others() -> None:
    plain, warmed = schedule(kind="step"), schedule(kind="step", warmup_steps=3)
    for step in range(6):
        expected = plain.factor(step, 11) * min(1.0, (step + 1) / 4)
        assert warmed.factor(step, 11) == pytest.approx(expected)


def test_cosine_is_that_of_torch() -> None:
    s = schedule(40, kind="cosine", min_lr=0.01)
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, 40, eta_min=0.01), 41)
    assert factors(s, 41) == pytest.approx(expected)
    assert s.factor(500, 0) == pytest.approx(0.1)


@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), max_size=30),
    st.integers(0, 3),
    st.sampled_from(["val_loss", "val_iou"]),
)
def test_plateau_is_that_of_torch(values: list[float], patience: int, monitor: str) -> None:
    mode = "min" if monitor == "val_loss" else "max"
    s = schedule(kind="plateau", patience=patience, min_lr=0.02, monitor=monitor)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    theirs = lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, factor=0.5, patience=patience, threshold=0, min_lr=0.02
    )
    for value in values:
        s.observe({monitor: value})
        theirs.step(value)
        assert s.factor(0, 0) == pytest.approx(optimizer.param_groups[0]["lr"] / LR)


@given(st.lists(st.floats(0, 10), max_size=30), st.lists(st.floats(0, 10), max_size=10))
def test_state_goes_on_where_it_was(before: list[float], after: list[float]) -> None:
    one, other = schedule(patience=1), schedule(patience=1)
    for loss in before:
        observe(one, loss)
    other.load_state_dict(one.state_dict())
    for loss in after:
        observe(one, loss)
        observe(other, loss)
        assert one.factor(3, 0) == other.factor(3, 0)
    assert one.state_dict() == pytest.approx(other.state_dict(), nan_ok=True)


def test_a_loss_that_is_no_number_is_no_better() -> None:
    s = schedule(patience=0, factor=0.5)
    for loss, expected in ((1.0, 1), (math.nan, 0.5), (math.nan, 0.25), (0.9, 0.25)):
        observe(s, loss)
        assert s.factor(0, 0) == expected
    s = schedule(patience=0, factor=0.5)
    for loss, expected in ((math.nan, 0.5), (1.0, 0.5), (2.0, 0.25)):
        observe(s, loss)
        assert s.factor(0, 0) == expected
