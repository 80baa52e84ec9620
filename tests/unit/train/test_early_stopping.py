"""A run ends early by any figure, by the figures of all its epochs, or by its limit of minutes."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from rooftrace.train.early_stopping import (
    StopConfig,
    describe_end,
    epochs_waited,
    has_diverged,
    sign_of,
)


def rows(*values: float, monitor: str = "val_iou") -> list[dict[str, float]]:
    return [{"epoch": float(n), monitor: value} for n, value in enumerate(values, start=1)]


def test_which_way_is_better() -> None:
    for name in ("val_loss", "train_loss", "train_loss_generator", "val_loss/town", "seconds"):
        assert sign_of(name) == -1
    # A folder may be called after a place, such as Fossloss.
    for name in ("val_iou", "val_accuracy", "val_iou/fossloss", "train_dice", "images_per_s"):
        assert sign_of(name) == 1
    assert (sign_of("val_loss", "max"), sign_of("val_iou", "min")) == (1, -1)


@pytest.mark.parametrize(
    ("values", "stop", "expected"),
    [
        ((0.5,), {}, 0),
        ((0.5, 0.6, 0.6, 0.59), {}, 2),
        ((0.5, 0.6, 0.7, 0.6), {"mode": "min"}, 3),
        ((0.5, 0.55, 0.65, 0.7), {"min_delta": 0.1}, 1),
        ((math.nan, 0.5, math.nan), {}, 1),
        ((math.nan, math.nan), {}, 2),
    ],
)
def test_epochs_since_the_best(
    values: tuple[float, ...], stop: dict[str, Any], expected: int
) -> None:
    given, settings = rows(*values), StopConfig(**stop)
    assert epochs_waited(given, settings) == expected
    assert not has_diverged(given, settings)
    # What ends neither with the epochs nor after a patience of ten ends with the minutes.
    assert describe_end(given, 9, settings) == "the time was over"


def test_a_deadline_ends_a_run_within_an_epoch_and_lets_the_rate_fall_with_the_clock() -> None:
    pytest.importorskip("torch")
    from rooftrace.train.callbacks import Deadline, Minutes
    from rooftrace.train.config import ScheduleConfig
    from rooftrace.train.task import Schedule, SegmentationTask

    clock = SimpleNamespace(now=100.0, used=5.0)
    trainer: Any = SimpleNamespace(should_stop=False, num_val_batches=[2])
    task = object.__new__(SegmentationTask)
    schedule = Schedule(ScheduleConfig(kind="cosine"), base_lr=1.0, total_steps=100)
    object.__setattr__(task, "schedule", schedule)

    def of(minutes: float) -> Minutes:
        return Minutes(minutes, None, lambda: clock.now, lambda: clock.used)

    def deadline(seconds: float) -> Deadline:
        return Deadline(of(1), lambda: seconds)

    def step(timed: Deadline, number: int, seconds: float) -> None:
        timed.on_train_batch_start(trainer, task, None, number)
        clock.now += seconds
        clock.used += 3
        timed.on_train_batch_end(trainer)

    timed = deadline(60)
    timed.on_validation_start(trainer, task)
    clock.now += 4
    timed.on_validation_end(trainer, task)
    timed.on_train_start(trainer, task)
    rates, steps = [], 0
    # Twelve seconds a step in place of the planned 0.6; the last validation takes four.
    while not trainer.should_stop:
        step(timed, steps, 12)
        rates.append(schedule.factor(steps, 0))
        steps += 1
    assert (steps, timed.is_over, timed.left_s) == (5, True, -4)
    assert rates[0] == pytest.approx(1, abs=0.02)
    assert rates[-1] < 0.15
    # Before the first validation, its batches count as steps.
    trainer.should_stop = False
    timed = deadline(35)
    step(timed, 0, 12)
    assert trainer.should_stop
    # Others take three fourths of the processor: what follows the training needs longer.
    trainer.should_stop = False
    minutes = of(1.5)
    timed = Deadline(minutes, minutes.training_s(1))
    step(timed, 0, 12)
    assert trainer.should_stop
    # A run that is ahead of the clock has the rates of its steps.
    timed = deadline(1000)
    timed.on_train_batch_start(trainer, task, None, 50)
    assert schedule.factor(50, 0) == pytest.approx(0.5)
    trainer.should_stop = False
    deadline(0).on_train_start(trainer, task)
    assert trainer.should_stop
