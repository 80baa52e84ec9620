#!/usr/bin/env bash
# mapshaper builds over the courtyards of a town if there is one large hall in the file.
#
# Guess before the run: -clean mends gaps and overlaps between polygons; the holes of a polygon are
# kept, or those below an area that its own shape sets. -simplify with keep-shapes keeps yards as it
# keeps houses.
# Seen: of a block of 40 x 40 m with a light shaft of 16 and a yard of 256 square metres, -clean
# keeps both beside ten houses of 12 x 12 m, closes the shaft if the block is alone in the file, and
# both if there is one hall of 200 x 200 m, 160 m away: holes count as gaps, up to a width that is
# taken from the mean length of all walls in the file. -simplify 50% keep-shapes closes the shaft
# and, beside the hall, the yard, while no house is lost. A line of the log says "Removed 2 of 2
# slivers". -clean gap-fill-area=0 keeps both in all cases.
# Versions: mapshaper 0.7.70 (npm). Source: getDefaultGapWidth and getDefaultSliverThreshold in
# src/polygons/mapshaper-slivers.mjs, whose test is that of a ring and not of its neighbours.
# Hurt: who cleans footprints district by district: the same block has another area in each extract,
# and perimeter blocks become solid where a station or a warehouse is near.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit mapshaper@0.7.70
cat > clean.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import mapshaper from "mapshaper";

const [EAST, NORTH] = [500000, 5000000];
const square = (x, y, side) => {
  const [west, south] = [EAST + x, NORTH + y];
  const [east, north] = [west + side, south + side];
  return [[west, south], [east, south], [east, north], [west, north], [west, south]];
};
const building = (name, ...coordinates) => ({
  type: "Feature", properties: { name }, geometry: { type: "Polygon", coordinates },
});
const shaft = square(5, 5, 4).reverse();
const yard = square(12, 12, 16).reverse();
const block = building("block", square(0, 0, 40), shaft, yard);
const houses = Array.from({ length: 10 }, (_, i) => building("house", square(200 + 17 * i, 0, 12)));
const hall = building("hall", square(200, 0, 200));

const area = async (others, command) => {
  const town = JSON.stringify({ type: "FeatureCollection", features: [block, ...others] });
  const commands = `-i town.json ${command} -each "area = this.area" -o out.json`;
  const files = await mapshaper.applyCommands(commands, { "town.json": town });
  const { features } = JSON.parse(files["out.json"]);
  assert.strictEqual(features.length, others.length + 1);
  return features[0].properties.area;
};
const seen = {};
for (const command of ["-clean", "-clean gap-fill-area=0", "-simplify 50% keep-shapes"]) {
  const [low, alone, high] = [houses, [], [hall]];
  seen[command] = [await area(low, command), await area(alone, command), await area(high, command)];
  console.log(command, "beside ten houses, alone, beside a hall:", ...seen[command]);
}
const [both, noShaft, solid] = [1600 - 256 - 16, 1600 - 256, 1600];
assert.deepStrictEqual(seen, {
  "-clean": [both, noShaft, solid],
  "-clean gap-fill-area=0": [both, both, both],
  "-simplify 50% keep-shapes": [noShaft, noShaft, solid],
});
JAVASCRIPT
node clean.mjs
