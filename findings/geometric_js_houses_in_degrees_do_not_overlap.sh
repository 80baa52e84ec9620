#!/usr/bin/env bash
# geometric finds neither overlap nor union of two houses whose corners are in degrees.
#
# Guess before the run: polygonIntersection, polygonUnion, polygonDifference and polygonXor of two
# houses that overlap by 48 square metres give the same polygons in metres, in UTM and, with the
# scale of the map, in degrees; null means that nothing is left.
# Seen: in metres and in UTM all four are right. In degrees all four are null, as the intersection
# of houses that are apart is, and as no union can be. In a frame where the houses are a tenth of a
# degree wide they are right again. polygonArea of each house in degrees is right. No message.
# Versions: geometric 3.0.9 (npm). Source: orientBoundarySegment in build/geometric.js looks beside
# each wall by a ten-millionth of at least one unit, and pointOnPolygon takes for a point on a wall
# what spans less than 1e-9 with it, an area and not a distance: in degrees both sides of a wall of
# ten metres are on it, and the wall goes.
# Hurt: who clips or joins GeoJSON with it: no two houses overlap, and what is cut is gone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit geometric@3.0.9
cat > overlap.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import {
  polygonArea, polygonDifference, polygonIntersection, polygonUnion, polygonXor,
} from "geometric";

const operations = { polygonIntersection, polygonUnion, polygonDifference, polygonXor };
const expected = [48, 404, 152, 356];

function rectangle([left, bottom, right, top], frame) {
  return [[left, bottom], [right, bottom], [right, top], [left, top]].map(frame);
}

const metre = 1 / 111_195;
const frames = {
  metres: [([x, y]) => [x, y], 1],
  UTM: [([x, y]) => [500_000 + x, 5_800_000 + y], 1],
  "degrees times 1000": [([x, y]) => [x * metre * 1000, y * metre * 1000], (1000 * metre) ** 2],
  "degrees at the equator": [([x, y]) => [13 + x * metre, y * metre], metre ** 2],
  "degrees in Berlin": [([x, y]) => [13.4 + (x * metre) / 0.6088, 52.5 + y * metre], NaN],
};
for (const [name, [frame, unit]] of Object.entries(frames)) {
  const house = rectangle([0, 0, 20, 10], frame);
  const annex = rectangle([12, 4, 30, 18], frame);
  if (unit) {
    assert(Math.abs(polygonArea(house) / unit - 200) < 1e-2);
    assert(Math.abs(polygonArea(annex) / unit - 252) < 1e-2);
  }
  const results = Object.values(operations).map((operation) => operation(house, annex));
  const areas = results.map((ring) => ring && polygonArea(ring) / unit);
  console.log(name, areas);
  if (name.startsWith("degrees ") && !name.includes("times")) {
    assert.deepStrictEqual(results, [null, null, null, null]);
  } else {
    areas.forEach((area, i) => assert(Math.abs(area - expected[i]) < 1e-2));
  }
}
JAVASCRIPT
node overlap.mjs
