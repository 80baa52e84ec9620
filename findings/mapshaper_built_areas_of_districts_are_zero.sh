#!/usr/bin/env bash
# mapshaper gives every district a built area of zero, and joins no house by its size.
#
# Guess before the run: calc="built = sum(this.area)" of -join and -dissolve is the sum of the areas
# of the houses, as it is in -calc: its guide to expressions says that "any command's calc= option"
# uses "the same context as -each", in which this.area is the area of the polygon. So does where=.
# Seen: of a district with houses of 200 and 100 square metres, -calc says 300, -join and -dissolve
# say 0, and -join where="this.area > 150" counts no house in place of one. The average and the
# largest area are null. Sums of a field that -each made of this.area before are right. A district
# without a house has 0, too, and no message says that an area is not known.
# Versions: mapshaper 0.7.70 (npm). Source: mapshaper.js, getJoinCalc compiles the expression with
# the records alone, without shapes; this.area is then undefined, and utils.sum passes over it.
# Hurt: who asks for the built-up area of districts, parcels or cells of a grid.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit mapshaper@0.7.70
cat > built.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import mapshaper from "mapshaper";

const [EAST, NORTH] = [400000, 5800000];
const polygon = (properties, x, y, width, height) => {
  const [west, south] = [EAST + x, NORTH + y];
  const [east, north] = [west + width, south + height];
  const ring = [[west, south], [west, north], [east, north], [east, south], [west, south]];
  return { type: "Feature", properties, geometry: { type: "Polygon", coordinates: [ring] } };
};
const collection = (...features) => JSON.stringify({ type: "FeatureCollection", features });
const files = {
  "houses.json": collection(
    polygon({ district: "old town" }, 10, 10, 20, 10),
    polygon({ district: "old town" }, 40, 15, 10, 10),
  ),
  "districts.json": collection(
    polygon({ name: "old town" }, 0, 0, 100, 100),
    polygon({ name: "meadow" }, 100, 0, 100, 100),
  ),
};
const run = async (commands) => {
  const out = await mapshaper.applyCommands(`${commands} -o format=json out.json`, { ...files });
  const records = JSON.parse(out["out.json"]);
  console.log(commands, records);
  return records;
};

const CALC = 'calc="houses = count(), built = sum(this.area), largest = max(this.area)"';
const known = await run('-i houses.json -calc + "sum(this.area)"');
assert.strictEqual(known[0].value, 300);
const dissolved = await run(`-i houses.json -dissolve district ${CALC}`);
assert.deepEqual(dissolved, [{ district: "old town", houses: 2, built: 0, largest: null }]);
const joined = await run(`-i districts.json -join houses.json ${CALC}`);
assert.deepEqual(joined, [
  { name: "old town", houses: 2, built: 0, largest: null },
  { name: "meadow", houses: 0, built: 0, largest: null },
]);
const large = 'where="this.area > 150" calc="houses = count()"';
const [town] = await run(`-i districts.json -join houses.json ${large}`);
assert.strictEqual(town.houses, 0);
const first = '-i houses.json -each "area = this.area" -dissolve district calc="built = sum(area)"';
const [right] = await run(first);
assert.strictEqual(right.built, 300);
JAVASCRIPT
node built.mjs
