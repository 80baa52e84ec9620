#!/usr/bin/env bash
# trimesh's outline of a block from above builds over yards that meet a wall or a yard at a corner.
#
# Guess before the run: projected(mesh, (0, 0, 1)) of a block that was extruded from a valid polygon
# is that polygon, with its yards.
# Seen: a block of 40 x 30 m with a yard of 200 square metres comes back with 1,000 square metres if
# the yard stands alone; if the yard touches the outer wall with one corner it comes back with
# 1,168 and without a yard. Two yards of 100 that meet at a corner come back as one: 1,100 in place
# of 1,000 square metres. With precise=True all are right. No message.
# Versions: trimesh 5.2.0, shapely 2.1.2. Source: trimesh/path/polygons.py, projected without
# precise makes rings of the edges that occur once, and edges_to_polygons walks them vertex by
# vertex, once each: where four edges meet, one walk crosses into the other ring.
# Hurt: who takes footprints or shadows from block models: simple polygons of a cadastre often
# touch themselves at a corner, and the yards of such blocks are roofs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check trimesh==5.2.0 shapely==2.1.2 \
  mapbox_earcut==1.0.3 numpy==2.2.6 scipy==1.15.3 networkx==3.4.2 rtree==1.4.0
venv/bin/python -W error::UserWarning - <<'PYTHON'
from shapely import Polygon
from trimesh.creation import extrude_polygon
from trimesh.path.polygons import projected

walls = [(0, 0), (40, 0), (40, 30), (0, 30)]
yards = {
    "alone": [[(10, 15), (20, 5), (30, 15), (20, 25)]],
    "at the wall": [[(0, 15), (10, 5), (20, 15), (10, 25)]],
    "two": [[(5, 5), (15, 5), (15, 15), (5, 15)], [(15, 15), (25, 15), (25, 25), (15, 25)]],
}
seen = {}
for name, rings in yards.items():
    plan = Polygon(walls, rings)
    assert plan.is_valid and plan.area == 1000
    block = extrude_polygon(plan, 9)
    outline, precise = (projected(block, (0, 0, 1), precise=value) for value in (False, True))
    seen[name] = round(outline.area), len(outline.interiors)
    print(name, seen[name], "precise", round(precise.area), len(precise.interiors))
    assert round(precise.area) == 1000
assert seen == {"alone": (1000, 1), "at the wall": (1168, 0), "two": (1100, 1)}
PYTHON
