#!/usr/bin/env bash
# rasterix makes ground of the first house and a third house of two, with merge_alg="add".
#
# Guess before the run: rasterize burns "integer codes", 0 for the first house and so on, and the
# number of houses where there is none; with merge_alg="add" values "are summed where geometries
# overlap", for houses in memory and in chunks of Dask alike.
# Seen: of three houses, of which the first two overlap by a pixel, in memory the ground is 3 and the
# first house is 3, too, the second is 4 and the third 5; the pixel of both is 4, as the second.
# In chunks, the houses are 0, 1 and 2 and the ground 3, but the pixel of both is 2, as the third,
# and of the second and the third it would be the ground beyond. With "replace" both are right.
# There is no message.
# Versions: rasterix 0.2.4, rasterio 1.4.4, xarray 2025.12.0, dask 2025.12.0, geopandas 1.2.0.
# Source: rasterix/rasterize/core.py, rasterize: in memory each code is added to the fill value; in
# chunks codes begin with 1, and 1 is taken off each sum.
# Hurt: who looks for houses drawn twice, or for overlaps of two layers, on a grid: none is found,
# statistics by code give one house the pixels of another, and how depends on the chunks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterix==0.2.4 rasterio==1.4.4 \
  xarray==2025.12.0 dask==2025.12.0 geopandas==1.2.0 shapely==2.1.2 pandas==2.3.3 numpy==2.3.5
venv/bin/python - <<'PYTHON'
import geopandas
import numpy as np
import rasterix
import xarray
from rasterix.rasterize import rasterize
from shapely import box

grid = rasterix.assign_index(xarray.DataArray(
    np.zeros((4, 8)), dims=("y", "x"),
    coords={"spatial_ref": xarray.DataArray(0, attrs={"GeoTransform": "0 1 0 4 0 -1"})}))


def row(layer, houses, merge):
    return rasterize(layer, houses, engine="rasterio", merge_alg=merge).values[0].tolist()


town = geopandas.GeoDataFrame(geometry=[box(0, 0, 2, 4), box(1, 0, 4, 4), box(6, 0, 7, 4)])
block = geopandas.GeoDataFrame(geometry=[box(0, 0, 2, 4), box(3, 0, 6, 4), box(5, 0, 7, 4)])
seen = {}
for merge in ("replace", "add"):
    for name, layer in {"memory": grid, "chunks": grid.chunk(x=4)}.items():
        seen[merge, name] = row(layer, town, merge)
        print(f"{merge:7} in {name}: {seen[merge, name]}")
print("second and third overlap, add in chunks:", row(grid.chunk(x=4), block, "add"))
assert seen["replace", "memory"] == seen["replace", "chunks"] == [0, 1, 1, 1, 3, 3, 2, 3]
assert seen["add", "memory"] == [3, 4, 4, 4, 3, 3, 5, 3]
assert seen["add", "chunks"] == [0, 2, 1, 1, 3, 3, 2, 3]
assert row(grid.chunk(x=4), block, "add") == [0, 0, 3, 1, 1, 4, 2, 3]
PYTHON
