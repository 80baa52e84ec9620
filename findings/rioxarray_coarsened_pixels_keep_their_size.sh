#!/usr/bin/env bash
# rioxarray gives the pixels of a coarsened mask their old size, so buildings shrink to a quarter.
#
# Guess before the run: rio.transform() follows the coordinates after every operation of xarray, as it
# does after isel and sel with ranges.
# Seen: it takes the origin from the coordinates and the pixel size from the file. After
# coarsen(x=2, y=2) or [::2], pixels of 2 m are 1 m for rio.transform(), rio.resolution() and
# rio.bounds(). A house of 20 x 20 m that is traced with this transform has 100 square metres in place
# of 400, and its centre lies 25 m to the west and 25 m to the north. rio.to_raster writes 2 m, which
# hides it; recalc=True is right.
# Versions: rioxarray 0.19.0, xarray 2026.9.0, rasterio 1.4.4. Source: rioxarray/rioxarray.py,
# resolution, which prefers the cached GeoTransform of spatial_ref.
# Hurt: who makes a mask coarser to save time before it is traced, or measures areas by the resolution.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rioxarray==0.19.0 xarray==2026.9.0 rasterio==1.4.4 shapely==2.1.2 numpy==2.2.6
venv/bin/python -W error::UserWarning - <<'PYTHON'
import numpy as np
import rasterio
import rioxarray
import shapely
from rasterio.features import shapes
from rasterio.transform import from_origin
from shapely.geometry import shape

mask = np.zeros((100, 100), np.uint8)
mask[40:60, 40:60] = 1
house = shapely.box(500040, 5000040, 500060, 5000060)
kind = dict(driver="GTiff", count=1, height=100, width=100, dtype="uint8", crs="EPSG:32633")
with rasterio.open("mask.tif", "w", transform=from_origin(500000, 5000100, 1, 1), **kind) as file:
    file.write(mask, 1)
full = rioxarray.open_rasterio("mask.tif")[0]


def traced(pixels, **options):
    place = pixels.rio.transform(**options)
    found = shapes(pixels.values.astype(np.uint8), transform=place)
    return next(shape(outline) for outline, value in found if value == 1)


seen = {}
for name, pixels in (
    ("range", full.isel(x=slice(10, None), y=slice(20, None))),
    ("coarsen", full.coarsen(x=2, y=2).max()),
    ("step", full[::2, ::2]),
):
    wrong, right = traced(pixels), traced(pixels, recalc=True)
    pixels.rio.to_raster("out.tif")
    with rasterio.open("out.tif") as file:
        written = file.res[0]
    print(name, pixels.rio.resolution()[0], wrong.bounds, "area", wrong.area,
          "with recalc", right.area, "written", written)
    seen[name] = wrong.area, right.area, written, wrong.intersects(house)
assert seen["range"] == (400, 400, 1, True)
assert seen["coarsen"] == seen["step"] == (100, 400, 2, False)
PYTHON
