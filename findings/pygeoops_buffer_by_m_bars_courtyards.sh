#!/usr/bin/env bash
# pygeoops' buffer_by_m builds a bar across a courtyard, depending on where the yard's ring begins.
#
# Guess before the run: buffer_by_m widens a polygon by the M or Z of its corners; with the same
# value at each corner it is the ordinary buffer, also where the polygon has holes. Its
# documentation calls polygons experimental and says nothing of holes.
# Seen: a block of 40 x 40 with a courtyard of 20 x 20, widened by 1, has one of 18 x 18 left, as
# with shapely, if the ring of the yard begins at three of its corners. If it begins at the one
# farthest from the first corner of the outline, a bar of the width of the buffer runs through it
# and leaves two yards of 138 each. Of two yards both can be crossed. There is no message.
# Versions: pygeoops 0.6.0, shapely 2.2.0. Source: pygeoops/_buffer_by_m.py: corners of all rings
# are taken as one line, so that the last corner of a ring is joined to the first of the next.
# Hurt: who widens buildings by an uncertainty or a height for each corner: built-up areas grow.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 pandas==3.1.1 pyproj==3.7.2 \
  shapely==2.2.0 geopandas==1.2.0 topojson==2.2 pygeoops==0.6.0
venv/bin/python -W ignore - <<'PYTHON'
import pygeoops
import shapely

BLOCK = [(0, 0), (40, 0), (40, 40), (0, 40)]
YARD = [(10, 10), (10, 30), (30, 30), (30, 10)]
YARDS = [[(5, 5), (5, 15), (15, 15), (15, 5)], [(35, 35), (35, 25), (25, 25), (25, 35)]]


def yards(*holes):
    """Return the areas of yards left after widening a block by 1, by pygeoops and by shapely."""
    flat = shapely.Polygon(BLOCK, holes)
    raised = shapely.force_3d(flat, 1)
    assert flat.is_valid
    return [
        sorted(round(shapely.Polygon(ring).area) for ring in widened.interiors)
        for widened in (pygeoops.buffer_by_m(raised), flat.buffer(1))
    ]


for first in range(4):
    seen, right = yards(YARD[first:] + YARD[:first])
    print("a yard that begins at", YARD[first], "leaves", seen, "right:", right)
    assert right == [324]
    assert seen == ([138, 138] if YARD[first] == (30, 30) else right)
seen, right = yards(*YARDS)
print("two yards leave", seen, "right:", right)
assert seen == [22] * 4 and right == [64, 64]
PYTHON
