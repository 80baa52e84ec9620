#!/usr/bin/env bash
# simplify-geojson loses houses that are narrow from west to east, by where their ring begins.
#
# Guess before the run: a tolerance of 4 m leaves of a house of 6 by 60 m what it leaves of the same
# house turned by 90 degrees, wherever its ring begins, and never less than a polygon.
# Seen: in units of 0.00001 degrees at the equator, 1.1 m each, a house of 6 by 60 from north to
# south whose ring begins within its southern wall becomes a ring of two equal positions, area 0;
# turned by 90 degrees it keeps 5 positions and 270 of 360, and from a corner it keeps all. A square
# of 60 whose ring begins within its southern wall is gone at a tolerance of 31, and keeps 2700 of
# 3600 when it is turned. There is no message.
# Versions: simplify-geojson 1.0.5 (the latest), with simplify-geometry 0.0.2. Source: index.js of
# simplify-geometry begins with the line from the first to the last position, which is a point in a
# ring; lib/line.js calls it vertical, as its slope is not finite, and measures from west to east.
# Hurt: who simplifies footprints for a web map: of a street some houses are gone, by their
# orientation, and polygons are not valid.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
npm install --silent --no-fund --no-audit simplify-geojson@1.0.5 simplify-geometry@0.0.2 > npm.log
cat > simplify.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const simplify = require("simplify-geojson");

const UNIT = 1e-5;
const turned = (ring) => ring.map(([x, y]) => [-y, x]);
const area = (ring) => Math.round(ring.slice(1).reduce(
  (sum, [x, y], i) => sum + ring[i][0] * y - x * ring[i][1], 0) / 2 / UNIT ** 2);

function simplified(name, ring, tolerance) {
  const coordinates = [ring.map(([x, y]) => [x * UNIT, y * UNIT])];
  const house = { type: "Feature", properties: {}, geometry: { type: "Polygon", coordinates } };
  const [found] = simplify(house, tolerance * UNIT).geometry.coordinates;
  console.log(name, "area", area(coordinates[0]), "becomes", area(found), "of", found.length);
  return [area(found), found.length];
}

const narrow = [[0, 0], [3, 0], [3, 60], [-3, 60], [-3, 0], [0, 0]];
const corner = [[3, 0], [3, 60], [-3, 60], [-3, 0], [3, 0]];
const square = [[0, 0], [30, 0], [30, 60], [-30, 60], [-30, 0], [0, 0]];
assert.deepEqual(simplified("north to south", narrow, 4), [0, 2]);
assert.deepEqual(simplified("west to east", turned(narrow), 4), [270, 5]);
assert.deepEqual(simplified("from a corner", corner, 4), [360, 5]);
assert.deepEqual(simplified("from a corner, turned", turned(corner), 4), [360, 5]);
assert.deepEqual(simplified("below half the width", narrow, 2.9), [360, 6]);
assert.deepEqual(simplified("square", square, 31), [0, 2]);
assert.notEqual(simplified("square, turned", turned(square), 31)[0], 0);
JAVASCRIPT
node simplify.cjs
