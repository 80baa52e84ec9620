"""The benchmark of density runs at a tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[3] / "bench"


def test_density() -> None:
    command = [sys.executable, BENCH / "density.py", "--size", "300", "--polygons", "200"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert set(answer["ratios"]) == {"ours/plain utm", "ours/plain web_mercator"}
    assert answer["rows"]["polygons"]["polygons_per_s"] > 0
