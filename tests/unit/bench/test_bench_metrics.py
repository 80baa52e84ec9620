"""The benchmark of metrics runs on a few tiles, and judges what it says it judges."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench"


@pytest.mark.campaign
def test_everything_is_counted_on_every_tile() -> None:
    pytest.importorskip("pycocotools")
    done = subprocess.run(
        [sys.executable, BENCH / "metrics.py", "--tiles", "6", "--buildings", "12"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["tiles"] == 6
    # One in twenty of twelve is missing in the label.
    assert 60 <= answer["buildings"] <= 72
    # Outlines are moved by some pixels, and one in ten is left out.
    assert 0.5 < answer["iou"] < 0.95
    assert 0.7 < answer["object_f1"] < 1
    assert 0.5 < answer["ap50"] <= 1
    assert answer["seconds"] > 0
    assert answer["tiles_per_s"] == pytest.approx(6 / answer["seconds"], rel=0.01)
