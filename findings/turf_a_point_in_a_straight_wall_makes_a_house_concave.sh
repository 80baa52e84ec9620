#!/usr/bin/env bash
# turf says that a rectangular house with a point in a wall is concave, in the order of GeoJSON.
#
# Guess before the run: booleanConcave, which says whether a polygon is concave, is false for a
# rectangle with further points in its straight walls, whichever way round the ring runs.
# Seen: with one point in a wall the rectangle is concave if its ring runs counter-clockwise, as RFC
# 7946 wants it, and not if it runs clockwise, whichever wall it is and wherever the ring begins.
# Without the point it is convex, an L is concave, and after cleanCoords the rectangle is convex
# both ways. There is no message, and the documentation has nothing on points in a line.
# Versions: @turf/turf 7.4.0 (npm). Source: booleanConcave in packages/turf-boolean-concave/index.ts
# compares whether each cross product is above 0 with the first one, and takes 0 for below.
# Hurt: who sorts roofs by their form: rectangles with a point where a neighbour ends are among
# the L, and which ones depends on the order that the writer of the file took.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit @turf/turf@7.4.0
cat > concave.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import { booleanConcave, cleanCoords, polygon } from "@turf/turf";

const shapes = {
  rectangle: [[0, 0], [20, 0], [20, 10], [0, 10]],
  "point in the south": [[0, 0], [10, 0], [20, 0], [20, 10], [0, 10]],
  "point in the east": [[0, 0], [20, 0], [20, 5], [20, 10], [0, 10]],
  L: [[0, 0], [20, 0], [20, 10], [10, 10], [10, 20], [0, 20]],
};

function answers(corners, clean) {
  const ways = [corners, [...corners].reverse()].map((order) =>
    order.map((_, start) => {
      const ring = [...order.slice(start), ...order.slice(0, start)];
      const degrees = [...ring, ring[0]].map(([x, y]) => [x / 65536, y / 65536]);
      const house = polygon([degrees]);
      return booleanConcave(clean ? cleanCoords(house) : house);
    }),
  );
  return ways.map((way) => {
    assert(way.every((answer) => answer === way[0]));
    return way[0];
  });
}

const seen = {};
for (const [name, corners] of Object.entries(shapes)) {
  seen[name] = answers(corners, false);
  console.log(name, "concave counter-clockwise and clockwise:", seen[name]);
}
assert.deepStrictEqual(seen, {
  rectangle: [false, false],
  "point in the south": [true, false],
  "point in the east": [true, false],
  L: [true, true],
});
assert.deepStrictEqual(answers(shapes["point in the south"], true), [false, false]);
JAVASCRIPT
node concave.mjs
