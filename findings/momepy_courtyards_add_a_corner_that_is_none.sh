#!/usr/bin/env bash
# momepy counts five corners in a courtyard of four, and calls its right angles askew.
#
# Guess before the run: with include_interiors=True corners, squareness and centroid_corner_distance
# take each ring of a building by itself: a square block with a square courtyard has 8 corners of 90
# degrees, squareness 0.
# Seen: a block of 10 m with a courtyard of 4 m in its middle has 9 corners and a squareness of 15.2
# degrees; with two courtyards it has 14 in place of 12, and 18.2. Where the courtyard lies and at
# which corner its ring begins counts too: the same yard begun at the opposite corner is 24.8
# degrees askew. Without courtyards all is right. There is no message.
# Versions: momepy 0.11.0 (the latest for Python 3.11; the lines are the same in 1.0.0), geopandas
# 1.2.0, shapely 2.2.0. Source:
# momepy/functional/_shape.py: get_coordinates puts all rings of a building into one list, of which
# the last point alone is dropped, and _true_angles_mask takes it for one ring: angles at the ends
# of rings are those between the outer wall and the courtyard.
# Hurt: who compares the shapes of perimeter blocks: the more courtyards, the less square the block.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check momepy==0.11.0 libpysal==4.14.1 \
  geopandas==1.2.0 shapely==2.2.0 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import geopandas as gpd
import momepy
import numpy as np
import shapely


def square(west, south, side, first=0):
    """Return the corners of a square that begin at one of them."""
    corners = [(west, south), (west + side, south), (west + side, south + side),
               (west, south + side)]
    return corners[first:] + corners[:first]


blocks = {
    "no courtyard": (square(0, 0, 10), [], 4),
    "a courtyard": (square(0, 0, 10), [square(3, 3, 4)], 8),
    "begun at another corner": (square(0, 0, 10), [square(3, 3, 4, 2)], 8),
    "two courtyards": (square(0, 0, 20), [square(3, 3, 4), square(13, 13, 4)], 12),
}
town = gpd.GeoSeries([shapely.Polygon(outer, yards) for outer, yards, _ in blocks.values()])
assert town.is_valid.all()
outer = momepy.corners(town), momepy.squareness(town)
assert outer[0].tolist() == [4] * 4 and np.allclose(outer[1], 0, atol=1e-6)
counts = momepy.corners(town, include_interiors=True)
askew = momepy.squareness(town, include_interiors=True)
for name, count, angle in zip(blocks, counts, askew):
    print(f"{name}: {blocks[name][2]} corners of 90 degrees, momepy {count}, {angle:.1f} askew")
print(counts.tolist(), askew.round(1).tolist())
assert counts.tolist() == [4, 9, 9, 14]
assert askew.round(1).tolist() == [0, 15.2, 24.8, 18.2]
PYTHON
