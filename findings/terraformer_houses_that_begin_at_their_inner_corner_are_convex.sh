#!/usr/bin/env bash
# terraformer finds a house like an L convex, if its outline begins at its inner corner.
#
# Guess before the run: isConvex of @terraformer/spatial, which says whether the ring of a polygon
# is convex, answers alike for each corner that the ring begins at and for both ways round; a point
# on a straight wall changes nothing.
# Seen: of the six beginnings of the outline of an L two are convex, in either way round, one of
# them the inner corner itself; without the closing point three are. A rectangle with a point in
# its first wall is convex clockwise and not convex the other way, that of GeoJSON; with the point
# in another wall it is convex. convexHull of the L is larger than the L. There is no message.
# Versions: @terraformer/spatial 2.2.2 (npm). Source: isConvex in dist/t-spatial.esm.js ends before
# the turns at the last two points, and takes its side from the first turn, which may be none.
# Hurt: who sorts roofs or plots by convexity, or skips the hull of what is convex.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit @terraformer/spatial@2.2.2
cat > convex.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import { convexHull, isConvex } from "@terraformer/spatial";

const corners = [[0, 0], [4, 0], [4, 4], [2, 4], [2, 2], [0, 2]];
const rings = corners.map((_, i) => [...corners.slice(i), ...corners.slice(0, i)]);
const closed = rings.map((ring) => [...ring, ring[0]]);
const answers = closed.map((ring) => isConvex(ring));
const back = closed.map((ring) => isConvex([...ring].reverse()));
const open = rings.map((ring) => isConvex(ring));
console.log("begins at", JSON.stringify(corners));
console.log("convex:", answers, "other way round:", back, "not closed:", open);
assert.deepStrictEqual(answers, [false, false, false, false, true, true]);
assert.deepStrictEqual(back, [false, false, false, true, true, false]);
assert.strictEqual(open.filter(Boolean).length, 3);

function area(ring) {
  const doubled = ring.slice(1).map(([x, y], i) => ring[i][0] * y - x * ring[i][1]);
  return Math.abs(doubled.reduce((sum, part) => sum + part)) / 2;
}
for (const ring of closed) {
  const hull = convexHull({ type: "Polygon", coordinates: [ring] });
  assert.strictEqual(area(ring), 12);
  assert.strictEqual(area(hull.coordinates[0]), 14);
}

const first = [[0, 0], [2, 0], [4, 0], [4, 4], [0, 4], [0, 0]];
const second = [[0, 4], [0, 0], [2, 0], [4, 0], [4, 4], [0, 4]];
const walls = [first, [...first].reverse(), second, [...second].reverse()].map((r) => isConvex(r));
console.log("rectangle, point in the first wall and in another, both ways:", walls);
assert.deepStrictEqual(walls, [false, true, true, true]);
JAVASCRIPT
node convex.mjs
