#!/usr/bin/env bash
# trimesh writes PLY with 32 bits per coordinate: in UTM walls move, and a house grows by 3 %.
#
# Guess before the run: STL and GLB hold 32-bit numbers, as their formats say; PLY, which may hold
# 64 bits, keeps the vertices of the mesh, which trimesh holds in 64 bits.
# Seen: northings of 5,000,000 m lie on a grid of 0.5 m in the file. A house of 10.2 x 8.3 m that is
# 6 m high has its walls moved by 0.2 m, and 521.2 in place of 508.0 cubic metres, in binary PLY and
# in text alike, and the mesh is still watertight. OBJ and OFF are right to a millimetre. There is
# neither a warning nor an option.
# Versions: trimesh 5.2.0, shapely 2.1.2. Source: export_ply in trimesh/exchange/ply.py (<f4).
# Hurt: who exports block models of a town for measuring or for joining with points of a scanner:
# walls of rows no longer meet, and volumes and heated areas of single houses are off by some per
# cent.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check trimesh==5.2.0 shapely==2.1.2 mapbox_earcut==1.0.3 numpy==2.2.6
venv/bin/python -W error::UserWarning - <<'PYTHON'
import numpy as np
import shapely
import trimesh

outline = shapely.box(500_000.1, 5_000_000.2, 500_010.3, 5_000_008.5)
house = trimesh.creation.extrude_polygon(outline, 6)
seen = {}
for name, options in (
    ("house.obj", {}), ("house.off", {}), ("house.ply", {}), ("text.ply", {"encoding": "ascii"}),
):
    house.export(name, **options)
    read = trimesh.load(name, force="mesh")
    assert read.is_watertight
    moved = float(np.abs(read.bounds - house.bounds).max())
    seen[name] = round(moved, 2), round(float(read.volume), 1)
    print(name, "wall moved by", seen[name][0], "m; cubic metres:", seen[name][1])
print("the mesh has", round(house.volume, 1), "cubic metres")
assert seen["house.obj"] == seen["house.off"] == (0, 508)
assert seen["house.ply"] == seen["text.ply"] == (0.2, 521.2)
PYTHON
