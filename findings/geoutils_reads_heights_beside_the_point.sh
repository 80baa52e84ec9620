#!/usr/bin/env bash
# geoutils interpolates heights half a pixel off, and a whole pixel off in rasters of points.
#
# Guess before the run: interp_points in the middle of a pixel gives the value of that pixel, as
# rasterio.sample and reduce_points of geoutils do, for both kinds of AREA_OR_POINT: GDAL places
# both alike.
# Seen: a house of 10 m in a surface model of 1 m has 2.5 m in the middle of its south-eastern
# pixel, the mean of four pixels, and 0 if the GeoTIFF says Point. In between, values belong to the
# upper left corner of a pixel, and for Point to a place half a pixel further out. With
# method="nearest" both give the next pixel to the south-east. reduce_points gives 10 in all cases.
# Issue 341 of its repository met the whole pixel in 2023, and was closed.
# Versions: geoutils 0.2.5, rasterio 1.4.4, numpy 2.2.6. Source: geoutils/raster/georeferencing.py,
# _xy2ij: i += 0.5 for Point, and nothing for Area; its transform counts from corners in both.
# Hurt: who reads heights of roofs or terrain at points: eaves become ground, and hills shift by a
# pixel in files that say Point, as SRTM and Copernicus tiles often do.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geoutils==0.2.5 \
  rasterio==1.4.4 numpy==2.2.6
venv/bin/python -W ignore - <<'PYTHON'
import geoutils
import numpy as np
import rasterio
from rasterio.transform import from_origin

heights = np.zeros((40, 40), np.float32)
heights[10:20, 10:20] = 10
east, north = 500019.5, 5400020.5
points = np.array([east]), np.array([north])
seen = {}
for kind in ("Area", "Point"):
    with rasterio.open(
        "heights.tif", "w", driver="GTiff", width=40, height=40, count=1, dtype="float32",
        crs=32633, transform=from_origin(500000, 5400040, 1, 1),
    ) as target:
        target.update_tags(AREA_OR_POINT=kind)
        target.write(heights, 1)
    with rasterio.open("heights.tif") as source:
        assert source.transform == from_origin(500000, 5400040, 1, 1)
        assert next(source.sample([(east, north)]))[0] == 10
    raster = geoutils.Raster("heights.tif")
    assert raster.area_or_point == kind
    seen[kind] = [float(values[0]) for values in (
        raster.interp_points(points, as_array=True),
        raster.interp_points(points, method="nearest", as_array=True),
        raster.reduce_points(points, as_array=True),
    )]
    print(kind, "interpolated, nearest, reduced:", seen[kind])
assert seen == {"Area": [2.5, 0, 10], "Point": [0, 0, 10]}
PYTHON
