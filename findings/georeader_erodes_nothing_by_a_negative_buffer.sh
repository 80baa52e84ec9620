#!/usr/bin/env bash
# georeader grows the outlines of a mask by a positive buffer and ignores a negative one.
#
# Guess before the run: vectorize.get_polygons(polygon_buffer=-2) shrinks each outline by two pixels,
# as its documentation says of negative numbers, with which its first example erodes a mask.
# Seen: a house of 20 x 20 pixels has 400 square pixels with -2, -5 and 0 alike, in place of 256 and
# 100; with 2 it has 573. Two houses joined by a bridge of one pixel stay one outline with -1. A
# chimney of one pixel stays with -1 and min_area=0, in a plain array as in a GeoTensor. There is no
# message.
# Versions: georeader-spaceml 2.4.2, rasterio 1.4.4, shapely 2.1.2, numpy 2.3.5. Source:
# georeader/vectorize.py, get_polygons: "if polygon_buffer > 0".
# Hurt: who traces roofs of a predicted mask and takes its soft edge or the bridges between houses
# off: areas stay too large, and rows of houses are one building.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterio==1.4.4 shapely==2.1.2 numpy==2.3.5 \
  typing-extensions==4.15.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps georeader-spaceml==2.4.2
venv/bin/python - <<'PYTHON'
import numpy as np
import rasterio
from georeader.geotensor import GeoTensor
from georeader.vectorize import get_polygons

house = np.zeros((60, 60), dtype="uint8")
house[10:30, 10:30] = 1
joined = house.copy()
joined[10:30, 40:55] = 1
joined[20, 30:40] = 1
chimney = np.zeros_like(house)
chimney[5, 5] = 1
layer = GeoTensor(
    house, transform=rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_500_000), crs="EPSG:32633",
    fill_value_default=0)


def areas(mask, buffer):
    found = get_polygons(mask, min_area=0, tolerance=0, polygon_buffer=buffer)
    return [round(outline.area) for outline in found]


seen = {buffer: areas(house, buffer)[0] for buffer in (-5, -2, 0, 2)}
print("buffer: square pixels of a house of 400:", seen)
print("GeoTensor, 400 pixels of 0.25 square metres:", areas(layer, -2), areas(layer, 2))
print("joined houses, chimney:", areas(joined, -1), areas(chimney, -1))
assert seen == {-5: 400, -2: 400, 0: 400, 2: 573}, seen
assert areas(layer, -2) == [100] and areas(layer, 2) == [143]
assert areas(joined, -1) == areas(joined, 0) == [710] and areas(chimney, -1) == [1]
PYTHON
