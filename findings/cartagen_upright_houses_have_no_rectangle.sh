#!/usr/bin/env bash
# CartAGen makes a line of zero square metres of each upright house in UTM.
#
# Guess before the run: regularize_building_rectangle gives the rectangle of least area around a
# building, as shapely's minimum_rotated_rectangle does, wherever it stands, however it is turned
# and whatever corner its outline begins with.
# Seen: turned by 30 degrees in UTM it does. Where walls run along the axes, as those outlined from
# masks do, the rectangle of a house or a U has two corners in each of two places and no area; that
# of an L has none for 12 of the 16 ways to write its outline down. polygon_orientation takes the
# same rectangle: a house of 20 by 10 m lies along its long or its short side, as the ring begins.
# Versions: cartagen 1.4.2, shapely 2.1.2. Source: cartagen/utils/geometry/polygon.py,
# enclosing_rectangle: it takes the first and the last of the perpendiculars through the corners,
# which run through one wall if the outline begins with that wall, and then the least area.
# Hurt: who generalizes footprints for a map: houses vanish without a message, and the squaring of
# others takes a wrong axis.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export MPLCONFIGDIR=$folder
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.2.6 shapely==2.1.2 \
  geopandas==1.1.1 networkx==3.6.1 matplotlib==3.11.2 scipy==1.17.1 rasterio==1.4.4
venv/bin/pip install --quiet --disable-pip-version-check --no-deps cartagen==1.4.2
cat > rectangles.py <<'PYTHON'
import math
import cartagen
import shapely
from shapely import affinity

bar = shapely.box(0, 0, 30, 10)
town = {
    "house": shapely.box(0, 0, 20, 10),
    "L": bar | shapely.box(0, 0, 12, 25),
    "U": bar | shapely.box(0, 0, 10, 25) | shapely.box(20, 0, 30, 25),
}


def outlines(shape, turn):
    """Yield the building in UTM, to the centimetre, from each corner and both ways round."""
    turned = affinity.translate(affinity.rotate(shape, turn, origin=(0, 0)), 500123.45, 5500234.56)
    ring = [(round(x, 2), round(y, 2)) for x, y in turned.exterior.coords[:-1]]
    for corners in (ring, ring[::-1]):
        for first in range(len(corners)):
            yield shapely.Polygon(corners[first:] + corners[:first])


def measures(name, turn):
    right, empty, directions = 0, 0, set()
    for building in outlines(town[name], turn):
        area = cartagen.regularize_building_rectangle(building).area
        right += abs(area / building.minimum_rotated_rectangle.area - 1) < 0.01
        empty += area < 1e-3
        directions.add(round(math.degrees(cartagen.polygon_orientation(building))) % 180)
    print(f"{name} turned by {turn}: {right} right rectangles, {empty} without area,",
          "directions", *sorted(directions))
    return right, empty, directions


assert measures("house", 30) == (8, 0, {30})
assert measures("L", 30) == (16, 0, {30})
assert measures("U", 30) == (24, 0, {30})
assert measures("house", 0) == (0, 8, {0, 90})
assert measures("L", 0) == (4, 12, {0, 90})
assert measures("U", 0) == (0, 24, {0, 90})
PYTHON
venv/bin/python -W ignore rectangles.py
