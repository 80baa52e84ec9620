"""The benchmark of the map runs at a tiny size."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

BENCH = Path(__file__).resolve().parents[3] / "bench"


@pytest.mark.campaign
def test_map(tmp_path: Path) -> None:
    has_browser = shutil.which("chromium") is not None
    command = [sys.executable, BENCH / "map.py", "--buildings", "400"]
    command += [] if has_browser else ["--no-browser"]
    done = subprocess.run(
        [*command, "--work", tmp_path], capture_output=True, text=True, check=True
    )
    answer = json.loads(done.stdout)
    in_browser = {"browser_idle", "browser_bytes", "browser_heap"} if has_browser else set()
    assert answer["ratios"].keys() == {"bytes", "start_up"} | in_browser
    assert answer["tiles"]["first_zoom"] == 0
    zooms = answer["tiles"]["zooms"]
    assert zooms["16"]["p50_ms"] <= zooms["16"]["p99_ms"]
    # 400 houses of eight corners.
    assert 100_000 < answer["geojson"]["bytes"] < 300_000
    assert list(tmp_path.iterdir()) == []
