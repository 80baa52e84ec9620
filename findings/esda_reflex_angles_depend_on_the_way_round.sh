#!/usr/bin/env bash
# esda says that all corners of a house are reflex, or none, by the way its outline runs.
#
# Guess before the run: reflexive_angle_ratio is what its documentation says, (N - R) / (N + R) of
# N corners that are not reflex and R that are, and says nothing of the direction of rings: 1 for a
# house of four corners, 2/3 for an L, and 0 or 1 for a square block with a square yard.
# Seen: a house is 1 anticlockwise and 0 clockwise, an L 5/6 and 1/6: the share of negative angles is
# returned, and which angles are negative depends on the direction. GeoJSON and shapefiles, whose
# rings run in opposite directions, are at the two ends of the scale. A block with a yard is 2/3 and
# 1/3: it has nine angles, since wall and yard are taken as one line. There is no message.
# Versions: esda 2.9.0, shapely 2.2.0, numpy 2.3.5. Source: esda/shape.py, reflexive_angle_ratio:
# is_reflex=angles < 0 and its mean; get_angles takes the rings as they come, and one closing point
# off for each polygon, not for each ring.
# Hurt: who sorts footprints by their shape, or compares predictions with a register: a file whose
# rings run the other way has another town.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check esda==2.9.0 shapely==2.2.0 \
  geopandas==1.2.0 libpysal==4.14.1 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
from esda.shape import get_angles, reflexive_angle_ratio
from shapely import Polygon, orient_polygons

town = [
    Polygon([(0, 0), (12, 0), (12, 10), (0, 10)]),
    Polygon([(0, 0), (12, 0), (12, 5), (5, 5), (5, 10), (0, 10)]),
    Polygon([(0, 0), (30, 0), (30, 30), (0, 30)], [[(10, 10), (10, 20), (20, 20), (20, 10)]]),
]
seen = {}
for clockwise in (False, True):
    shapes = orient_polygons(town, exterior_cw=clockwise)
    seen[clockwise] = [round(float(ratio), 3) for ratio in reflexive_angle_ratio(shapes)]
    print("clockwise" if clockwise else "anticlockwise", "house, L and block:", seen[clockwise])
print("angles of the block:", len(get_angles(town[2:])))
assert seen == {False: [1, 0.833, 0.667], True: [0, 0.167, 0.333]}
assert len(get_angles(town[2:])) == 9
PYTHON
