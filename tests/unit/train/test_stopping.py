"""A run stops by any figure, by the figures of all its epochs, and reports how near that is."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402

from rooftrace.core.config import load_config  # noqa: E402
from rooftrace.core.errors import ConfigError  # noqa: E402
from rooftrace.train.callbacks import describe_end, stop_state  # noqa: E402
from rooftrace.train.config import (  # noqa: E402
    StopConfig,
    TrainConfig,
    sign_of,
)
from rooftrace.train.loop import fit  # noqa: E402


def rows(*values: float, monitor: str = "val_iou") -> list[dict[str, float]]:
    return [{monitor: value} for value in values]


def test_which_way_is_better() -> None:
    for name in ("val_loss", "train_loss", "train_loss_generator"):
        assert sign_of(name) == -1
    for name in ("val_iou", "val_accuracy", "val_iou/town", "train_dice"):
        assert sign_of(name) == 1
    assert (sign_of("val_loss", "max"), sign_of("val_iou", "min")) == (1, -1)


@pytest.mark.parametrize(
    ("values", "stop", "expected"),
    [
        ((), {}, (0, 0)),
        ((0.5,), {}, (1, 0)),
        ((0.5, 0.6, 0.6, 0.59), {}, (2, 2)),
        ((0.5, 0.6, 0.7, 0.6), {"mode": "min"}, (1, 3)),
        ((0.5, 0.55, 0.65, 0.7), {"min_delta": 0.1}, (3, 1)),
        ((math.nan, 0.5, math.nan), {}, (2, 1)),
        ((math.nan, math.nan), {}, (0, 2)),
    ],
)
def test_standing_by_hand(
    values: tuple[float, ...], stop: dict[str, Any], expected: tuple[int, int]
) -> None:
    found = stop_state(rows(*values), StopConfig(**stop))
    assert (found.epoch, found.waited) == expected
    assert not found.diverged
    if found.epoch:
        assert found.value == values[found.epoch - 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_without_a_least_step_the_first_of_the_best_stands(values: list[float]) -> None:
    found = stop_state(rows(*values), StopConfig())
    assert found.epoch - 1 == values.index(max(values))


def test_why_a_run_ended() -> None:
    stop = StopConfig(monitor="val_loss", patience=4)
    same = rows(0.5, 0.5, 0.5, monitor="val_loss")
    assert describe_end(same, 3, stop) == "all 3 epochs done"
    assert describe_end(same, 9, stop) == "no better val_loss for 4 epochs"
    diverged = rows(0.5, math.nan, monitor="val_loss")
    assert describe_end(diverged, 9, stop) == "val_loss is no longer a finite number"
    # A folder without any building has no IoU: that is no divergence.
    assert not stop_state(rows(0.5, math.nan), StopConfig()).diverged


PLAIN = (
    'model={architecture="PlainUnet", options={filters=2, depth=1}}', "epochs=9",
    "stop.min_delta=1.0", "watch.panel=0",
)  # fmt: skip


@pytest.mark.campaign
def test_each_epoch_without_a_better_figure_is_reported(tiny_folder: Path, tmp_path: Path) -> None:
    def run(*sets: str, resume: bool = False) -> tuple[Any, list[str]]:
        output = io.StringIO()
        config = load_config(tiny_folder / "tiny.toml", TrainConfig, [*PLAIN, *sets])
        console = Console(file=output, width=200)
        result = fit(config, tmp_path / "run", base=tiny_folder, resume=resume, console=console)
        return result.trained, [line for line in output.getvalue().splitlines() if line.strip()]

    monitor = ("stop.monitor=val_iou/data", "stop.patience=2")
    trained, lines = run(*monitor)
    assert trained.stopped_because == "no better val_iou/data for 2 epochs"
    kept = [line for line in lines if line.startswith("no better")]
    assert [line.partition(";")[0] for line in kept] == [
        "no better val_iou/data for 1 of 2 epochs",
        "no better val_iou/data for 2 of 2 epochs",
    ]
    assert kept[1].endswith("in epoch 1")
    # Resumed as it was, it has ended; with more patience it goes on, and by another figure, too.
    assert run(*monitor, resume=True)[0].epochs == 3
    assert run("stop.monitor=val_iou/data", "stop.patience=3", resume=True)[0].epochs == 4
    trained, lines = run("stop.monitor=train_loss", "stop.patience=4", resume=True)
    assert trained.epochs == 5
    assert "no better train_loss for 4 of 4 epochs" in lines[-1]


@pytest.mark.parametrize("key", ["stop.monitor", "schedule.monitor"])
def test_an_unknown_figure_is_an_error_before_the_first_epoch(
    tiny_folder: Path, tmp_path: Path, key: str
) -> None:
    config = load_config(tiny_folder / "tiny.toml", TrainConfig, [*PLAIN, f"{key}=val_iuo/data"])
    with pytest.raises(ConfigError) as caught:
        fit(config, tmp_path / "run", base=tiny_folder)
    assert f"{key} = 'val_iuo/data'" in caught.value.message
    assert "'val_iou/data'" in caught.value.message
    assert "train_loss, train_iou" in caught.value.remedy
    assert not (tmp_path / "run" / "metrics.csv").exists()
