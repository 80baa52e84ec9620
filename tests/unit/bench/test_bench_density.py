"""The benchmark of density runs at a tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[3] / "bench"


@pytest.mark.campaign
def test_density() -> None:
    command = [sys.executable, BENCH / "density.py", "--size", "300", "--plain-size", "300"]
    command += ["--polygons", "200"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    places = ("utm", "web_mercator", "large")
    assert set(answer["ratios"]) == {f"ours/plain {place}" for place in places}
    for place in places[:2]:
        shares = [answer["rows"][f"{way}_{place}"]["built_up_share"] for way in ("ours", "plain")]
        # The loop takes the pixels of Web Mercator for equally large.
        assert abs(shares[0] - shares[1]) < 1e-6
    assert answer["rows"]["polygons"]["polygons_per_s"] > 0
