#!/usr/bin/env bash
# momepy counts the jump from the outer wall to a courtyard as a corner and as a crooked angle.
#
# Guess before the run: with include_interiors=True a square block with one square yard has 8
# corners, with two yards 12 and with three 16; its squareness, the mean deviation of its corners
# from right angles, is 0 with or without yards.
# Seen: 9, 14 and 19 corners, and a squareness of 11.8, 21.3 and 18.0 degrees: the corners of all
# rings are taken as one line, which runs from wall to wall and back. Without yards, and with
# include_interiors=False, the numbers are right.
# Versions: momepy 0.11.0, geopandas 1.2.0, shapely 2.2.0. Source: momepy/functional/_shape.py,
# corners and squareness take get_coordinates of the whole polygon.
# Hurt: who classifies buildings by shape: blocks with courtyards, all of whose angles are right,
# look less square the more yards they have.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check momepy==0.11.0 geopandas==1.2.0 \
  shapely==2.2.0 numpy==2.4.6 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import geopandas
import momepy
from shapely import Polygon, box

yards = [box(5, 5, 15, 15), box(25, 25, 35, 35), box(5, 25, 15, 35)]
blocks = geopandas.GeoSeries(
    [Polygon(box(0, 0, 40, 40).exterior, [yard.exterior for yard in yards[:count]])
     for count in range(4)], crs=32633)
assert blocks.is_valid.all()
seen = {}
for include in (False, True):
    corners = momepy.corners(blocks, include_interiors=include).tolist()
    angles = momepy.squareness(blocks, include_interiors=include).round(1).tolist()
    seen[include] = corners, angles
    print("0 to 3 yards, include_interiors", include, "corners", corners, "squareness", angles)
assert seen[False] == ([4, 4, 4, 4], [0, 0, 0, 0])
assert seen[True] == ([4, 9, 14, 19], [0, 11.8, 21.3, 18.0])
PYTHON
