#!/usr/bin/env bash
# rasterstats counts ground outside of a raster file as pixels of value 0, also if nodata is given.
#
# Guess before the run: of a zone that reaches beyond the raster, only the pixels of the raster count;
# at least where nodata is given, what is outside is nodata.
# Seen: a mask of 20 x 20 ones, and a zone of which half lies outside. With the file, count is 400 and
# the mean is 0.5, with nodata=255 as well; with the same pixels as an array, count is 200 and the
# mean is 1.0. Only a file that itself declares nodata gives 200 and 1.0, too.
# Versions: rasterstats 0.21.0, rasterio 1.4.4. Source: rasterstats/io.py, Raster.read calls
# src.read(boundless=True) of rasterio, which fills with the nodata value of the file, else with 0;
# the nodata of the caller then replaces only masked pixels, and there are none.
# Hurt: who takes built-up shares or counts of districts at the edge of a scene, from a mask that
# declares no nodata: the share falls by the part of the district that was never imaged.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterstats==0.21.0 rasterio==1.4.4
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterstats import zonal_stats
from shapely import box

mask, place = np.ones((20, 20), np.uint8), from_origin(0, 20, 1, 1)
kind = dict(driver="GTiff", count=1, height=20, width=20, dtype="uint8", transform=place)
for name, nodata in (("plain.tif", None), ("declared.tif", 255)):
    with rasterio.open(name, "w", nodata=nodata, **kind) as file:
        file.write(mask, 1)
zone = box(-10, 0, 10, 20)
seen = []
for raster, options in (
    ("plain.tif", {}), ("plain.tif", {"nodata": 255}), ("declared.tif", {}),
    (mask, {"nodata": 255, "affine": place}),
):
    (found,) = zonal_stats(zone, raster, stats="count mean", **options)
    print(raster if isinstance(raster, str) else "array", options.get("nodata"), found)
    seen.append((found["count"], found["mean"]))
assert seen == [(400, 0.5), (400, 0.5), (200, 1.0), (200, 1.0)]
PYTHON
