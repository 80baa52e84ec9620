"""The learning curve of chosen and random tiles runs at a tiny size, and resumes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from town import write_pairs

pytest.importorskip("torch")

BENCH = Path(__file__).resolve().parents[3] / "bench"


@pytest.mark.campaign
def test_a_curve_of_chosen_and_random_tiles(tmp_path: Path) -> None:
    write_pairs(tmp_path / "town", range(9), shape_yx=(96, 96), gsd_m=0.4)
    command = [sys.executable, BENCH / "label_next.py", tmp_path / "town", "--gsd", "0.4"]
    command += ["--sizes", "3", "--random-sizes", "3", "5", "--rules", "next", "k-centre"]
    command += ["--repeats", "1", "--samples", "16", "--work", tmp_path]

    def answer() -> dict[str, Any]:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        return dict(json.loads(done.stdout))

    first = answer()
    assert (first["pool"], first["test"]) == (6, 3)
    for order in first["orders"].values():
        assert len({*order}) == 3
    assert {name: [*sizes] for name, sizes in first["iou"].items()} == {
        "next": ["3"], "k-centre": ["3"], "random": ["3", "5"]
    }  # fmt: skip
    for runs in first["runs"].values():
        for made in runs.values():
            assert 0 < made[0]["iou"] <= 1
            assert 0 < made[0]["built_up"] < 1
    # What was measured is not measured again.
    assert answer()["runs"] == first["runs"]
