#!/usr/bin/env bash
# HydroMT's distances to the nearest house are those of Web Mercator, and so is its max_dist.
#
# Guess before the run: hydromt.gis.nearest returns the "index of and distance [m] to the nearest
# geometry", and nearest_merge joins what is nearer than max_dist metres, also for layers in
# longitude and latitude, which both accept.
# Seen: a house 30 m to the east is at 30.0 m on the equator, 34.6 m at 30 N, 48.6 m at 52 N and
# 87.5 m at 70 N; with max_dist=40 it is joined at the first two and not at the others. Of a house
# 20 m to the east and one 25 m to the north, the one to the north is the nearest at 52 N. In UTM
# both are right. There is no message.
# Versions: hydromt 1.4.1, geopandas 1.2.0, shapely 2.1.2, pyproj 3.7.2. Source: nearest in
# hydromt/gis/vector_utils.py: the nearest is sought in degrees, and its distance is measured in
# EPSG:3857.
# Hurt: who gives footprints the floor height, value or use of the nearest point within some
# metres, with layers of OSM as they come: matches are lost the more the farther the town is from
# the equator.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.2.0 shapely==2.1.2 \
  pyproj==3.7.2 pandas==2.3.3 numpy==2.2.6
venv/bin/pip install --quiet --disable-pip-version-check --no-deps hydromt==1.4.1
venv/bin/python -W ignore - <<'PYTHON'
import importlib.util
import sysconfig
from pathlib import Path

import geopandas
import pyproj
from shapely import Point

# The package imports what its models need; the module of vectors is imported alone.
spec = importlib.util.spec_from_file_location(
    "vectors", Path(sysconfig.get_path("purelib"), "hydromt/gis/vector_utils.py"))
vectors = importlib.util.module_from_spec(spec)
spec.loader.exec_module(vectors)
EARTH = pyproj.Geod(ellps="WGS84")


def layer(names, places):
    return geopandas.GeoDataFrame({"name": names}, geometry=[Point(p) for p in places], crs=4326)


def away(lat, bearing, metres):
    return EARTH.fwd(13, lat, bearing, metres)[:2]


seen = {}
for lat in (0, 30, 52, 70):
    here = layer(["here"], [(13, lat)]).drop(columns="name")
    east = layer(["east"], [away(lat, 90, 30)])
    metres = round(float(vectors.nearest(here, east)[1][0]), 1)
    joined = vectors.nearest_merge(here, east, max_dist=40)["name"].tolist() == ["east"]
    both = layer(["east", "north"], [away(lat, 90, 20), away(lat, 0, 25)])
    first = both["name"][vectors.nearest(here, both)[0][0]]
    seen[lat] = metres, joined, first
    print(f"{lat:2} N: {metres} m to a house at 30 m, joined in 40 m: {joined}, nearest: {first}")
    grid = 32633 if lat else 32733
    assert round(float(vectors.nearest(here.to_crs(grid), east.to_crs(grid))[1][0]), 1) == 30
    assert vectors.nearest(here.to_crs(grid), both.to_crs(grid))[0][0] == 0
assert seen == {
    0: (30.0, True, "east"), 30: (34.6, True, "east"),
    52: (48.6, False, "north"), 70: (87.5, False, "north"),
}
PYTHON
