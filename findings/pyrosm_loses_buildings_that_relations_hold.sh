#!/usr/bin/env bash
# pyrosm loses buildings that stand in the yard of another, and those whose parts a relation lists.
#
# Guess before the run: get_buildings has a row for each way and each relation with the key
# building: a shed that is also the inner ring of the block around it, as OpenStreetMap's page on
# multipolygons allows, and the outline of a building in 3D beside, or in place of, its relation.
# Seen: the block has its hole, and the shed is gone. Of a relation type=building that carries the
# key building, rings of outline and parts are overlaid by even and odd, as for a multipolygon: with
# one part over a quarter, three quarters of the house are left; where the parts fill the outline,
# nothing, and there is no row and no message. The outline itself, a way with building=yes, is gone
# in both. A relation without the key building changes nothing. GDAL keeps all outlines and the
# shed.
# Versions: pyrosm 0.25.0, osmium 4.3.2, pyogrio 0.13.0, geopandas 1.2.0. Source: get_way_arrays in
# pyrosm/data_manager.pyx (members of kept relations are no rows of their own) and
# _assemble_multipolygon in pyrosm/geometry.pyx, which does not ask for type or roles.
# Hurt: who takes footprints from OpenStreetMap as labels or counts them: of towns mapped in 3D the
# landmarks are missing, and so are halls in courtyards.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyrosm==0.25.0 osmium==4.3.2 pyogrio==0.13.0 \
  geopandas==1.2.0 shapely==2.1.2 numpy==2.2.6
venv/bin/python -W ignore - <<'PYTHON'
import osmium
import pyogrio
import pyrosm
from osmium.osm.mutable import Node, Relation, Way

SIDE = 1e-4
stamp = {"version": 1, "timestamp": "2020-01-01T00:00:00Z", "changeset": 1}
nodes, ways, relations = [], [], []


def outline(x, width, height, tags, inset=0):
    """Add a closed way of so many units, and return its number."""
    corners = (0, 0), (width, 0), (width, height), (0, height)
    first = len(nodes) + 1
    nodes.extend(
        Node(id=first + k, location=(10 + (x + inset + dx) * SIDE, (inset + dy) * SIDE), tags={}, **stamp)
        for k, (dx, dy) in enumerate(corners)
    )
    refs = [*range(first, first + 4), first]
    ways.append(Way(id=len(ways) + 1, nodes=refs, tags=tags, **stamp))
    return len(ways)


def relation(tags, *members):
    named = [("w", number, role) for number, role in members]
    relations.append(Relation(id=len(relations) + 1, members=named, tags=tags, **stamp))


part = {"building:part": "yes"}
outline(0, 10, 10, {"building": "yes", "name": "house"})
relation({"type": "multipolygon", "building": "yes", "name": "block"},
         (outline(20, 12, 12, {}), "outer"),
         (outline(20, 8, 8, {"building": "shed", "name": "shed"}, inset=2), "inner"))
relation({"type": "building", "building": "yes", "name": "tower"},
         (outline(40, 10, 10, {"building": "yes", "name": "tower"}), "outline"),
         (outline(40, 5, 5, part), "part"))
relation({"type": "building", "building": "yes", "name": "church"},
         (outline(60, 10, 10, {"building": "yes", "name": "church"}), "outline"),
         (outline(60, 5, 10, part), "part"), (outline(65, 5, 10, part), "part"))
relation({"type": "building"},
         (outline(80, 10, 10, {"building": "yes", "name": "school"}), "outline"),
         (outline(80, 5, 10, part), "part"), (outline(85, 5, 10, part), "part"))
with osmium.SimpleWriter("town.osm.pbf") as writer:
    for add, things in ((writer.add_node, nodes), (writer.add_way, ways), (writer.add_relation, relations)):
        for thing in things:
            add(thing)

tables = {"GDAL": pyogrio.read_dataframe("town.osm.pbf", layer="multipolygons"),
          "pyrosm": pyrosm.OSM("town.osm.pbf").get_buildings()}
areas = {}
for tool, table in tables.items():
    table = table[table["building"].notna()]
    areas[tool] = dict(zip(table["name"], (table.area / SIDE**2).round(2), strict=True))
    print(tool, areas[tool])
whole = {"house": 100, "block": 80, "shed": 64, "tower": 100, "church": 100, "school": 100}
assert areas["GDAL"] == whole
assert areas["pyrosm"] == {"house": 100, "block": 80, "tower": 75, "school": 100}
PYTHON
