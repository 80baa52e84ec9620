#!/usr/bin/env bash
# which-polygon finds a building of several parts once for each part that its box meets.
#
# Guess before the run: query.bbox returns each building that meets the box once, as a query at a
# point with the option multi does; of a house and a school of three wings, two.
# Seen: four: the school is in the answer three times, with the same properties object, and a sum of
# a column over it counts the school three times: 1,300 people, not 500. A box over one wing has it
# once, as the query at a point has.
# Versions: which-polygon 2.2.1 (npm). Source: index.js puts each part of a MultiPolygon into the
# tree and query.bbox gives what the tree has; the README says that it takes a collection of
# polygons or multipolygons and returns the properties of the features.
# Hurt: who counts buildings, areas or people in the box of a map: campuses, blocks and houses cut
# by a courtyard or a tile seam weigh once for each part.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit which-polygon@2.2.1 > npm.log
cat > count.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const whichPolygon = require("which-polygon");

const wing = (west, south) => [[
  [west, south], [west + 10, south], [west + 10, south + 10], [west, south + 10], [west, south],
]];
const building = (type, coordinates, properties) => (
  { type: "Feature", properties, geometry: { type, coordinates } });
const wings = [wing(30, 0), wing(30, 20), wing(50, 0)];
const query = whichPolygon({ type: "FeatureCollection", features: [
  building("Polygon", wing(0, 0), { name: "house", people: 100 }),
  building("MultiPolygon", wings, { name: "school", people: 400 }),
] });
const names = (found) => found.map(({ name }) => name).sort();
const town = query.bbox([-5, -5, 100, 100]);
const quarters = [[-5, -5, 45, 15], [45, -5, 100, 15], [-5, 15, 45, 100]].map((box) =>
  names(query.bbox(box)));
const people = town.reduce((sum, one) => sum + one.people, 0);
console.log("town", names(town).join(), "people", people);
console.log("quarters", JSON.stringify(quarters), "at a point", names(query([35, 5], true)).join());
assert.deepStrictEqual(names(town), ["house", "school", "school", "school"]);
assert.equal(people, 1300);
assert.equal(new Set(town).size, 2);
assert.deepStrictEqual(quarters, [["house", "school"], ["school"], ["school"]]);
assert.deepStrictEqual(names(query([35, 5], true)), ["school"]);
JAVASCRIPT
node count.cjs
