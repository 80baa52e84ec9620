#!/usr/bin/env bash
# geojson2h3 ensures a cell for each small house alone, and for none in a collection of houses.
#
# Guess before the run: featureToH3Set takes a Feature or a FeatureCollection; with ensureOutput, a
# town of two houses of 10 m and a hall of 600 m has the cells of the hall and one for each house.
# Seen: alone each house has its cell. As a collection the two houses have none, with ensureOutput
# as without, and the town has the cells of the hall only: the option isn't handed to the features.
# No message. A house that is a Point keeps its cell, so that a town of footprints and points
# looks complete. The cells of a collection are those of its features if one asks for each alone.
# Versions: geojson2h3 1.3.2 (npm), h3-js 4.5.0. Source: src/geojson2h3.js, featureToH3Set, where a
# comment has it as to be done; README and the description of the option name no exception, and
# pull request 19, which brought it, tests single features.
# Hurt: who counts or joins buildings by cells: at every resolution whose cells are wider than the
# houses most houses are missing, though a cell for each was asked for.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit geojson2h3@1.3.2 h3-js@4.5.0 > npm.log
cat > cells.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const { featureToH3Set } = require("geojson2h3");

const feature = (type, coordinates) => (
  { type: "Feature", properties: {}, geometry: { type, coordinates } });
const house = (west, south, side) => feature("Polygon", [[
  [west, south], [west + side, south], [west + side, south + side], [west, south + side],
  [west, south],
]]);
const RESOLUTION = 9;
const OPTIONS = { ensureOutput: true };
const small = [house(13.4, 52.5, 1e-4), house(13.42, 52.51, 1e-4)];
const town = [...small, house(13.44, 52.52, 0.01)];
const collection = (features) => featureToH3Set(
  { type: "FeatureCollection", features }, RESOLUTION, OPTIONS);
const alone = town.map((one) => featureToH3Set(one, RESOLUTION, OPTIONS));
console.log("cells of each alone", alone.map((cells) => cells.length).join());
console.log("the two small houses as a collection", collection(small).length);
console.log("the town as a collection", collection(town).length, "of", new Set(alone.flat()).size);
assert.deepStrictEqual(alone.slice(0, 2).map((cells) => cells.length), [1, 1]);
assert.deepStrictEqual(collection(small), []);
assert.deepStrictEqual(collection(town).sort(), alone[2].sort());
assert.equal(collection([feature("Point", [13.4, 52.5])]).length, 1);
assert.equal(new Set(alone.flat()).size, alone[2].length + 2);
JAVASCRIPT
node cells.cjs
