#!/usr/bin/env bash
# turfpy builds over the courtyard of each building that it cuts to a box.
#
# Guess before the run: bbox_clip and intersect return what shapely's intersection does, as union
# and difference of the same library do; dissolve by a property joins all features that share it,
# as in turf.
# Seen: a block of 100 units with a yard of 16 has an area of 84 by union and after a difference.
# Clipped to a box around it, or cut with a district that holds it, it has 100 and a single ring; a
# cut through the yard, which leaves no hole, is right. Four houses in a row, of the streets A, B, A
# and B, stay four features after dissolve by street; in the order A, A, B, B they become two. There
# is no message.
# Versions: turfpy 0.0.8, geojson 3.1.0, shapely 2.0.6. Source: _enforce_right_hand_rule in
# turfpy/transformation.py, which turns the outer ring of a polygon and returns it alone; dissolve
# groups features that follow each other.
# Hurt: who cuts footprints to tiles or districts with it: perimeter blocks become solid, and their
# built-up area grows with each that lies wholly inside.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check turfpy==0.0.8 geojson==3.1.0 \
  shapely==2.0.6 numpy==1.26.4 scipy==1.14.1
venv/bin/python -W ignore - <<'PYTHON'
from geojson import Feature, FeatureCollection, Polygon
from shapely.geometry import shape
from turfpy.transformation import bbox_clip, difference, dissolve, intersect, union


def ring(west, south, east, north):
    """Return the corners of a box; a unit is 1e-4 degrees."""
    return [(13 + x * 1e-4, 52 + y * 1e-4)
            for x, y in ((west, south), (east, south), (east, north), (west, north), (west, south))]


def building(*rings, **properties):
    return Feature(geometry=Polygon(list(rings)), properties=properties)


def area(feature):
    return round(shape(feature["geometry"]).area * 1e8, 3)


block = building(ring(0, 0, 10, 10), ring(3, 3, 7, 7)[::-1])
around, west, middle = (building(ring(*box))
                        for box in ((-9, -9, 19, 19), (-9, -9, 5, 19), (-9, 4, 19, 6)))
seen, right = {}, {}
for name, district in {"around": around, "west": west, "middle": middle}.items():
    seen[name] = area(intersect([block, district]))
    right[name] = round(
        shape(block["geometry"]).intersection(shape(district["geometry"])).area * 1e8, 3)
seen["bbox_clip"], right["bbox_clip"] = area(bbox_clip(block, [12.9, 51.9, 13.1, 52.1])), 84
shed = building(ring(20, 0, 24, 4))
seen["union"], right["union"] = area(union([block, shed])), 84 + 16
seen["difference"], right["difference"] = area(difference(block, shed)), 84
for name, value in seen.items():
    print(f"{name:10} area by turfpy: {value}, right: {right[name]}")
assert seen == {"around": 100, "west": 42, "middle": 12, "bbox_clip": 100, "union": 100,
                "difference": 84}

parts = {}
for order in ("ABAB", "AABB"):
    row = [building(ring(10 * place, 0, 10 * place + 9, 9), street=street)
           for place, street in enumerate(order)]
    parts[order] = len(dissolve(FeatureCollection(row), property_name="street")["features"])
    print("features of the order", order, "after dissolve:", parts[order], "right: 2")
assert parts == {"ABAB": 4, "AABB": 2}
PYTHON
