#!/usr/bin/env bash
# mapshaper counts a house whose height is null as 0 m high in means, medians and quartiles.
#
# Guess before the run: of houses of 10 m, of no known height, and of 30 m the mean and the median
# are 20 m, the lower quartile is 15 and the lowest 10, as in SQL and in tables of Python or R.
# Seen: of a table in CSV with an empty cell, or of JSON with a null, the mean is 13.3, the median
# 10, the quartile 5 and the lowest null; max() is 30. If the house has no such field at all, the
# mean is 20 and the lowest 10, but median and quartiles are missing. -calc, -dissolve and -join do
# the same, without a message.
# Versions: mapshaper 0.7.70 (npm). Source: mapshaper.js, captureNum lets null through, and mean and
# findQuantile leave out only what isNaN is true for, which null is not.
# Hurt: who has heights, floors or years of a part of the houses, as in most towns of OpenStreetMap:
# districts become the lower the less is known of them, and no number tells.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit mapshaper@0.7.70
cat > known.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import mapshaper from "mapshaper";

const house = (height) => ({ town: "A", ...(height === undefined ? {} : { height }) });
const json = (...heights) => JSON.stringify(heights.map(house));
const tables = {
  "known.json": json(10, 30),
  "empty.csv": "town,height\nA,10\nA,\nA,30\n",
  "null.json": json(10, null, 30),
  "absent.json": json(10, undefined, 30),
};
const CALC = "average = mean(height), middle = median(height), low = quartile1(height), "
  + "least = min(height), most = max(height)";
const seen = {};
for (const [name, table] of Object.entries(tables)) {
  const commands = `-i ${name} -dissolve town calc="${CALC}" -o format=json out.json`;
  const out = await mapshaper.applyCommands(commands, { [name]: table });
  const [{ average, middle = null, low = null, least, most }] = JSON.parse(out["out.json"]);
  seen[name] = [Math.round(average * 10) / 10, middle, low, least, most];
  console.log(name, "mean, median, lower quartile, lowest, highest:", ...seen[name]);
}
assert.deepStrictEqual(seen, {
  "known.json": [20, 20, 15, 10, 30],
  "empty.csv": [13.3, 10, 5, null, 30],
  "null.json": [13.3, 10, 5, null, 30],
  "absent.json": [20, null, null, 10, 30],
});
const towns = { "towns.csv": "town\nA\n", "null.json": tables["null.json"] };
const join = '-i towns.csv -join null.json keys=town,town calc="average = mean(height)" '
  + "-o format=json out.json";
const joined = JSON.parse((await mapshaper.applyCommands(join, towns))["out.json"]);
assert.ok(Math.abs(joined[0].average - 40 / 3) < 1e-9);
JAVASCRIPT
node known.mjs
