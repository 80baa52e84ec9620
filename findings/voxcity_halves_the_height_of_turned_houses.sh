#!/usr/bin/env bash
# voxcity halves the height of a house that stands at an angle, and takes courtyards for roofs.
#
# Guess before the run: extract_building_heights_from_geotiff gives each footprint the mean of the
# height map's pixels in it; extract_building_heights_from_gdf weights reference heights by overlap.
# Seen: in a map that is 10 m high everywhere, a house of 40 x 20 m has 10 m where its walls lie along
# the pixels, 7.56 turned by 10 degrees and 4.68 turned by 45, if the file has no nodata value: the
# corners of the box round the house count as pixels of height 0. With a nodata value all have 10. A
# block with a roof of 20 m round a courtyard has 15, with or without one, as its inner ring is
# not looked at. Where one of two references that share a house has 10 m and the other nothing, the
# house has none if that is NaN, and 5 m if it is 0, the mark of an unknown height. No message.
# Versions: voxcity 1.8.3, rasterio 1.4.4, geopandas 1.2.0. Source: voxcity/geoprocessor/heights.py:
# values are compared with src.nodata, which is None; the outer ring alone is taken over.
# Hurt: who gives footprints the heights of a surface model for shadows, wind or solar potential:
# the heights depend on the direction of the street.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.2.0 shapely==2.1.2 \
  rasterio==1.4.4 pyproj==3.7.2 pandas==2.3.3 numpy==2.3.5
venv/bin/pip install --quiet --disable-pip-version-check --no-deps voxcity==1.8.3
venv/bin/python - 2> /dev/null <<'PYTHON'
import sys
import sysconfig
import types
from pathlib import Path

# The package imports its simulators; the module of heights is imported without them.
for name in ("voxcity", "voxcity.utils", "voxcity.geoprocessor"):
    package = types.ModuleType(name)
    package.__path__ = [str(Path(sysconfig.get_path("purelib"), *name.split(".")))]
    sys.modules[name] = package

import geopandas
import numpy as np
import rasterio
import rasterio.mask
from rasterio.transform import from_origin
from shapely import Polygon, affinity, box
from voxcity.geoprocessor.heights import (
    extract_building_heights_from_gdf, extract_building_heights_from_geotiff)

WEST, NORTH, SIDE = 500_000, 5_500_100, 100


def place(shape):
    return affinity.translate(shape, WEST, NORTH - SIDE)


def heights(values, nodata, *shapes):
    with rasterio.open(
        "heights.tif", "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype="float32",
        crs="EPSG:32633", transform=from_origin(WEST, NORTH, 1, 1), nodata=nodata,
    ) as dataset:
        dataset.write(values.astype("float32"), 1)
    houses = geopandas.GeoDataFrame(
        {"height": np.nan}, index=range(len(shapes)), geometry=[place(shape) for shape in shapes],
        crs=32633).to_crs(4326)
    return extract_building_heights_from_geotiff("heights.tif", houses)["height"].round(2).tolist()


house = box(30.4, 40.3, 69.6, 59.7)
turned = [affinity.rotate(house, angle) for angle in (0, 10, 45, 90)]
level = np.full((SIDE, SIDE), 10)
found = {nodata: heights(level, nodata, *turned) for nodata in (None, -9999)}
print("nodata: heights of a house turned by 0, 10, 45 and 90 degrees:", found)
block = Polygon(box(20.5, 20.5, 59.5, 59.5).exterior, [box(30, 30, 50, 50).exterior])
roof = np.zeros((SIDE, SIDE))
roof[40:80, 20:60] = 20
roof[50:70, 30:50] = 0
yard = {nodata: heights(roof, nodata, block)[0] for nodata in (None, -9999)}
print("nodata: height of a block of 20 m:", yard)
footprint = geopandas.GeoDataFrame({"height": [0.0]}, geometry=[box(0, 0, 2, 1)], crs=4326)
shared = {}
for other in (10, 0, np.nan):
    references = geopandas.GeoDataFrame(
        {"height": [10, other]}, geometry=[box(0, 0, 1, 1), box(1, 0, 2, 1)], crs=4326)
    shared[str(other)] = extract_building_heights_from_gdf(footprint, references)["height"][0]
print("height of the other reference: height of the house:", shared)
assert found[-9999] == [10, 10, 10, 10] and found[None] == [10, 7.56, 4.68, 10], found
assert yard == {None: 15, -9999: 15}, yard
assert shared["10"] == 10 and shared["0"] == 5 and np.isnan(shared["nan"])
PYTHON
