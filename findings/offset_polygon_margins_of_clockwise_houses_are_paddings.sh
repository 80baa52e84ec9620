#!/usr/bin/env bash
# offset-polygon shrinks houses by the margin that they were to grow by, and turns them inside out.
#
# Guess before the run: a positive offset adds a margin and a negative one a padding, as the README
# has it, for a ring in either order; a padding of more than half the width leaves nothing.
# Seen: with 1 m a house of 20 x 10 m has 264 m2 if its ring runs counter-clockwise, as in GeoJSON,
# and 144 if it runs clockwise, as in shapefiles; with -1 it is the other way round. An L does the
# same. A padding of 6 m, of which nothing is left, has a house of 16 m2, its walls crossed over,
# and one of 20 m has 600. There is no message.
# Versions: offset-polygon 0.9.2 (npm). Source: inwardEdgeNormal in src/offset-polygon.ts takes one
# order of the ring for granted, as its comment says, and the README does not; walls that have met
# are not looked for.
# Hurt: who draws setbacks and building lines round footprints: which way they move depends on the
# file, and houses that are narrower than the setback stay.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit offset-polygon@0.9.2
cat > margins.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const { default: offsetPolygon } = require("offset-polygon");

function area(ring) {
  const doubled = ring.map((point, i) => {
    const next = ring[(i + 1) % ring.length];
    return point.x * next.y - next.x * point.y;
  });
  return Math.round(Math.abs(doubled.reduce((sum, part) => sum + part)) * 5) / 10;
}

const shapes = {
  house: [[0, 0], [20, 0], [20, 10], [0, 10]],
  L: [[0, 0], [20, 0], [20, 10], [10, 10], [10, 20], [0, 20]],
};
const distances = [1, -1, -6];
const seen = {};
for (const [name, corners] of Object.entries(shapes)) {
  const left = corners.map(([x, y]) => ({ x, y }));
  for (const [way, ring] of [["counter-clockwise", left], ["clockwise", [...left].reverse()]]) {
    seen[`${name} ${way}`] = distances.map((distance) => area(offsetPolygon(ring, distance)));
    console.log(name, way, area(ring), "m2, with 1, -1 and -6 m:", seen[`${name} ${way}`]);
  }
}
assert.deepStrictEqual(seen["house counter-clockwise"], [264, 144, 16]);
assert.deepStrictEqual(seen["house clockwise"], [144, 264, 704]);
assert.deepStrictEqual(seen["L counter-clockwise"].slice(0, 2), [384, 224]);
assert.deepStrictEqual(seen["L clockwise"].slice(0, 2), [224, 384]);
const shrunk = [7, 20].map((distance) => {
  const ring = shapes.house.map(([x, y]) => ({ x, y }));
  return area(offsetPolygon(ring, -distance));
});
console.log("with -7 and -20 m:", shrunk);
assert.deepStrictEqual(shrunk, [24, 600]);
JAVASCRIPT
node margins.cjs
