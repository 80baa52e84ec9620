#!/usr/bin/env bash
# turf's repair of outlines turns courtyards into buildings, and its check of validity passes bow ties.
#
# Guess before the run: unkinkPolygon returns a polygon that has no kink as it was, courtyards
# included; booleanValid, "valid according to the OGC Simple Feature Specification", is false for an
# outline that crosses itself and for a hole that lies outside.
# Seen: a valid block of 10 x 10 with a yard of 4 x 4 becomes two buildings, the block without the
# yard and the yard: 116 square units in place of 84. booleanValid is true for a bow tie, for a yard
# beside its house and for two yards that overlap, so it does not show which outlines need repair.
# Versions: @turf/turf 7.4.0 (npm), shapely 2.1.2. Source: packages/turf-unkink-polygon/index.ts makes
# a polygon of each ring that simplepolygon returns, and drops its parent and winding;
# turf-boolean-valid/index.ts compares rings of a Polygon for common points and no edges.
# Hurt: who cleans drawn or segmented outlines in the browser: built-up area grows by each courtyard
# twice, and broken outlines go on to the database.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check shapely==2.1.2 numpy==2.2.6
npm install --silent --no-fund --no-audit @turf/turf@7.4.0
cat > repair.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import * as turf from "@turf/turf";

const square = (west, south, side) => [
  [west, south], [west + side, south], [west + side, south + side], [west, south + side],
  [west, south],
];
const house = square(0, 0, 10);
const outlines = {
  block: [house, square(3, 3, 4).reverse()],
  "bow tie": [[[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]],
  "yard outside": [house, square(20, 20, 4).reverse()],
  "yards overlap": [house, square(2, 2, 4).reverse(), square(4, 4, 4).reverse()],
};
const seen = Object.entries(outlines).map(([name, rings]) => ({
  name, rings, valid: turf.booleanValid(turf.polygon(rings)),
  repaired: turf.unkinkPolygon(turf.polygon(outlines.block)).features.map((part) =>
    part.geometry.coordinates),
}));
fs.writeFileSync("seen.json", JSON.stringify(seen));
JAVASCRIPT
node repair.mjs
venv/bin/python - <<'PYTHON'
import json
import shapely

for row in json.load(open("seen.json")):
    outline = shapely.Polygon(row["rings"][0], row["rings"][1:])
    print(f"{row['name']:13} valid by turf and by shapely: {row['valid']} {outline.is_valid}")
    assert row["valid"] and outline.is_valid == (row["name"] == "block")
    if row["name"] == "block":
        parts = [shapely.Polygon(rings[0], rings[1:]).area for rings in row["repaired"]]
        print("areas after unkinkPolygon:", parts, "before:", outline.area)
        assert sorted(parts) == [16, 100] and outline.area == 84
PYTHON
