#!/usr/bin/env bash
# Overviews of a 0/1 mask by averages show twice the buildings.
#
# Guess before the run: a pixel of an overview is 1 where at least half of its ground is built up,
# so that the built-up share stays near that of the mask, or falls where houses are smaller than a
# pixel.
# Seen: of 9.0 % built up, the five levels from 2 to 32 have 10.3, 12.4, 15.2, 17.7 and 17.5 %. Each
# level is the average of the level before, not of the mask, and two built-up pixels of four, 0.5,
# are rounded up to 1: for a pixel of level 4 a quarter of its ground is enough, for one of level 8
# an eighth. Reading the mask at 1:8 by averages before it has overviews gives 8.3 %, and after 15.2
# %. A mask of 0 and 255 keeps its share, since greys remain.
# Versions: rasterio 1.4.4 with the GDAL 3.10.3 of its wheel. Source: GDAL's overview.cpp
# (GDALRegenerateCascadingOverviews), which builds a level from the next finer one.
# Hurt: who counts built-up ground at a coarse scale: read(out_shape=...) takes overviews unasked.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterio==1.4.4 numpy==2.2.6
venv/bin/python - <<'PYTHON'
import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_origin

print("GDAL", rasterio.__gdal_version__)
rng = np.random.default_rng(0)
mask = np.zeros((2048, 2048), np.uint8)
for _ in range(3000):
    row, column = rng.integers(0, 2030, 2)
    height, width = rng.integers(8, 16, 2)
    mask[row:row + height, column:column + width] = 1
LEVELS = (2, 4, 8, 16, 32)
kind = dict(driver="GTiff", count=1, height=2048, width=2048, dtype="uint8", crs="EPSG:32633",
            transform=from_origin(500_000, 5_000_000, 0.3, 0.3))


def shares(value):
    """Built-up share of each overview in percent, and of a read at 1:8 before and after."""
    with rasterio.open("mask.tif", "w", **kind) as file:
        file.write(mask * np.uint8(value), 1)

    def coarse(resampling):
        with rasterio.open("mask.tif") as file:
            pixels = file.read(1, out_shape=(256, 256), resampling=resampling)
        return round(100 * float(pixels.mean()) / value, 1)

    before = coarse(Resampling.average)
    with rasterio.open("mask.tif", "r+") as file:
        file.build_overviews(LEVELS, Resampling.average)
    levels = []
    for level in range(len(LEVELS)):
        with rasterio.open("mask.tif", overview_level=level) as file:
            levels.append(round(100 * float(file.read(1).mean()) / value, 1))
    found = levels, before, coarse(Resampling.average)
    print("values 0 and", value, "overviews:", levels, "1:8 before and after:", *found[1:])
    return found


share = round(100 * float(mask.mean()), 1)
print("built up:", share)
assert share == 9.0
assert shares(1) == ([10.3, 12.4, 15.2, 17.7, 17.5], 8.3, 15.2)
assert shares(255) == ([9.0, 9.0, 9.0, 9.0, 9.1], 9.0, 9.0)
PYTHON
