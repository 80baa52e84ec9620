#!/usr/bin/env bash
# turf says that houses with a common wall overlap, and that they touch or not by their order.
#
# Guess before the run: booleanOverlap, booleanTouches and booleanContains answer as the same
# relations of shapely and PostGIS, which their documentation words alike: houses that share a wall
# touch, in either order, and do not overlap; houses that overlap do not touch.
# Seen: each two neighbours of a row overlap, as do houses that meet in a corner. A house touches its
# narrower annex not at all, and the annex touches the house. Two wings that share 16 square metres
# and a corner touch. A hall that fills the yard of a block and reaches into its wings is contained
# in the block and does not overlap it. There is no message.
# Versions: @turf/turf 7.4.0 (npm), shapely 2.1.2. Source: packages/turf-boolean-overlap/index.ts takes
# two edges that meet, and nothing else, for an overlap; turf-boolean-touches/index.ts looks for
# vertices of the first geometry on the outline of the second; turf-boolean-contains/index.ts asks
# for points of the outline of the second alone.
# Hurt: who looks for double buildings or counts party walls in the browser: every terrace is full
# of overlaps, and the number of neighbours depends on the order of the file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check shapely==2.1.2 numpy==2.2.6
npm install --silent --no-fund --no-audit @turf/turf@7.4.0
cat > relations.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import * as turf from "@turf/turf";

const box = (west, south, east, north) =>
  [[west, south], [east, south], [east, north], [west, north], [west, south]];
const polygon = (...rings) => turf.polygon(rings).geometry;
const pairs = {
  neighbours: [polygon(box(0, 0, 4, 4)), polygon(box(4, 0, 8, 4))],
  corner: [polygon(box(0, 0, 4, 4)), polygon(box(4, 4, 8, 8))],
  annex: [polygon(box(0, 0, 4, 4)), polygon(box(4, 1, 6, 3))],
  wings: [polygon(box(0, 0, 10, 4)), polygon(box(0, 0, 4, 10))],
  hall: [polygon(box(0, 0, 10, 10), box(3, 3, 7, 7).reverse()), polygon(box(2, 2, 8, 8))],
};
const relations = {
  overlaps: turf.booleanOverlap, touches: turf.booleanTouches, contains: turf.booleanContains,
};
const seen = Object.entries(pairs).flatMap(([name, [one, other]]) =>
  Object.entries(relations).map(([relation, test]) =>
    ({ name, one, other, relation, turf: [test(one, other), test(other, one)] })));
fs.writeFileSync("seen.json", JSON.stringify(seen));
JAVASCRIPT
node relations.mjs
venv/bin/python - <<'PYTHON'
import json
import shapely

different = {}
for row in json.load(open("seen.json")):
    one, other = (shapely.from_geojson(json.dumps(row[key])) for key in ("one", "other"))
    test = getattr(shapely, row["relation"])
    right = [bool(test(one, other)), bool(test(other, one))]
    if row["turf"] != right:
        different[row["name"], row["relation"]] = row["turf"]
        print(row["name"], row["relation"], "in both orders, turf:", row["turf"], "shapely:", right)
assert different == {
    ("neighbours", "overlaps"): [True, True],
    ("corner", "overlaps"): [True, True],
    ("annex", "overlaps"): [True, True],
    ("annex", "touches"): [False, True],
    ("wings", "touches"): [True, True],
    ("hall", "overlaps"): [False, False],
    ("hall", "contains"): [True, False],
}
PYTHON
