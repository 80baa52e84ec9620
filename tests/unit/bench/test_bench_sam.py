"""The benchmark of SAM measures the weights that it is given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from sam_models import save_tiny

BENCH = Path(__file__).resolve().parents[3] / "bench"


@pytest.mark.campaign
def test_a_crop_and_a_building_are_measured(tmp_path: Path) -> None:
    weights = save_tiny(tmp_path / "sam2", "sam2")
    done = subprocess.run(
        [sys.executable, BENCH / "sam.py", weights, "--prompts", "2"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["network"] == str(weights)
    for name in ("crop_s", "crop_cpu_s", "building_s", "building_cpu_s"):
        assert 0 < row[name] < 60
    assert row["peak_rss_mb"] > 100
