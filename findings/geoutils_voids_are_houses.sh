#!/usr/bin/env bash
# geoutils measures the way to the nearest void where it is asked for the nearest house.
#
# Guess before the run: proximity() of a map of houses gives the metres to the nearest pixel that is
# "non-zero", and pixels without data are no houses.
# Seen: of a map of 0, 1 and nodata 255, a pixel beside the void is at 2 m in place of the 39.2 m to
# the only house, the void itself is at 0, and the mean of all pixels with data is 15.1 in place of
# 21.1. proximity(target_values=[1]) gives the right ones. There is no message.
# Versions: geoutils 0.2.5 (the latest), rasterio 1.4.4, scipy 1.16.3. Source: geoutils/interface/
# distance.py: nodata is nan in the array of floats, which astype(bool) makes true.
# Hurt: who measures distances to houses, roads or water on maps that do not cover the whole scene:
# the edge of the data counts as a house, and the farther from houses, the more.
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
import geoutils
import numpy as np
import rasterio

houses = np.zeros((50, 50), np.uint8)
houses[10:15, 10:15] = 1
houses[40:, 40:] = 255
with rasterio.open("houses.tif", "w", driver="GTiff", height=50, width=50, count=1, dtype="uint8",
                   crs="EPSG:25833", nodata=255,
                   transform=rasterio.Affine(1, 0, 390_000, 0, -1, 5_820_000)) as file:
    file.write(houses, 1)
town = geoutils.Raster("houses.tif")
seen = {}
for targets in (None, [1]):
    metres = np.asarray(town.proximity(target_values=targets).data)
    seen[targets is None] = [round(float(value), 1) for value in (
        metres[45, 38], metres[45, 45], metres[houses != 255].mean())]
    print("targets", targets, "beside the void, in it and in the mean:", seen[targets is None])
assert seen == {True: [2.0, 0.0, 15.1], False: [39.2, 43.8, 21.1]}
PYTHON
