#!/usr/bin/env bash
# OSMnx paves courtyards whose role is empty, and leaves out buildings whose outer wall has none.
#
# Guess before the run: features_from_xml makes the same polygon of a multipolygon relation whether
# its members have the roles outer and inner or none: rings in rings are holes, as for GDAL, osmium
# and JOSM, since roles are hints that many relations lack.
# Seen: of a block of 20 x 20 m with a courtyard of 10 x 10 m, 300 m2, OSMnx makes 400 m2 if only
# the courtyard has no role, and no building at all if the outer wall has none or neither has one;
# of two wings it keeps the one with a role, 400 m2 of 500. GDAL reads 300 and 500 in each case.
# There is no message: neither row nor warning, unless logging is switched on, and not there either.
# Versions: osmnx 2.1.1 (the latest), pyogrio 0.11.1 with GDAL 3.10.3, geopandas 1.1.2, shapely
# 2.1.2. Source: osmnx/features.py, _build_relation_geometry: members whose role is neither outer
# nor inner are passed over, and _filter_features drops the empty polygon.
# Hurt: who takes labels or references from OpenStreetMap: perimeter blocks are solid or missing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check osmnx==2.1.1 geopandas==1.1.2 \
  shapely==2.1.2 pandas==2.3.3 numpy==2.2.6 pyogrio==0.11.1 networkx==3.4.2 2> pip.log
venv/bin/python -W ignore - <<'PYTHON'
import geopandas as gpd
import osmnx

METRE = 1e-5


def square(west, south, side):
    """Return the corners of a square in units of a hundred thousandth of a degree."""
    return [(west, south), (west + side, south), (west + side, south + side), (west, south + side)]


def write(rings, roles):
    """Write a building as a relation of closed ways, beside a tree and a house that is one way."""
    nodes, ways, members = [], [], []
    for number, ring in enumerate([*rings, square(100, 0, 5)]):
        ids = range(10 * number + 1, 10 * number + 5)
        for node, (x, y) in zip(ids, ring):
            nodes.append(f'<node id="{node}" lon="{13 + x * METRE:.7f}" lat="{y * METRE:.7f}"/>')
        tag = '<tag k="building" v="yes"/>' if number == len(rings) else ""
        path = "".join(f'<nd ref="{node}"/>' for node in [*ids, ids[0]])
        ways.append(f'<way id="{number + 1}">{path}{tag}</way>')
        if number < len(rings):
            members.append(f'<member type="way" ref="{number + 1}" role="{roles[number]}"/>')
    tags = '<tag k="type" v="multipolygon"/><tag k="building" v="yes"/>'
    with open("town.osm", "w") as file:
        file.write('<osm version="0.6">' + "".join(nodes + ways)
                   + '<relation id="1">' + "".join(members) + tags + "</relation></osm>")


block = [square(0, 0, 20), square(5, 5, 10)]
wings = [square(0, 0, 20), square(30, 0, 10)]
for name, rings, roles, right, seen in (
    ("both roles", block, ["outer", "inner"], 300, 300),
    ("courtyard without a role", block, ["outer", ""], 300, 400),
    ("outer wall without a role", block, ["", "inner"], 300, 0),
    ("no roles", block, ["", ""], 300, 0),
    ("two wings, one with a role", wings, ["outer", ""], 500, 400),
):
    write(rings, roles)
    table = osmnx.features_from_xml("town.osm", tags={"building": True})
    assert ("way", len(rings) + 1) in table.index
    relations = table[table.index.get_level_values("element") == "relation"]
    area = round(float(relations.geometry.area.sum()) / METRE**2)
    layer = gpd.read_file("town.osm", layer="multipolygons")
    gdal = round(float(layer[layer["osm_id"] == "1"].geometry.area.sum()) / METRE**2)
    print(f"{name}: GDAL {gdal} m2, OSMnx {area} m2 in {len(relations)} rows")
    assert (gdal, area) == (right, seen)
PYTHON
