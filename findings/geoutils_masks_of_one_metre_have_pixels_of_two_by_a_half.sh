#!/usr/bin/env bash
# geoutils makes masks with rows and columns exchanged: a metre becomes 2 x 0.5 m.
#
# Guess before the run: create_mask(res=1) of a block of 100 x 50 m has 50 rows and 100 columns of
# 1 x 1 m, as rasterize(xres=1) has, and one of given bounds fits an image of these bounds.
# Seen: it has 100 rows and 50 columns of 2 x 0.5 m. Of the bounds of 200 x 100 m it has 200 rows
# and 100 columns, so that as an array it does not fit the image. Two houses of 15 x 20 m with an
# alley of 1 m between them are one block of 640 square metres; rasterize keeps the alley and the
# 600. A square area looks right. There is no message.
# Versions: geoutils 0.2.5 (the latest), rasterio 1.4.4, geopandas 1.1.1. Source: geoutils/
# interface/raster_vector.py, _create_mask divides the width by xres for the height, and the height
# by yres for the width.
# Hurt: who makes masks of houses for scenes that are not square: walls are twice as coarse one way,
# small gaps close, and arrays have the wrong shape or are read along the wrong side.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.2.6 pandas==2.3.3 \
  geopandas==1.1.1 rasterio==1.4.4 shapely==2.1.2 pyproj==3.7.2 scipy==1.16.3 xarray==2025.6.1 \
  rioxarray==0.19.0 geoutils==0.2.5
venv/bin/python -W ignore - <<'PYTHON'
import geopandas
import geoutils
from shapely import box

block = geoutils.Vector(geopandas.GeoDataFrame(
    crs="EPSG:25833", geometry=[box(390_000, 5_819_950, 390_100, 5_820_000)]))
mask, raster = block.create_mask(res=1), block.rasterize(xres=1, in_value=1)
print("create_mask", mask.shape, mask.res, "and rasterize", raster.shape, raster.res)
assert (mask.shape, mask.res) == ((100, 50), (2, 0.5))
assert (raster.shape, raster.res) == ((50, 100), (1, 1))

bounds = (390_000, 5_819_900, 390_200, 5_820_000)
houses = geoutils.Vector(geopandas.GeoDataFrame(crs="EPSG:25833", geometry=[
    box(390_010, 5_819_940, 390_025, 5_819_960), box(390_026, 5_819_940, 390_041, 5_819_960)]))
mask = houses.create_mask(res=1, bounds=bounds)
raster = houses.rasterize(xres=1, bounds=bounds, in_value=1)
print("of 200 x 100 m", mask.shape, "and", raster.shape)
assert mask.shape == (200, 100) and raster.shape == (100, 200)
seen = {}
for name, layer in (("create_mask", mask), ("rasterize", raster)):
    row = layer.data[layer.shape[0] // 2].astype(int)
    area = float(layer.data.sum() * layer.res[0] * layer.res[1])
    seen[name] = int((row[1:] != row[:-1]).sum()), area
    print(name, "crosses", seen[name][0], "walls and has", area, "square metres")
assert seen == {"create_mask": (2, 640), "rasterize": (4, 600)}
PYTHON
