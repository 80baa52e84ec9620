"""metrics.csv and curves.png, whatever a task records."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image

from rooftrace.train.callbacks import Recorder
from rooftrace.train.curves import plot_curves


def rows(epochs: int, folders: int = 1) -> list[dict[str, float]]:
    made = []
    for epoch in range(1, epochs + 1):
        done = 1 - math.exp(-epoch / 20)
        figures = {f"{p}_{f}": done for p in ("train", "val") for f in ("iou", "dice", "accuracy")}
        named = {f"val_iou/folder $_{n}^": done - 0.02 * n for n in range(folders)}
        losses = {"train_loss": 1 - done, "val_loss": 1.1 - done}
        made.append({"epoch": float(epoch), **losses, **figures, **named, "lr": 1e-3 / epoch})
    return made


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize(("epochs", "folders"), [(1, 1), (1, 30), (200, 12)])
def test_curves_of_few_and_of_many(epochs: int, folders: int, tmp_path: Path) -> None:
    plot_curves(rows(epochs, folders), tmp_path / "curves.png")
    drawn = pixels(tmp_path / "curves.png")
    assert drawn.shape == (740, 1300, 3)
    places = drawn.reshape(2, 370, 1300, 3)
    columns = [places[line, :, left : left + 433] for line in range(2) for left in (0, 433, 866)]
    # Loss, IoU, Dice, accuracy, the rate; then the folders' names where there are several.
    for part in columns[:5]:
        assert (part < 250).mean() > 0.01
    assert ((columns[5] < 250).mean() > 0.001) == (folders > 1)


def test_curves_with_gaps(tmp_path: Path) -> None:
    """What is no number, what only some epochs have, what only this task records."""
    made = rows(6)
    made[2] |= {"val_loss": math.nan, "val_iou": math.nan, "lr": 0.0}
    for row in made[3:]:
        row |= {"train_adversarial": 0.5, "val_l1": math.inf}
        del row["train_accuracy"]
    plot_curves(made, tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").shape == (1110, 1300, 3)


def test_columns_may_grow(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, None)
    recorder.rows = [{"epoch": 1.0, "val_iou": 0.5}, {"epoch": 2.0, "val_iou": 0.25, "val_l1": 3.0}]
    recorder._write()
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        assert list(csv.DictReader(stream)) == [
            {"epoch": "1", "val_iou": "0.5", "val_l1": ""},
            {"epoch": "2", "val_iou": "0.25", "val_l1": "3"},
        ]


@pytest.mark.parametrize(
    ("values", "best"),
    [([0.5], True), ([0.5, 0.6], True), ([0.5, 0.5], False), ([0.5, 0.4], False)],
)
def test_the_best_so_far(values: list[float], best: bool, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, None)
    recorder.rows = [{"val_iou": value} for value in values]
    assert recorder.is_best == best
