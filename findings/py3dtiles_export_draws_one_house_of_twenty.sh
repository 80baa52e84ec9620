#!/usr/bin/env bash
# py3dtiles export draws one house in each tile, and boxes of tiles hold the northern walls only.
#
# Guess before the run: of three houses the tile has three, each with the triangles that it has when
# it is exported alone, a normal for each corner, and a box that holds them all.
# Seen: the corners of the three are in the tile, but all triangles are on those of the first: the
# same 12 are there three times, and the other two houses cannot be seen. There are 108 normals for
# 24 corners. The box of the tile reaches from west to east and from the ground to the roof; from
# south to north it reaches over the northern walls only, 4 m of 10, and 0 m of a house that is
# alone. There is no message, and up to 20 houses share a tile. One house alone is drawn rightly.
# Versions: py3dtiles 12.1.1 (the latest), shapely 2.1.2, numpy 2.3.5. Source: py3dtiles/export.py,
# arrays2tileset joins the corners of the houses and the indices as they stand, each from 0; normals
# are one for each corner of a triangle, corners are unique; -tmp[2] stands in both ends of the box.
# The same code serves tables of PostGIS (-D).
# Hurt: who brings modelled buildings from well-known binary to a browser: of a town one house in
# twenty is there, and a viewer leaves tiles out whose flat box is not in sight.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check py3dtiles==12.1.1 shapely==2.1.2 \
  numpy==2.3.5 mapbox_earcut==1.0.3 pygltflib==1.16.5
cat > houses.py <<'PYTHON'
import json
import subprocess
from pathlib import Path

import numpy
from py3dtiles.tileset.content import read_binary_tile_content
from shapely import MultiPolygon, Polygon, to_wkb


def house(west, south, east, north, height):
    """Return the six faces of a house, with y up as glTF and thus this export have it."""
    corners = [(west, south), (east, south), (east, north), (west, north)]
    low, high = ([(x, z, -y) for x, y in corners] for z in (0, height))
    walls = [[low[i], low[i - 3], high[i - 3], high[i]] for i in range(4)]
    return MultiPolygon([Polygon(face) for face in [high, low[::-1], *walls]])


def exported(houses, name):
    """Return the corners, triangles and number of normals in the tile, and the box of the set."""
    Path(name).mkdir()
    for number, one in enumerate(houses):
        Path(name, f"{number}.wkb").write_bytes(to_wkb(one, flavor="iso"))
    command = ["venv/bin/py3dtiles", "export", "-d", name, "-s", f"{name}.tiles"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stderr == "" and "warn" not in done.stdout.lower()
    (tile,) = Path(f"{name}.tiles", "tiles").glob("*.b3dm")
    model = read_binary_tile_content(tile).body.gltf
    (part,) = model.meshes[0].primitives

    def values(number):
        accessor = model.accessors[number]
        view = model.bufferViews[accessor.bufferView]
        data = model.binary_blob()[view.byteOffset:view.byteOffset + view.byteLength]
        kind = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}[accessor.componentType]
        return numpy.frombuffer(data, kind).reshape(-1, 3)

    corners, triangles = values(part.attributes.POSITION), values(part.indices)
    box = json.loads(Path(f"{name}.tiles", "tileset.json").read_text())["root"]["boundingVolume"]
    return corners, triangles, len(values(part.attributes.NORMAL)), box["box"]


town = [house(0, 0, 10, 8, 5), house(20, 0, 30, 10, 12), house(40, 0, 46, 6, 30)]
corners, triangles, normals, box = exported(town, "town")
drawn = corners[triangles]
print("corners", len(corners), "triangles", len(triangles), "normals", normals, "box", box)
print("widths", numpy.ptp(corners[:, 0]), numpy.ptp(drawn[..., 0]))
assert len(corners) == 24 and len(triangles) == 36 and normals == 108
assert corners[:, 0].min() == 0 and corners[:, 0].max() == 46
assert triangles.max() == 7 and (triangles[:12] == triangles[12:24]).all()
assert numpy.ptp(drawn[..., 0]) in (10, 6)
assert box == [23, 8, 15, 23, 0, 0, 0, 2, 0, 0, 0, 15] and numpy.ptp(corners[:, 2]) == 10
for one in town:
    corners, triangles, normals, box = exported([one], f"alone{one.bounds[0]}")
    drawn = corners[triangles]
    print("alone: from", drawn[..., 0].min(), "to", drawn[..., 0].max(), "depth", box[7])
    assert (drawn[..., 0].min(), drawn[..., 0].max()) == (one.bounds[0], one.bounds[2])
    assert box[7] == 0 and normals == 36 and len(corners) == 8
PYTHON
venv/bin/python houses.py
