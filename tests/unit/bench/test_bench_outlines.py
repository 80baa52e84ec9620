"""The benchmark of outlines runs at a tiny size and prints what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import pytest
from shapely import affinity, box

BENCH = Path(__file__).resolve().parents[3] / "bench"


@pytest.mark.campaign
def test_outlines_are_measured_before_and_after(tmp_path: Path) -> None:
    homes = [affinity.rotate(box(k * 30, 0, k * 30 + 14, 9), 20) for k in range(4)]
    path = tmp_path / "labels.geojson"
    truth = gpd.GeoSeries(homes, crs=32636).translate(500_000, 5_000_000)
    truth.to_crs(4326).to_file(path)
    done = subprocess.run(
        [sys.executable, BENCH / "outlines.py", path, "--size", "200", "--scenes", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert list(answer["sets"]) == ["towns", "rows of houses", f"{tmp_path.name}/labels.geojson"]
    for figures in answer["sets"].values():
        assert list(figures) == ["exact pixels", "noisy pixels"]
        for each in figures.values():
            assert list(each["rows"]) == ["stairs", "simplified", "regular", "settled"]
            assert 0 <= each["accepted"] <= 1
    rows = figures["exact pixels"]["rows"]
    assert (rows["regular"]["matched"], rows["regular"]["corners"]) == (4, 4)
    assert rows["regular"]["polis_px"] < rows["stairs"]["polis_px"]
    assert rows["regular"]["iou"] > rows["stairs"]["iou"]
    ratio = rows["stairs"]["corners"] / rows["stairs"]["corners_labelled"]
    assert ratio > 4
