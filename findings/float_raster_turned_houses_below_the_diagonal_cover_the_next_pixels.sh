#!/usr/bin/env bash
# float_raster gives turned houses below the diagonal of a grid the wrong share of each pixel.
#
# Guess before the run: raster() sets each pixel to the share of it that a polygon covers, for a
# house of 4 x 3 m, upright or turned, anywhere on a grid of pixels of 1 m, to the last digit.
# Seen: a turned house at (5, 14) is right, and the same house at (14, 5) is wrong by up to 0.22
# in a pixel, though the sum is the 12 square metres of the house: one pixel has too much and the
# next too little. An upright house there is right, until it reaches beyond a corner of the grid:
# of 6.25 square metres within, 5.62 are left. A turned house on a grid moved by 100 m to the
# north is right again. There is no message.
# Versions: float_raster 0.8, numpy 2.3.5, scipy 1.16.3. Source: float_raster/float_raster.py,
# find_intersections: lines between columns begin at the smallest x of the polygon, where they
# should at its smallest y, and walls are not cut where they cross them further south.
# Hurt: who takes shares of pixels for exact density of buildings or soft labels: houses in one
# half of each tile are smeared over the wrong pixels, and totals do not show it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check float_raster==0.8 numpy==2.3.5 \
  scipy==1.16.3 shapely==2.1.2
venv/bin/python - <<'PYTHON'
import numpy as np
from float_raster import raster
from shapely import box
from shapely.affinity import rotate, translate

EDGES = np.arange(21)


def compare(house, north=0):
    """Return the sum of shares, the true sum and the largest error of a pixel."""
    corners = np.array(house.exterior.coords)[:-1]
    if house.exterior.is_ccw:  # The package asks for clockwise polygons.
        corners = corners[::-1]
    found = raster(corners.T + [[0], [north]], EDGES, EDGES + north)
    exact = [[house.intersection(box(x, y, x + 1, y + 1)).area for y in EDGES[:-1]]
             for x in EDGES[:-1]]
    return found.sum(), np.sum(exact), np.abs(found - exact).max()


upright = box(-2, -1.5, 2, 1.5)
turned = rotate(upright, 30)
cases = {
    "turned, above the diagonal": (translate(turned, 5.2, 14.3), 0),
    "turned, below the diagonal": (translate(turned, 14.2, 5.3), 0),
    "turned, below, 100 m north": (translate(turned, 14.2, 5.3), 100),
    "upright, below the diagonal": (translate(upright, 14.2, 5.3), 0),
    "upright, over the corner above": (translate(upright, 1, 19.5), 0),
    "upright, over the corner below": (translate(upright, 19.5, 1), 0),
}
seen = {}
for name, (house, north) in cases.items():
    seen[name] = np.round(compare(house, north), 2).tolist()
    print(f"{name:31} sum, true sum, largest error: {seen[name]}")
assert seen["turned, above the diagonal"] == seen["turned, below, 100 m north"] == [12, 12, 0]
assert seen["turned, below the diagonal"] == [12, 12, 0.22]
assert seen["upright, below the diagonal"] == [12, 12, 0]
assert seen["upright, over the corner above"] == [6, 6, 0]
assert seen["upright, over the corner below"] == [5.62, 6.25, 0.5]
PYTHON
