#!/usr/bin/env bash
# geosimplify leaves gaps of any length between points, whatever gap it is asked to keep to.
#
# Guess before the run: the third argument, by its README "if removing a point would create a
# segment longer than this, do not remove it", keeps segments of a simplified line at 50 m.
# Seen: of a straight line of 687 m with a point each 6.9 m the two ends are left, one segment of
# 687 m, with a gap of 1, 50 or 1000 m and without one. Of a line with two spikes eight points
# stay and the longest segment is 330 m, with each gap. There is no message.
# Versions: @mapbox/geosimplify-js 0.1.0, cheap-ruler 2.5.1 (npm). Source: getDist in
# geosimplify.js measures the segment and returns nothing, and nothing is never longer than the gap.
# Hurt: who simplifies outlines, contours or coasts for a map in another projection, where long
# segments would bend, or samples heights at their points: the limit does nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit @mapbox/geosimplify-js@0.1.0 cheap-ruler@2.5.1
cat > gaps.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const cheapRuler = require("cheap-ruler");
const simplify = require("@mapbox/geosimplify-js");

const ruler = cheapRuler(52, "meters");
const straight = Array.from({ length: 101 }, (_, i) => [13 + i * 0.0001, 52]);
const bent = straight.map(([x, y], i) => [x, y + (i % 50 === 25 ? 0.001 : 0)]);

function longest(line, gap) {
  const points = simplify(line, 5, gap);
  const lengths = points.slice(1).map((point, i) => ruler.distance(points[i], point));
  return [points.length, Math.round(Math.max(...lengths))];
}

for (const [name, line] of [["straight", straight], ["bent", bent]]) {
  const seen = [undefined, 1, 50, 1000].map((gap) => longest(line, gap));
  console.log(name, "points and longest segment with no gap, 1, 50 and 1000 m:", seen);
  seen.forEach((result) => assert.deepStrictEqual(result, seen[0]));
}
assert.deepStrictEqual(longest(straight, 50), [2, 687]);
assert.deepStrictEqual(longest(bent, 50), [8, 330]);
JAVASCRIPT
node gaps.cjs
