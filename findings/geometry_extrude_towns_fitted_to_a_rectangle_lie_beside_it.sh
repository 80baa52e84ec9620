#!/usr/bin/env bash
# geometry-extrude puts a town that it fits into a rectangle somewhere else than in it.
#
# Guess before the run: fitRect of extrudeGeoJSON and extrudePolygon scales and moves a town so that
# it fills the rectangle, x, y, width and height, whatever its own place and size are.
# Seen: a town of 1,000 x 1,000 m in a rectangle of 10 x 10 round the origin (x and y -5) has the
# right size, but begins at -0.05, and three quarters of it lie outside. Without x and y it begins at
# a hundredth of its coordinates. A town as large as its rectangle is right, one enlarged by 4 lies
# 15 units on the other side. The rectangle in the result is this one too. There is no message.
# Versions: geometry-extrude 0.2.1 (npm, the latest). Source: src/main.js, normalizeOpts: translate
# is (target - corner of the town) times the scale; as vertices are scaled first, the target must
# not be, so that the town lies at target times scale.
# Hurt: who extrudes footprints to the size of a scene (ECharts GL, ClayGL, three.js): a model table
# centred on the origin gets the town at one corner, and layers fitted apart do not meet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit geometry-extrude@0.2.1
cat > look.mjs <<'JAVASCRIPT'
import assert from 'node:assert';
import {extrudeGeoJSON} from 'geometry-extrude';

const square = (x, y, side) =>
  [[[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]];

/** Return the box of a town whose first and last house span a square, west, south, east, north. */
function fitted(side, fitRect) {
  const town = {type: 'FeatureCollection', features: [
    square(2000, 3000, side / 10),
    square(2000 + side * 0.9, 3000 + side * 0.9, side / 10),
  ].map((coordinates) => ({type: 'Feature', geometry: {type: 'Polygon', coordinates}}))};
  const {position, boundingRect} = extrudeGeoJSON(town, {depth: 1, fitRect}).polygon;
  const of = (axis) => Array.from(position).filter((_, index) => index % 3 === axis);
  const round = (value) => Math.round(value * 1000) / 1000;
  const box = [0, 1].map((axis) => round(Math.min(...of(axis))))
    .concat([0, 1].map((axis) => round(Math.max(...of(axis)))));
  assert(Math.abs(boundingRect.x - box[0]) < 0.001 && Math.abs(boundingRect.y - box[1]) < 0.001);
  return box;
}

for (const [side, rectangle, expected] of [
  [1000, {x: -5, y: -5, width: 10, height: 10}, [-0.05, -0.05, 9.95, 9.95]],
  [1000, {width: 10, height: 10}, [20, 30, 30, 40]],
  [10, {x: -5, y: -5, width: 10, height: 10}, [-5, -5, 5, 5]],
  [2.5, {x: -5, y: -5, width: 10, height: 10}, [-20, -20, -10, -10]],
]) {
  const box = fitted(side, rectangle);
  console.log(`a town of ${side} m in`, rectangle, 'lies at', box);
  assert.deepStrictEqual(box, expected);
}
JAVASCRIPT
node look.mjs
