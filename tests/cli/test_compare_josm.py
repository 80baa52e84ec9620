"""JOSM's own validator finds nothing in the files that `rooftrace compare --to osm` writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from pyproj import CRS
from shapely import box

from command_line import call
from rooftrace.flows.compare.osm import write_osm
from town import generate_scene

pytestmark = pytest.mark.campaign

JOSM = shutil.which("josm")


def findings(files: list[Path], folder: Path) -> list[list[str]]:
    """Return the messages of JOSM's validator about each file."""
    if JOSM is None:
        pytest.skip("JOSM is not installed: apt-get install josm")
    made = [folder / f"{number}.geojson" for number in range(len(files))]
    given = [word for pair in zip(files, made) for word in ("-i", pair[0], "-o", pair[1])]
    options = f"-Djava.awt.headless=true -Djosm.home={folder / 'josm'}"
    done = subprocess.run(
        [JOSM, "validate", *map(str, given)], env=os.environ | {"JAVA_OPTS": options},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    # One collection for each line, which begins with a record separator.
    lines = [file.read_text("utf-8").replace("\x1e", "").splitlines() for file in made]
    return [
        [
            feature["properties"]["message"]
            for line in own
            if line.strip()
            for feature in json.loads(line)["features"]
            if "message" in feature["properties"]
        ]
        for own in lines
    ]


def as_new(layer: Path, folder: Path) -> Path:
    """Return the file for JOSM of a layer whose buildings are all new."""
    frame = gpd.read_file(layer)
    metres = frame.to_crs(frame.estimate_utm_crs())
    left, bottom, right, top = metres.total_bounds
    corners = [box(left - 9, bottom - 9, left - 3, bottom - 3), box(right, top, right + 6, top + 6)]
    old = folder / "old.gpkg"
    gpd.GeoDataFrame(geometry=corners, crs=metres.crs).to_file(old)
    code, answer = call("compare", layer, old, "-o", folder, "--to", "osm", "--source", "survey")
    assert code == 0, answer
    assert answer["osm"] > 50
    return folder / "new.osm"


def test_a_generated_town_has_no_findings_but_overlaps_have(tmp_path: Path) -> None:
    generate_scene(3, shape_yx=(640, 640)).write(tmp_path, "scene")
    truth = as_new(tmp_path / "scene_truth.gpkg", tmp_path)
    east, north = 5e5, 5e6
    houses = [box(east, north, east + 10, north + 10), box(east + 8, north, east + 18, north + 9)]
    bad = tmp_path / "bad.osm"
    write_osm(bad, np.array(houses), CRS.from_epsg(32633), {})
    assert findings([truth, bad], tmp_path) == [[], ["Overlapping buildings"]]


@pytest.mark.realdata
def test_real_towns_have_no_findings(realdata: Path, tmp_path: Path) -> None:
    files = []
    for place in ("kampala", "zanzibar", "nairobi", "catanduanes", "banepa"):
        (tmp_path / place).mkdir()
        files.append(as_new(realdata / "oam" / place / "labels.geojson", tmp_path / place))
    assert findings(files, tmp_path) == [[]] * len(files)


def test_osmium_finds_all_nodes_in_their_order(tmp_path: Path) -> None:
    osmium = shutil.which("osmium")
    if osmium is None:
        pytest.skip("osmium is not installed: apt-get install osmium-tool")
    generate_scene(3, shape_yx=(640, 640)).write(tmp_path, "scene")
    file = as_new(tmp_path / "scene_truth.gpkg", tmp_path)
    for check in (("check-refs", "-r"), ("fileinfo", "-e", "-j")):
        done = subprocess.run([osmium, *check, file], capture_output=True, text=True, check=True)
    data = json.loads(done.stdout)["data"]
    assert data["objects_ordered"]
    assert data["count"]["ways"] > 50
    assert not data["multiple_versions"]
