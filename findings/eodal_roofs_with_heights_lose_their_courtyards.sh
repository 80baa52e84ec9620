#!/usr/bin/env bash
# eodal reads the courtyard with the house as soon as the outline has heights.
#
# Guess before the run: from_rasterio with the outline of a block reads its pixels without those of
# its courtyard, and an outline whose points have heights reads the same ones.
# Seen: a block of 40 x 40 m with a courtyard of 20 x 20 m reads 1,200 pixels, and with heights
# 1,600, courtyard included: the mean height is 11.25 m in place of 15. There is no message.
# Versions: eodal 0.2.4 (the latest), rasterio 1.4.4, shapely 2.1.2. Source: eodal/core/utils/
# geometry.py, convert_3D_2D, which from_rasterio calls, builds polygons of their exterior only.
# Hurt: who measures roofs within outlines of CityGML, 3D shapefiles or GeoJSON with heights, as
# those of many cities are: blocks are read with the ground of their yards.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
$pip numpy==2.2.6 pandas==2.3.3 geopandas==1.1.1 rasterio==1.4.4 shapely==2.1.2 pyproj==3.7.2 \
  opencv-python-headless==4.12.0.88 matplotlib==3.10.7 xarray==2025.6.1 zarr==2.18.7 \
  numcodecs==0.15.1 rasterstats==0.20.0 numba==0.61.2 pydantic-settings==2.16.3 \
  pystac-client==0.9.1 planetary-computer==1.0.0
$pip --no-deps eodal==0.2.4
venv/bin/python -W ignore - <<'PYTHON'
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from eodal.core.band import Band
from shapely import box, force_3d

block = box(390_010, 5_819_950, 390_050, 5_819_990)
yard = box(390_020, 5_819_960, 390_040, 5_819_980)
heights = np.zeros((100, 100), np.float32)
heights[10:50, 10:50] = 15
heights[20:40, 20:40] = 0
with rasterio.open("heights.tif", "w", driver="GTiff", height=100, width=100, count=1,
                   dtype="float32", crs="EPSG:25833", nodata=-9999,
                   transform=rasterio.Affine(1, 0, 390_000, 0, -1, 5_820_000)) as file:
    file.write(heights, 1)
seen = []
for outline in (block - yard, force_3d(block - yard, 15)):
    houses = geopandas.GeoDataFrame(geometry=[outline], crs="EPSG:25833")
    values = Band.from_rasterio(Path("heights.tif"), vector_features=houses).values
    seen.append((int(np.ma.count(values)), float(values.mean())))
    print("with heights" if outline.has_z else "without heights", outline.area, *seen[-1])
assert seen == [(1200, 15), (1600, 11.25)]
PYTHON
