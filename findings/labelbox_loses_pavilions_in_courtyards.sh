#!/usr/bin/env bash
# Labelbox turns a mask into polygons without the pavilions in courtyards and without thin walls.
#
# Guess before the run: Mask.geometry has the area of the mask, up to rounding: 300 of a block of 20
# x 20 pixels with a yard of 10 x 10, and 316 with a pavilion of 4 x 4 in the yard.
# Seen: 242 for both; the pavilion is not in the geometry. A house of 10 x 10 has 81. A wall of 20
# pixels that is one pixel wide is not there at all. Yards grow by half a pixel on each side, and
# houses shrink by as much. There is no message.
# Versions: labelbox 7.17.0, opencv-python-headless 5.0.0.93, shapely 2.2.0, numpy 2.4.6. Source:
# labelbox/data/annotation_types/geometry/mask.py, Mask.geometry: each contour that lies in another
# one is taken for a hole, and contours run through the centres of pixels.
# Hurt: who converts model masks or labels to polygons with the SDK, or rates them by such shapes:
# buildings in yards are lost, and floor areas are 20 % too small.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check "labelbox[data]==7.17.0" numpy==2.4.6 \
  opencv-python-headless==5.0.0.93 shapely==2.2.0
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from labelbox.data.annotation_types import Mask, MaskData
from shapely.geometry import Point, shape


def polygons(*parts):
    """Return a mask in which each part sets its window to a value, and its geometry."""
    mask = np.zeros((64, 64), np.uint8)
    for value, rows, columns in parts:
        mask[rows, columns] = value
    return mask, shape(Mask(mask=MaskData.from_2D_arr(mask), color=1).geometry)


block = (1, slice(4, 24), slice(4, 24)), (0, slice(9, 19), slice(9, 19))
pavilion = 1, slice(12, 16), slice(12, 16)
house = 1, slice(40, 50), slice(40, 50)
wall = 1, slice(30, 31), slice(30, 50)
seen = {}
for name, parts in {"block": block, "with pavilion": (*block, pavilion), "house": (house,),
                    "house and wall": (house, wall)}.items():
    mask, geometry = polygons(*parts)
    seen[name] = int(mask.sum()), geometry.area, len(geometry.geoms)
    print(f"{name:15} pixels, area of the geometry, its polygons:", seen[name])
assert seen["block"] == (300, 242, 1) and seen["with pavilion"] == (316, 242, 1)
assert seen["house"] == (100, 81, 1) and seen["house and wall"] == (120, 81, 1)
_, geometry = polygons(*block, pavilion)
assert geometry.distance(Point(13.5, 13.5)) > 4
PYTHON
