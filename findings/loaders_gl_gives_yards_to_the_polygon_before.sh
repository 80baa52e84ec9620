#!/usr/bin/env bash
# loaders.gl reads a Shapefile and gives a yard to the polygon before it, or drops it.
#
# Guess before the run: of the rings of a shape, those that run counter-clockwise are holes and
# belong to the clockwise ring about them; their order is "not significant", as Esri's description
# says.
# Seen: of a block of 20 x 20 m with a yard of 10 x 10 and a house of 10 x 10 m beside it, 400
# square metres are right where the yard follows its block. After the house, the yard is a hole of
# the house, 15 m beside it; the block is solid, and the house has no area. Before the block, the
# yard is gone and the areas are 400 and 100. GDAL, pyshp, shpjs and shapefile read all three files
# alike. No message.
# Versions: @loaders.gl/shapefile, gis and core 4.5.2 (npm), pyshp 3.1.6, shapely 2.1.2. Source:
# parseShpGeometry of @loaders.gl/shapefile and convertBinaryGeometryToGeometry of @loaders.gl/gis:
# a polygon begins at each clockwise ring, and what follows belongs to it.
# Hurt: who shows or measures footprints with deck.gl or loaders.gl: which courtyards are open
# depends on the program that wrote the file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyshp==3.1.6 shapely==2.1.2 numpy==2.4.6
npm install --silent --no-fund --no-audit @loaders.gl/core@4.5.2 @loaders.gl/shapefile@4.5.2 \
  @loaders.gl/gis@4.5.2
cat > write.py <<'PYTHON'
import shapefile
import shapely


def ring(west, south, size):
    """Return a square, clockwise, in UTM."""
    box = shapely.box(500_000 + west, 5_500_000 + south, 500_000 + west + size,
                      5_500_000 + south + size)
    return list(box.exterior.coords) if not box.exterior.is_ccw else list(box.exterior.coords)[::-1]


block, yard, house = ring(0, 0, 20), ring(5, 5, 10)[::-1], ring(30, 0, 10)
with shapefile.Writer("town", shapeType=shapefile.POLYGON) as writer:
    writer.field("order", "C", 40)
    for name, rings in {"block, yard, house": (block, yard, house),
                        "block, house, yard": (block, house, yard),
                        "yard, block, house": (yard, block, house)}.items():
        writer.poly(rings)
        writer.record(name)
PYTHON
venv/bin/python write.py
cat > read.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import { parse } from "@loaders.gl/core";
import { convertBinaryGeometryToGeometry } from "@loaders.gl/gis";
import { SHPLoader } from "@loaders.gl/shapefile";

const bytes = fs.readFileSync("town.shp");
const data = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
const read = await parse(data, SHPLoader, { worker: false });
console.log(JSON.stringify(read.geometries.map((each) => convertBinaryGeometryToGeometry(each))));
JAVASCRIPT
node read.mjs > read.json
venv/bin/python - <<'PYTHON'
import json

import shapefile
from shapely.geometry import shape

seen = {}
with shapefile.Reader("town") as reader, open("read.json") as file:
    for record, geometry in zip(reader.shapeRecords(), json.load(file)):
        parts = shape(geometry).geoms
        valid = shape(record.shape.__geo_interface__)
        seen[record.record[0]] = [part.area for part in parts]
        holes = [len(part.interiors) for part in parts]
        print(f"{record.record[0]:20} areas: {seen[record.record[0]]} holes: {holes}")
        assert valid.is_valid and valid.area == 400
assert seen == {"block, yard, house": [300, 100], "block, house, yard": [400, 0],
                "yard, block, house": [400, 100]}
PYTHON
