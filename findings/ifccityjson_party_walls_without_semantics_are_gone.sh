#!/usr/bin/env bash
# ifccityjson leaves out the faces of a building that have no semantics once another face has some.
#
# Guess before the run: a face whose semantics are null, as CityJSON asks for where a face has none,
# stays in the IFC file as a part of its building, if not as a wall.
# Seen: a house of 10 by 8 by 5 m is a MultiSurface of six faces. Without semantics IFC has all six,
# 340 m2. With ground, roof and the two walls to the street named and null for the two party walls,
# it has a slab, a roof and a wall with two faces: four faces, 260 m2, and the house is open on both
# sides. Named alone, the roof is all that is left of the house, 80 m2, beside a slab and a wall
# without a shape. There is no message.
# Versions: ifccityjson 0.9.0 (the latest), ifcopenshell 0.9.0.post1, cjio 0.9.0. Source:
# ifccityjson/cityjson2ifc/cityjson2ifc.py, create_IFC_classes: "if geometry.surfaces" makes one
# element of each kind of surface, and "elif geometry" alone takes the faces of the boundaries.
# CityJSON 1.1, semantics of geometric primitives: "If one surface has no semantics, a value of
# null must be used".
# Hurt: who brings a town to IFC: rows of houses have holes, and areas of envelopes are too small.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ifccityjson==0.9.0 cjio==0.9.0 \
  ifcopenshell==0.9.0.post1
cat > town.py <<'PYTHON'
import json
import subprocess
import sys
from math import dist
from pathlib import Path

import ifcopenshell

CORNERS = [[0, 0], [10, 0], [10, 8], [0, 8]]
FACES = [
    [[0, 3, 2, 1]], [[4, 5, 6, 7]], [[0, 1, 5, 4]], [[2, 3, 7, 6]], [[1, 2, 6, 5]], [[3, 0, 4, 7]]
]
KINDS = [{"type": "GroundSurface"}, {"type": "RoofSurface"}, {"type": "WallSurface"}]


def convert(name, values=None):
    """Return faces and area of the IFC file of a house whose faces have these semantics."""
    geometry = {"type": "MultiSurface", "lod": "2", "boundaries": FACES}
    if values:
        geometry["semantics"] = {"surfaces": KINDS, "values": values}
    model = {
        "type": "CityJSON",
        "version": "1.1",
        "transform": {"scale": [1, 1, 1], "translate": [0, 0, 0]},
        "CityObjects": {"house": {"type": "Building", "geometry": [geometry]}},
        "vertices": [[*corner, height] for height in (0, 5) for corner in CORNERS],
    }
    Path(f"{name}.json").write_text(json.dumps(model))
    command = [sys.executable, "-m", "ifccityjson", "-i", f"{name}.json", "-o", f"{name}.ifc"]
    done = subprocess.run([*command, "--no-split-lod"], check=True, capture_output=True, text=True)
    assert done.stdout == "" and "Warning" not in done.stderr.replace("DeprecationWarning", "")
    file = ifcopenshell.open(f"{name}.ifc")
    area = 0
    for loop in file.by_type("IfcPolyLoop"):
        first, second, third, _ = [point.Coordinates for point in loop.Polygon]
        area += dist(first, second) * dist(second, third)
    parts = [part.is_a() for part in file.by_type("IfcBuildingElement")]
    return len(file.by_type("IfcFace")), area, sorted(parts)


bare = convert("bare")
party = convert("party", [0, 1, 2, 2, None, None])
roof = convert("roof", [None, 1, None, None, None, None])
print("no semantics", bare, "null for party walls", party, "null for all but the roof", roof)
assert bare[:2] == (6, 340) and party[:2] == (4, 260) and roof[:2] == (1, 80)
PYTHON
venv/bin/python town.py
