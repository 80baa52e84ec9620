#!/usr/bin/env bash
# trimesh's principal axes of a house in UTM put it 3,000 km from where they say that it is.
#
# Guess before the run: second_moments(return_centered=True) returns a matrix that moves the centre
# of a polygon to (0, 0) and turns its longer side along an axis, wherever the polygon is.
# Seen: a house of 20 x 10 m, turned by 30 degrees, has the right moments and the right angle in any
# place. With the matrix its centre comes to (3.8, -4.3) if a corner of it is at (0, 0), to (15.4,
# -61.0) if that is at (100, 50), and in UTM to (2833017, -1027057), in place of (0, 0).
# polygon_obb, for the box of least area, returns a matrix that gives (0, 0). No message.
# Versions: trimesh 5.2.0, shapely 2.1.2. Source: second_moments in trimesh/path/polygons.py keeps
# the move to the centroid in the matrix and puts the turn beside it, so that it turns first, about
# the origin of the CRS, and moves then. Pull request 1833, which added it, means the move first.
# Hurt: who lays outlines over each other by their axes, measures along them, or puts a plan into
# the frame of its house: in a local frame by some metres, where it is hard to see.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check trimesh==5.2.0 shapely==2.1.2 \
  numpy==2.2.6 scipy==1.15.3 networkx==3.4.2 rtree==1.4.0
venv/bin/python -W error::UserWarning - <<'PYTHON'
import numpy as np
from shapely import affinity, box
from trimesh.path.polygons import polygon_obb, second_moments, transform_polygon

house = affinity.rotate(box(0, 0, 20, 10), 30, origin=(0, 0))
seen = []
for corner in ((0, 0), (100, 50), (500_000, 5_800_000)):
    moved = affinity.translate(house, *corner)
    _, (largest, least), angle, matrix = second_moments(moved, return_centered=True)
    assert np.allclose([largest, least], [20**3 * 10 / 12, 10**3 * 20 / 12], rtol=1e-6)
    assert np.isclose(np.degrees(angle), -30, atol=1e-3)
    centre = transform_polygon(moved, matrix).centroid
    boxed = transform_polygon(moved, polygon_obb(moved)[0]).centroid
    seen.append((round(centre.x, 1), round(centre.y, 1)))
    print("corner at", corner, "centre by axes", seen[-1])
    assert np.allclose([boxed.x, boxed.y], 0, atol=1e-6)
assert seen[:2] == [(3.8, -4.3), (15.4, -61.0)]
assert np.allclose(seen[2], (2_833_016.5, -1_027_057.0), atol=1)
PYTHON
