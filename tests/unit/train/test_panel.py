"""The picture of validation tiles that a run draws."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from rooftrace.core.types import Sample
from rooftrace.labels.config import LabelConfig
from rooftrace.train.panel import choose_tiles, draw_panel

if TYPE_CHECKING:
    from tests.conftest import TinyRun

BINARY = LabelConfig()


def tile(truth: np.ndarray, bands: int = 3) -> Sample:
    image = np.full((bands, *truth.shape), 120, np.float32)
    return Sample(image, truth.astype(np.uint8), np.ones(truth.shape, bool))


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def test_errors_are_in_proportion() -> None:
    truth = np.zeros((10, 10), np.uint8)
    truth[:4] = 1
    drawn = pixels(draw_panel([("town", tile(truth), np.roll(truth, 1, axis=0))], BINARY, ""))
    cell = drawn[-200:, -200:].astype(int)
    missed = (cell[..., 0] - cell[..., 2] > 60).mean()
    invented = (cell[..., 2] - cell[..., 1] > 40).mean()
    assert (missed, invented) == (pytest.approx(0.1), pytest.approx(0.1))


class Tiles:
    """Stands for `EvalTiles` with `number` tiles; those in `full` have a building."""

    def __init__(self, number: int, full: set[int]) -> None:
        self._number, self._full = number, full

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, index: int) -> Any:
        return tile(np.full((4, 4), int(index in self._full), np.uint8))


def test_tiles_are_spread_over_the_folders_and_show_something() -> None:
    folders: Any = [Tiles(100, {7, 40, 99}), Tiles(1, set()), Tiles(50, set(range(50)))]
    chosen = choose_tiles(folders, 7)
    assert len(chosen) == len(set(chosen)) == 7
    assert [sum(f == folder for f, _ in chosen) for folder in range(3)] == [3, 1, 3]
    assert {i for f, i in chosen if f == 0} == {7, 40, 99}
    spread = sorted(i for f, i in chosen if f == 2)
    assert spread[0] < 16 <= spread[1] < 33 <= spread[2]
    assert chosen == choose_tiles(folders, 7)
    assert choose_tiles(folders[1:2], 7) == [(0, 0)]


@pytest.mark.campaign
def test_the_panel_of_a_run(tiny_run: TinyRun) -> None:
    with Image.open(tiny_run.run / "panel.png") as last:
        assert len(np.unique(np.asarray(last.convert("L")))) > 100
    rows = (tiny_run.run / "metrics.csv").read_text().splitlines()
    index = rows[0].split(",").index("val_iou")
    first, second = (float(row.split(",")[index]) for row in rows[1:])
    same = (tiny_run.run / "panel.png").read_bytes() == (
        tiny_run.run / "panel_best.png"
    ).read_bytes()
    assert same == (second > first)
