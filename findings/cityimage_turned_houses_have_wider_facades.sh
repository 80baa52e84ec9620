#!/usr/bin/env bash
# cityImage gives a house at 45 degrees a façade of 3.5 times its area, and paves 3-D courtyards.
#
# Guess before the run: the façade area of visibility_score depends on the building, not on the
# direction of its street; structural_score drops the heights of 3-D outlines and nothing else.
# Seen: a house of 40 x 10 m, 9 m high, has 90 square metres of façade along the axes, 207.7 turned
# by 20 degrees and 318.2 by 45. A block whose outline has heights comes out of structural_score
# without its courtyard, 1,600 square metres in place of 1,200; in 2-D it keeps it. There is no
# message.
# Versions: cityImage 2.1.1, geopandas 1.2.0, shapely 2.2.0. Source: cityImage/landmarks.py:
# _facade_area takes the shorter side of the envelope, which is parallel to the axes;
# structural_score makes polygons of g.exterior.coords.
# Hurt: who ranks landmarks: façades weigh as much as lines of sight, and in a town whose streets
# run from north-west to south-east all slim houses stand out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cityImage==2.1.1 geopandas==1.2.0 \
  shapely==2.2.0 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import cityImage
import geopandas
import shapely
from shapely import LineString, affinity, box

angles = 0, 20, 45, 90
houses = geopandas.GeoDataFrame(
    {"buildingID": range(4), "height": 9.0}, crs=32633,
    geometry=[affinity.rotate(box(0, 0, 40, 10), angle) for angle in angles])
facades = cityImage.visibility_score(houses)["fac"].round(1).tolist()
print("façades by angle:", dict(zip(angles, facades, strict=True)))
assert facades == [90, 207.7, 318.2, 90]

street = geopandas.GeoDataFrame(geometry=[LineString([(-50, -50), (90, -50)])], crs=32633)
block = box(0, 0, 40, 40) - box(10, 10, 30, 30)
areas = {}
for name, outline in (("2-D", block), ("3-D", shapely.force_3d(block, 9))):
    town = geopandas.GeoDataFrame({"buildingID": [0]}, geometry=[outline], crs=32633)
    areas[name] = float(cityImage.structural_score(town, None, street).area[0])
    print(name, "area after structural_score:", areas[name])
assert areas == {"2-D": 1200, "3-D": 1600}
PYTHON
