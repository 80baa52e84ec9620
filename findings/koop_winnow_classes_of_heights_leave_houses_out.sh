#!/usr/bin/env bash
# winnow (koop) makes classes of heights that leave houses out, and lifts ground below the sea to 0.
#
# Guess before the run: classes of equal width, or quantiles, cover every height from the lowest to
# the highest: of roofs from 0 to 30 m in three classes each house is in one; heights of -6 to 3 m
# begin at -6.
# Seen: each class after the first begins one step above the end of the one before, and the step is
# that of the digits of this end alone: 0 to 10, 11 to 20, 21 to 30, so that houses of 10.5 and of
# 20.5 m are in none, with quantiles as with equal widths; had one house 10.1 m, a class could begin
# at 10.2. Heights below zero count as zero before classes are made: with five of eight houses below
# the sea the classes of equal width are 0 to 1, 2 to 2 and 3 to 3, quantiles and natural breaks
# begin at 0 too, and the five houses are in none; stddev is of those numbers, and begins at -3.1.
# No message.
# Versions: @koopjs/winnow 5.0.4 (npm). Source: src/calculate-class-breaks/index.js, getFieldValues
# and transform-class-breaks-to-ranges.js, rangeAdjustments. The README's one example is of whole
# numbers; ArcGIS ends a class where the next begins.
# Hurt: who draws a layer of Koop by heights, depths, volumes or scores: houses between the classes
# have no colour, and those below the sea are told apart by none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit @koopjs/winnow@5.0.4 > npm.log
cat > classes.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const winnow = require("@koopjs/winnow");

/** Return the classes of the heights of houses and the heights that are in none of them. */
function classes(heights, method) {
  const features = heights.map((height, i) => ({
    type: "Feature", properties: { height }, geometry: { type: "Point", coordinates: [i, 0] },
  }));
  const classification = { type: "classes", field: "height", method, breakCount: 3 };
  const ranges = winnow.query({ type: "FeatureCollection", features }, { classification });
  const left = heights.filter((h) => !ranges.some(([low, high]) => low <= h && h <= high));
  console.log(method, "classes", JSON.stringify(ranges), "in none", left.join());
  return { ranges, left };
}
const ROOFS = [0, 4, 8, 10, 10.5, 13, 17, 20, 20.5, 24, 27, 30];
const POLDER = [-6, -4, -3, -2, -1, 1, 2, 3];
const TENS = [[0, 10], [11, 20], [21, 30]];
for (const method of ["equalInterval", "quantile"]) {
  assert.deepStrictEqual(classes(ROOFS, method), { ranges: TENS, left: [10.5, 20.5] });
}
for (const method of ["equalInterval", "quantile", "naturalBreaks"]) {
  const { ranges, left } = classes(POLDER, method);
  assert.equal(ranges[0][0], 0);
  assert.deepStrictEqual(left, POLDER.filter((height) => height < 0));
}
assert.deepStrictEqual(classes(POLDER, "stddev").left, [-6, -4]);
JAVASCRIPT
node classes.cjs
