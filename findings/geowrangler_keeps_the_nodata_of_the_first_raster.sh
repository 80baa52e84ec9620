#!/usr/bin/env bash
# geowrangler reads each raster with the nodata value of the first, and mixes up filtered zones.
#
# Guess before the run: create_raster_zonal_stats, to which no nodata value is given, takes the one
# that the raster declares; each zone gets its own statistics, as the rows of a GeoDataFrame have an
# index.
# Seen: of heights of 100 m, of which each second pixel is -9999 and declared so, the mean of a zone
# is 100. After a call with a mask of buildings whose nodata is 0, the same call gives -4949.5; and
# a zone without buildings, which has no mean if the mask is read first, has the mean 0 after the
# heights. Of four zones, of which the first is filtered out, each other one gets the mean of the
# next, and the last has none; sorted backwards, all are exchanged. With filtered zones
# create_exactextract_zonal_stats does the same. There is no message.
# Versions: geowrangler 0.5.1, rasterstats 0.21.0, exactextract 0.3.0, rasterio 1.4.4, geopandas
# 1.2.0. Source: geowrangler/raster_zonal_stats.py: the nodata value is written into the dict that
# is the default of extra_args, and stays there; the results, counted from 0, are merged by index.
# Issue 217 shows zones that have no values, and looks for the cause in all_touched.
# Hurt: who takes heights, population and masks for buildings or districts one after the other, or
# for a part of the districts: the order of the calls and the choice of rows change the numbers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.2.0 pandas==2.3.3 \
  numpy==2.2.6 rasterio==1.4.4 rasterstats==0.21.0 fiona==1.10.1 exactextract==0.3.0 \
  morecantile==7.1.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps geowrangler==0.5.1
cat > zones.py <<'PYTHON'
import sys

import geopandas
import numpy as np
import rasterio
from geowrangler import raster_zonal_stats
from shapely import box

SIDE = 40


def write(name, values, nodata):
    with rasterio.open(
        f"{name}.tif", "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype="float32",
        crs=32633, transform=rasterio.transform.from_origin(0, SIDE, 1, 1), nodata=nodata,
    ) as file:
        file.write(values.astype(np.float32), 1)


def means(name, zones):
    asked = {"column": "value", "func": ["mean"], "output": ["mean"], "fillna": [False]}
    found = raster_zonal_stats.create_raster_zonal_stats(zones, f"{name}.tif", asked)
    return dict(zip(found["name"], found["mean"].astype(float).round(1).tolist()))


def exact_means(name, zones):
    asked = {"band": 1, "func": ["mean"], "output": ["mean"]}
    found = raster_zonal_stats.create_exactextract_zonal_stats(zones, f"{name}.tif", asked)
    return dict(zip(found["name"], found["mean"].astype(float).round(1).tolist()))


heights = np.full((SIDE, SIDE), 100.0)
heights[:, ::2] = -9999
write("heights", heights, -9999)
mask = np.zeros((SIDE, SIDE))
mask[20:] = 5
write("mask", mask, 0)
numbers = np.zeros((SIDE, SIDE))
for place in range(4):
    numbers[30:, 10 * place:10 * place + 10] = place + 1
write("numbers", numbers, None)
zones = geopandas.GeoDataFrame(
    {"name": list("abcd")}, geometry=[box(10 * n, 0, 10 * n + 10, 10) for n in range(4)], crs=32633)
north = geopandas.GeoDataFrame({"name": ["north"]}, geometry=[box(0, 30, 10, 40)], crs=32633)

order = sys.argv[1:]
if order[0] == "rows":
    part, backwards = zones[zones["name"] != "a"], zones[::-1]
    seen = means("numbers", zones), means("numbers", part), means("numbers", backwards)
    print("four zones:", seen[0], "without a:", seen[1], "backwards:", seen[2])
    assert seen[0] == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert str(seen[1]) == "{'b': 3.0, 'c': 4.0, 'd': nan}"
    assert seen[2] == {"d": 1, "c": 2, "b": 3, "a": 4}
    assert exact_means("numbers", zones) == seen[0]
    assert str(exact_means("numbers", part)) == str(seen[1])
else:
    seen = {name: means(name, north)["north"] for name in order}
    print("means in the order of the calls:", seen)
    right = {"heights": 100, "mask": np.nan}
    after = {"heights": -4949.5, "mask": 0}
    assert str(seen[order[0]]) == str(float(right[order[0]]))
    assert seen[order[1]] == after[order[1]]
PYTHON
for order in "heights mask" "mask heights" rows; do venv/bin/python -W ignore zones.py $order; done
