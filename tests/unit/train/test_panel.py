"""The picture of validation tiles that a run draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.conftest import TinyRun


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
