#!/usr/bin/env bash
# momepy takes houses of a row for detached ones if they stand a little forward or back.
#
# Guess before the run: perimeter_wall, the outline of a joined structure, of three houses of
# 10 x 10 m that share walls is that of their union: 80 m in line, and 88 m if the middle one stands
# 2 m back; shared_walls of the same library says that they share 8 m each.
# Seen: 80 in line, but 40 for each house, as if it stood alone, if the middle one stands back.
# Houses are taken as neighbours if they have a corner in common, not a wall, and houses without
# neighbours are measured alone. There is no warning.
# Versions: momepy 0.11.0, libpysal 4.14.1, geopandas 1.2.0, shapely 2.2.0. Source:
# momepy/functional/_dimension.py, perimeter_wall: Graph.build_contiguity(rook=False), whose
# strict=True would compare the walls; the docs offer it for "topological issues" only.
# Hurt: who tells terraces from detached houses, or estimates outer walls for heating: rows with
# any setback have a third more outer wall than there is: 120 m in place of 88.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check momepy==0.11.0 libpysal==4.14.1 \
  geopandas==1.2.0 shapely==2.2.0 numpy==2.4.6 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import geopandas
import momepy
from libpysal.graph import Graph
from shapely import box

seen = {}
for back in (0, 2):
    houses = geopandas.GeoDataFrame(
        geometry=[box(0, 0, 10, 10), box(10, back, 20, 10 + back), box(20, 0, 30, 10)], crs=32633)
    strict = Graph.build_contiguity(houses, rook=False, strict=True)
    seen[back] = [
        momepy.perimeter_wall(houses).round().tolist(),
        momepy.perimeter_wall(houses, graph=strict).round().tolist(),
        [houses.union_all().length, momepy.shared_walls(houses).tolist()],
    ]
    print("middle house", back, "m back: perimeter_wall", *seen[back][:2], "union and shared walls",
          *seen[back][2])
assert seen[0] == [[80] * 3, [80] * 3, [80, [10, 20, 10]]]
assert seen[2] == [[40] * 3, [88] * 3, [88, [8, 16, 8]]]
PYTHON
