#!/usr/bin/env bash
# raster4ml writes the mean of each roof under "max" and its maximum under "mean".
#
# Guess before the run: extract_by_polygons(statistics=["max", "mean"]) has the two columns that
# were asked for, as rasterstats does; of a raster with two bands it measures one or each by itself;
# a point outside of the raster has no value.
# Seen: values come in a fixed order (mean, median, sum, min, max, std, range, iqr, unique) and get
# the names in the order of the request: of a house of 8 to 10 m "max" is 9 and "mean" 10, and with
# ["max", "min", "mean"] the columns have 9, 8 and 10. Bands are mixed: with a second band of 100
# the mean height is 54.5. A point 1.5 m west of the raster has the value at its eastern edge, and
# one north of it that of the southern edge; there is no message in all three cases.
# Versions: raster4ml 0.1.4, rasterio 1.4.4, geopandas 1.1.1. Source: raster4ml/extraction.py,
# extract_by_polygons and extract_by_points.
# Hurt: who makes tables of heights or colours of roofs for a classifier or for a model of a city.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterio==1.4.4 geopandas==1.1.1 \
  pandas==2.3.3 numpy==2.2.6 tqdm==4.67.1
venv/bin/pip install --quiet --disable-pip-version-check --no-deps raster4ml==0.1.4
venv/bin/python -W ignore - <<'PYTHON'
import sys
from pathlib import Path
from types import ModuleType

import geopandas as gpd
import numpy as np
import rasterio
from rasterio.transform import from_origin
from shapely.geometry import Point, box

# The package also imports OpenCV and plots; extraction needs neither.
package = sys.modules["raster4ml"] = ModuleType("raster4ml")
package.__path__ = [str(Path(path) / "raster4ml") for path in sys.path]
from raster4ml import extraction

heights = np.zeros((2, 40, 40), np.float32)
heights[0, 5:15, 5:15] = np.linspace(8, 10, 100).reshape(10, 10)
heights[0, :, 35:], heights[0, 35:, :35], heights[1] = 77, 55, 100
for bands in (1, 2):
    with rasterio.open(f"{bands}.tif", "w", driver="GTiff", width=40, height=40, count=bands,
                       dtype="float32", crs="EPSG:25833",
                       transform=from_origin(400000, 5800040, 1, 1)) as raster:
        raster.write(heights[:bands])
house = gpd.GeoDataFrame({"id": [1]}, crs=25833,
                         geometry=[box(400005, 5800025, 400015, 5800035)])
house.to_file("house.gpkg")
points = gpd.GeoDataFrame({"id": ["house", "west", "north"]}, crs=25833, geometry=[
    Point(400010, 5800030), Point(399998.5, 5800030), Point(400010, 5800041.5)])
points.to_file("points.gpkg")


def measure(bands, *names):
    """Return the statistics of the house by their names."""
    found = extraction.extract_by_polygons(f"{bands}.tif", "house.gpkg", "id", list(names))
    return {name: round(float(found[name].iloc[0]), 3) for name in names}


swapped, three, mixed = (
    measure(1, "max", "mean"), measure(1, "max", "min", "mean"), measure(2, "mean"))
print("a house of 8 to 10 m:", swapped, three, "and with a second band of 100:", mixed)
assert measure(1, "mean", "max") == {"mean": 9, "max": 10}
assert swapped == {"max": 9, "mean": 10} and three == {"max": 9, "min": 8, "mean": 10}
assert mixed == {"mean": 54.5}
values = extraction.extract_by_points("1.tif", "points.gpkg", "id")["1"].to_dict()
print("points in the house, west and north of the raster:", values)
assert 8 < values["house"] < 10 and values["west"] == 77 and values["north"] == 55
PYTHON
