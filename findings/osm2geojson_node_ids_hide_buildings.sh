#!/usr/bin/env bash
# osm2geojson drops a building whose number is that of a node of another object.
#
# Guess before the run: nodes, ways and relations of OpenStreetMap are numbered apart, so a
# multipolygon with the number 3 is converted, whatever node 3 is.
# Seen: no feature at all, and no message, because the nodes of the ways are "used", and what is used
# is looked up by number alone. With the number 900 the same relation gives its polygon with a hole. A
# tagged way vanishes in the same way.
# Version: osm2geojson 0.3.2. Source: osm2geojson/main.py, _json2shapes: used = {ref["id"]: ...}.
# Hurt: who converts extracts that were numbered anew, such as by osmium renumber, where numbers of
# each kind begin at 1: most buildings are lost. In extracts with real numbers it is a rare one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check osm2geojson==0.3.2
venv/bin/python - <<'PYTHON'
from osm2geojson import json2geojson

rings = [(0, 0), (40, 0), (40, 40), (0, 40), (10, 10), (30, 10), (30, 30), (10, 30)]
nodes = [
    {"type": "node", "id": number, "lon": 10 + x * 1e-5, "lat": 20 + y * 1e-5}
    for number, (x, y) in enumerate(rings, start=1)
]
ways = [
    {"type": "way", "id": 101, "nodes": [1, 2, 3, 4, 1]},
    {"type": "way", "id": 102, "nodes": [5, 6, 7, 8, 5]},
]
seen = {}
for number in (900, 3):
    members = [{"type": "way", "ref": 101, "role": "outer"},
               {"type": "way", "ref": 102, "role": "inner"}]
    tags = {"type": "multipolygon", "building": "yes"}
    relation = {"type": "relation", "id": number, "tags": tags, "members": members}
    features = json2geojson({"elements": [*nodes, *ways, relation]})["features"]
    seen["relation", number] = [len(f["geometry"]["coordinates"][0]) for f in features]
    way = {"type": "way", "id": number, "nodes": [1, 2, 3, 4, 1], "tags": {"building": "yes"}}
    features = json2geojson({"elements": [*nodes[:4], way]})["features"]
    seen["way", number] = len(features)
print("rings or features by number:", seen)
assert seen == {("relation", 900): [2], ("way", 900): 1, ("relation", 3): [], ("way", 3): 0}
PYTHON
