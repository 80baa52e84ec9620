#!/usr/bin/env bash
# mapshaper's sums, means and counts leave out what stands behind || and && in their expression.
#
# Guess before the run: calc="sum(height || 3)" adds 3 for a house whose height is not known, and
# sum(height > 5 && height < 20 ? 1 : 0) counts the houses between: "expressions are plain
# JavaScript", says its guide.
# Seen: of three houses of 10 m, no height, and 30 m, sum(height || 3) is 40 in place of 43,
# sum((height || 0) + 1) is 3 in place of 43, the count of houses between 5 and 20 m is 2 in place
# of 1, and the mean of height || estimate, with an estimate of 7 m, is 13.3 in place of 15.7. With
# ?: in place of || and && all are right, and so is -each. There is no message.
# Versions: mapshaper 0.7.70 (npm). Source: mapshaper.js, compileCalcExpression: each || and && of
# the expression becomes a comma before values are gathered, so sum() takes the first of its
# arguments, and (height || 0) + 1 becomes (height, 0) + 1. 0.7.61 is right: it came
# with the mend of issue 704 in 0.7.62.
# Hurt: who sums heights, floors or people of a town whose records are not complete.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit mapshaper@0.7.70
cat > sums.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import mapshaper from "mapshaper";

const houses = [
  { town: "A", height: 10, estimate: 9 },
  { town: "A", height: null, estimate: 7 },
  { town: "A", height: 30, estimate: 25 },
];
const values = async (calc) => {
  const commands = `-i town.json -dissolve town calc="v = ${calc}" -o format=json out.json`;
  const out = await mapshaper.applyCommands(commands, { "town.json": JSON.stringify(houses) });
  return JSON.parse(out["out.json"])[0].v;
};
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const expected = {
  "sum(height || 3)": [sum(houses.map((d) => d.height || 3)), 40],
  "sum(height ? height : 3)": [43, 43],
  "sum((height || 0) + 1)": [sum(houses.map((d) => (d.height || 0) + 1)), 3],
  "sum((height ? height : 0) + 1)": [43, 43],
  "sum(height > 5 && height < 20 ? 1 : 0)": [1, 2],
  "sum(height > 5 ? (height < 20 ? 1 : 0) : 0)": [1, 1],
  "average(height || estimate)": [47 / 3, 40 / 3],
  "average(height ? height : estimate)": [47 / 3, 47 / 3],
};
for (const [calc, [right, seen]] of Object.entries(expected)) {
  const value = await values(calc);
  console.log(calc, "is", value, "and should be", right);
  assert.ok(Math.abs(value - seen) < 1e-9);
}
JAVASCRIPT
node sums.mjs
