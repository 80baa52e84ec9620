"""The benchmark of run lengths runs at a tiny size and prints what bench/README.md says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "bench" / "rle.py"


@pytest.mark.campaign
def test_rle_compares_the_same_masks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--size", "96", "--masks", "30", "--loop-masks", "10",
         "--distinct", "3", "--work", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["benchmark"] == "rle"
    rows = answer["rows"]
    assert set(rows) == {"ours_row", "loop_row", "ours_column", "loop_column"}
    for order in ("row", "column"):
        ours, loop = rows[f"ours_{order}"], rows[f"loop_{order}"]
        assert (ours["masks"], loop["masks"]) == (30, 10)
        assert ours["runs_per_mask"] == loop["runs_per_mask"] > 1
        for way in ("encode", "decode"):
            per_mask = ours[f"{way}_ms_per_mask"]
            assert per_mask == pytest.approx(ours[f"{way}_seconds"] * 1e3 / 30, rel=1e-2)
            ratio = answer["ratios"][f"ours/loop {order}"][way]
            assert ratio == pytest.approx(loop[f"{way}_ms_per_mask"] / per_mask, rel=1e-2)
        # A process with NumPy in it; less would be the memory of another one.
        assert ours["peak_rss_mb"] > 30
