#!/usr/bin/env bash
# lidario makes points of voids that are NaN, and joins rows of points in PLY files of maps in UTM.
#
# Guess before the run: cells without data are left out, as its documentation says for the nodata
# value of the file, whatever that is, and a PLY file has the points that an array has.
# Seen: of a height model of 24 cells with 6 voids there are 18 points where nodata is -9999, and 24
# where it is NaN, 6 of them with no height; so their mean height is NaN. Of the 18 points, 25 cm
# apart, a PLY file has 12 places: northings are multiples of 50 cm, and rows fall on each other,
# so that a roof of 9 m and the ground of 3 m have one place. The element is named after the file,
# where readers look for "vertex". There is no message.
# Versions: lidario 0.3.0 (the latest), rasterio 1.4.3, plyfile 1.1. Source: lidario/translator.py
# compares with raster != no_data, which holds of every NaN; io/output_handler.py, __save_ply: f4
# for x, y and z, and PlyElement.describe(np_array, out_file).
# Hurt: who makes point clouds of surface models, where nodata of NaN is common: voids count as
# points, and walls move to steps of 50 cm.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check lidario==0.3.0 rasterio==1.4.3 \
  plyfile==1.1 numpy==2.2.6 pandas==2.3.3
venv/bin/python - <<'PYTHON'
import numpy
import rasterio
from lidario import Translator
from plyfile import PlyData
from rasterio.transform import from_origin

EAST, NORTH = 500_000, 5_500_001
heights = numpy.full((4, 6), 3, "float32")
heights[1, 2:4] = 9
for name, nodata in [("nan", numpy.nan), ("number", -9999)]:
    heights[0] = nodata
    with rasterio.open(
        f"{name}.tif", "w", driver="GTiff", height=4, width=6, count=1, dtype="float32",
        crs="EPSG:32633", transform=from_origin(EAST, NORTH, 0.25, 0.25), nodata=nodata,
    ) as model:
        model.write(heights, 1)
    points = Translator("geotiff", "np").translate(f"{name}.tif")
    print(name, len(points), "points, mean height", points[:, 2].mean())
    assert len(points) == {"nan": 24, "number": 18}[name]
    assert numpy.isnan(points[:, 2]).sum() == {"nan": 6, "number": 0}[name]

Translator("geotiff", "ply").translate("number.tif", out_file="town")
(cloud,) = PlyData.read("town.ply").elements
moved = numpy.column_stack([cloud["x"], cloud["y"], cloud["z"]]).astype(float)
places = {tuple(point) for point in moved[:, :2]}
roofs = {tuple(point[:2]) for point in moved if point[2] == 9}
ground = {tuple(point[:2]) for point in moved if point[2] == 3}
print(cloud.name, "northings", sorted(set(points[:, 1])), "become", sorted(set(moved[:, 1])))
print("places", len(places), "of", len(points), "roof and ground at", sorted(roofs & ground))
assert cloud.name == "town.ply" and len(points) == 18 and len(places) == 12
assert sorted(set(points[:, 1] - NORTH)) == [-0.875, -0.625, -0.375]
assert sorted(set(moved[:, 1] - NORTH)) == [-1, -0.5] and len(roofs & ground) == 2
PYTHON
