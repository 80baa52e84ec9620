#!/usr/bin/env bash
# geoblaze counts rows of houses that are narrower than a pixel once for each of its finer pixels.
#
# Guess before the run: stats with vrm (finer virtual pixels, "minimal" for just enough of them) and
# rescale, which divides the counts by the number of virtual pixels, gives the area of a polygon in
# pixels, whichever its shape: a row of 60 x 4 m on pixels of 10 m is 2.4 of them, more or less.
# Seen: a shed of 3 x 3 m has 0.08 pixels for 0.09 with "minimal", which takes 7 x 7 virtual pixels.
# A row of 60 x 4 m has 12.0 for 2.4, whether it runs from east to west or from north to south; that
# is twice the 6 that it has without finer pixels. A block of 60 x 60 m has 36 with vrm [10, 10] and
# 360 with [10, 1] or [1, 10]. The sums are wrong by as much, means are not. There is no message.
# Versions: geoblaze 2.8.0, georaster 1.6.0 (npm). Source: stats in src/stats/stats.core.js divides
# by vrm[0] * vrm[1] only if neither of the two is 1; "minimal" in src/intersect-polygon gives
# [1, 5] to what is longer than two pixels and narrower than one. Its comment speaks of [2, 2].
# Hurt: who sums people, heights or masks over narrow buildings, roads and rivers, for which finer
# pixels are meant: they have several times their area.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit geoblaze@2.8.0 georaster@1.6.0
cat > rows.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const geoblaze = require("geoblaze");
const parse = require("georaster");

function box(left, bottom, right, top) {
  const ring = [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]];
  return { type: "Polygon", coordinates: [ring.map(([x, y]) => [500000 + x, 5800000 + y])] };
}

(async () => {
  const ones = Array.from({ length: 10 }, () => Array(10).fill(1));
  const scene = await parse([ones], {
    noDataValue: -1, projection: 32632,
    xmin: 500000, ymax: 5800100, pixelWidth: 10, pixelHeight: 10,
  });
  const shapes = {
    shed: box(23, 23, 26, 26),
    "row to the east": box(13, 22, 73, 26),
    "row to the north": box(22, 13, 26, 73),
    block: box(13, 13, 73, 73),
  };
  async function pixels(name, vrm) {
    const options = { vrm, rescale: true };
    const [band] = await geoblaze.stats(
      scene, shapes[name], { stats: ["sum", "mean"] }, undefined, options);
    console.log(name, JSON.stringify(vrm), band.sum, "pixels, mean", band.mean);
    assert.strictEqual(band.mean, 1);
    return band.sum;
  }
  assert(Math.abs((await pixels("shed", "minimal")) - 4 / 49) < 1e-9);
  for (const row of ["row to the east", "row to the north"]) {
    assert.strictEqual(await pixels(row, [10, 10]), 2.4);
    assert.strictEqual(await pixels(row, 1), 6);
    assert.strictEqual(await pixels(row, "minimal"), 12);
  }
  assert.strictEqual(await pixels("block", [10, 10]), 36);
  assert.strictEqual(await pixels("block", [10, 1]), 360);
  assert.strictEqual(await pixels("block", [1, 10]), 360);
})();
JAVASCRIPT
node rows.cjs
