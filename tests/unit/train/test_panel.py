"""The picture of validation tiles that a run draws."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from rooftrace.core.types import Sample
from rooftrace.labels.config import LabelConfig
from rooftrace.train.panel import draw_panel

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
