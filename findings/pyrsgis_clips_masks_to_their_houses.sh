#!/usr/bin/env bash
# pyrsgis clips an image and its mask to the same box and returns rasters of different sizes.
#
# Guess before the run: clip(ds, array, x_min, x_max, y_min, y_max) cuts the rows and columns of the
# box out of an array, whatever its values are, and leaves the array that it was given as it is.
# Seen: of an image of 40 x 40 m, a box of 20 x 20 m has 20 x 20 pixels; of the mask of the same
# place, with a house of 6 x 6 and a shed of 3 x 2 pixels in the box, 16 x 12. What is returned is
# the extent of the values in the box that are not 0. The bounds fit what is cut, so nothing looks
# wrong, but image and mask do not cover the same ground. All that lies outside of the box is
# then 0 in the array of the caller: of 60 pixels of houses 42 are left, and a second tile next to
# the first, whose house is gone, raises an error about an empty array.
# Versions: pyrsgis 0.4.1, numpy 2.2.6. Source: pyrsgis/raster/__init__.py, clip: it sets the values
# outside to 0, without a copy, and takes the extent of np.nonzero; clip_file calls it.
# Hurt: who cuts tiles of imagery and of building masks, or of heights above ground, to train.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.2.6 pandas==2.3.3
venv/bin/pip install --quiet --disable-pip-version-check --no-deps pyrsgis==0.4.1
venv/bin/python -W ignore - <<'PYTHON'
import sys
from unittest.mock import MagicMock

import numpy as np

# GDAL's bindings, which pip cannot build here, and plots are only imported; no file is needed.
for name in ("osgeo", "matplotlib", "matplotlib.pyplot", "matplotlib.cm"):
    sys.modules[name] = MagicMock()
from pyrsgis import raster

file = MagicMock(RasterCount=1, RasterXSize=40, RasterYSize=40)
file.GetProjection = lambda: "EPSG:25833"
file.GetGeoTransform = lambda: (400000.0, 1.0, 0.0, 5800040.0, 0.0, -1.0)
dataset = raster._create_ds(file)

image = np.full((40, 40), 90, np.uint8)
mask = np.zeros((40, 40), np.uint8)
mask[12:18, 12:18] = mask[25:28, 22:24] = 1
mask[33:36, 2:8] = 1
BOX = 400010, 400030, 5800010, 5800030
seen = {}
for name, array in {"image": image, "mask": mask}.items():
    before = np.count_nonzero(array)
    found, part = raster.clip(dataset, array, *BOX)
    west_south, east_north = found.bbox
    seen[name] = part.shape, before, np.count_nonzero(array)
    print(f"{name}: {part.shape[0]} x {part.shape[1]} pixels from",
          *map(int, (*west_south, *east_north)),
          f"and of {before} pixels that are not 0, the caller still has {seen[name][2]}")
assert seen["image"] == ((20, 20), 1600, 400)
assert seen["mask"] == ((16, 12), 60, 42)
try:
    raster.clip(dataset, mask, 400000, 400010, 5800000, 5800010)
except ValueError as error:
    print("a tile beside it:", error)
else:
    raise AssertionError
PYTHON
