#!/usr/bin/env bash
# trimesh's section through a row of houses is the whole row, once for each house.
#
# Guess before the run: a section of a mesh of three watertight houses of 100, 120 and 140 m2 has an
# area of 360 m2 at each height below the eaves, whether they stand apart or wall to wall.
# Seen: apart it is 360, in three polygons of their own. Wall to wall, each deeper than the one
# before, polygons_full has three polygons of 360, and area is 1080. Two equal houses of 100 that
# share a wall are one polygon of 150, and houses of 100 and 400 that touch at a corner are 1039.
# Shifted along their wall by 3 m two houses are right again. Volume and projected area of the
# same meshes are right. There is no message.
# Versions: trimesh 5.2.0, shapely 2.1.2, networkx 3.6.1. Source: closed_paths in trimesh/path/
# traversal.py takes a cycle basis of the graph of vertices, which the cut merges: at a corner of two
# houses there are more than two ways on, and a shared wall is one edge.
# Hurt: who takes floor areas or footprints from block models of a town, which is rows of houses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check trimesh==5.2.0 shapely==2.1.2 \
  numpy==2.4.6 scipy==1.17.1 networkx==3.6.1 rtree==1.4.1 mapbox_earcut==2.1.0
venv/bin/python -W ignore - <<'PYTHON'
import shapely
import trimesh
from trimesh.path.polygons import projected

towns = {
    "apart": [shapely.box(20 * i, 0, 20 * i + 10, 10 + 2 * i) for i in range(3)],
    "wall to wall": [shapely.box(10 * i, 0, 10 * i + 10, 10 + 2 * i) for i in range(3)],
    "two equal": [shapely.box(0, 0, 10, 10), shapely.box(10, 0, 20, 10)],
    "two shifted": [shapely.box(0, 0, 10, 10), shapely.box(10, 3, 20, 13)],
    "at a corner": [shapely.box(0, 0, 10, 10), shapely.box(10, 10, 30, 30)],
}
seen = {}
for name, houses in towns.items():
    mesh = trimesh.util.concatenate(
        [trimesh.creation.extrude_polygon(house, 6) for house in houses]
    )
    true = sum(house.area for house in houses)
    assert mesh.is_watertight and round(mesh.volume, 6) == 6 * true
    assert round(projected(mesh, [0, 0, 1]).area, 3) == true
    cut, _ = mesh.section(plane_normal=[0, 0, 1], plane_origin=[0, 0, 2]).to_2D()
    seen[name] = [round(polygon.area, 1) for polygon in cut.polygons_full], round(cut.area, 1)
    print(f"{name}: {true} m2, section {seen[name]}")
assert sorted(seen["apart"][0]) == [100, 120, 140] and seen["apart"][1] == 360
assert seen["wall to wall"] == ([360] * 3, 1080)
assert seen["two equal"] == ([150], 150)
assert seen["two shifted"] == ([100, 100], 200)
assert seen["at a corner"][1] > 1000
PYTHON
