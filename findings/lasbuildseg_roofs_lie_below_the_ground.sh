#!/usr/bin/env bash
# LasBuildSeg's normalised heights grow with the altitude of the town, and roofs lie below ground.
#
# Guess before the run: generate_dtm with ground_multiplier 1 makes a terrain model near the height
# of the points of class 2, and generate_ndhm subtracts it from the surface: ground 0, house 9.
# Seen: of a house of 9 m on flat ground at 100 m the terrain is -109 beside the house and -99 below
# it, the normalised height 209 on the ground and 208 on the roof. At 0 m they are 9 and 8, at 500 m
# 1009 and 1008. There is no message but "Success in Creating DTM".
# Versions: LasBuildSeg 0.2.1, laspy 2.0.0, scipy 1.10.1, rasterio 1.3.4, numpy 1.23.5. Source:
# LasBuildSeg/LasBuildSeg.py, generate_dtm: cKDTree.query(...)[0] is the distance to the nearest
# ground point, where [1] is its number, and the height of what is not ground, interpolated to all
# pixels, is taken off.
# Hurt: who finds buildings by a threshold of height in a point cloud: it is another one at each
# altitude, and what it finds is where ground is far, not what is high.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check laspy==2.0.0 scipy==1.10.1 \
  rasterio==1.3.4 numpy==1.23.5 pyproj==3.5.0 opencv-python-headless==4.7.0.72 geopandas==0.14.4 \
  shapely==2.0.7 fiona==1.10.1 pandas==2.2.3
venv/bin/pip install --quiet --disable-pip-version-check --no-deps LasBuildSeg==0.2.1
venv/bin/python -W ignore - <<'PYTHON'
import laspy
import LasBuildSeg
import numpy as np
import rasterio

x, y = (axis.ravel() for axis in np.meshgrid(*[np.arange(0.25, 60, 0.5)] * 2))
house = (abs(x - 30) < 10) & (abs(y - 30) < 10)
seen = {}
for altitude in (0, 100, 500):
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = [0.01] * 3, [500_000, 5_500_000, 0]
    points = laspy.LasData(header)
    points.x, points.y, points.z = x + 500_000, y + 5_500_000, altitude + 9 * house
    points.classification = np.where(house, 6, 2).astype("uint8")
    points.write("town.las")
    LasBuildSeg.generate_dsm("town.las", 32633, "nearest")
    LasBuildSeg.generate_dtm("town.las", 32633, "nearest", 1)
    LasBuildSeg.generate_ndhm("dtm.tif", "dsm.tif")
    rasters = [rasterio.open(f"{name}.tif").read(1) for name in ("dsm", "dtm", "ndhmtemp")]
    seen[altitude] = [(float(values[5, 5]), float(values[30, 30])) for values in rasters]
    print(altitude, "m: surface, terrain, normalised height of ground and roof:", *seen[altitude])
assert seen == {
    0: [(0, 9), (-9, 1), (9, 8)],
    100: [(100, 109), (-109, -99), (209, 208)],
    500: [(500, 509), (-509, -499), (1009, 1008)],
}
PYTHON
