#!/usr/bin/env bash
# shapefile for JavaScript gives the yard of a building in a courtyard to the outer block.
#
# Guess before the run: a hole belongs to the innermost clockwise ring that contains it, as in GDAL:
# of a block, its courtyard, a building in the courtyard and that building's own yard, the last one
# is a hole of the building.
# Seen: the block has both holes, one in the other, and the building none: its yard of 10 x 10 m is
# roof, whichever is drawn or asked for a point. The block is no valid polygon. The areas of all
# rings add up to the right 1000 square metres all the same. There is no message.
# Versions: shapefile 0.6.6 (npm), pyshp 3.1.6, shapely 2.1.2. Source: shapefile/shp/polygon.js:
# each hole goes to the first ring of which it is inside, in the order of the file.
# Hurt: who shows footprints of dense old towns in the browser, or converts them with shp2json, its
# command: inner yards are paved, and other tools refuse the polygon.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyshp==3.1.6 shapely==2.1.2 numpy==2.4.6
npm install --silent --no-fund --no-audit shapefile@0.6.6
cat > write.py <<'PYTHON'
import shapefile
import shapely

west, south = 500_000, 5_500_000
squares = [shapely.box(west + edge, south + edge, west + 40 - edge, south + 40 - edge)
           for edge in (0, 5, 10, 15)]
rings = [list(shapely.orient_polygons(square, exterior_cw=place % 2 == 0).exterior.coords)
         for place, square in enumerate(squares)]
with shapefile.Writer("town", shapeType=shapefile.POLYGON) as writer:
    writer.field("name", "C", 10)
    writer.poly(rings)
    writer.record("block")
PYTHON
venv/bin/python write.py
npx shp2json town.shp > town.json
venv/bin/python - <<'PYTHON'
import json

import shapefile
from shapely.geometry import Point, shape

yard = Point(500_020, 5_500_020)
with shapefile.Reader("town") as reader:
    right = shape(reader.shape(0).__geo_interface__)
with open("town.json") as file:
    read = shape(json.load(file)["features"][0]["geometry"])
for name, geometry in {"pyshp": right, "shapefile": read}.items():
    holes = [len(part.interiors) for part in geometry.geoms]
    print(f"{name:9} holes of the parts: {holes} valid: {geometry.is_valid} area: {geometry.area}",
          "yard in a part:", any(part.contains(yard) for part in geometry.geoms))
assert right.is_valid and right.area == read.area == 1000
assert sorted(len(part.interiors) for part in right.geoms) == [1, 1]
assert [len(part.interiors) for part in read.geoms] == [2, 0] and not read.is_valid
assert read.geoms[1].contains(yard) and not right.contains(yard)
PYTHON
