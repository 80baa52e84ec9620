#!/usr/bin/env bash
# image-js's ellipse of a square house is twice as long as wide, and turning a house changes it.
#
# Guess before the run: the ellipse of a region has the second moments of its pixels, as that of
# regionprops or ImageJ: axes of one length for a square, and 2 to 1 for a house of 20 x 10 pixels.
# Seen: the ratio of the axes is 2.0 for a square, 1.42 for a house of 20 x 10 and 4.02 for the
# same one of 10 x 20; by the moments it is 1, 2 and 2. The length of the minor axis is measured
# from one of its ends to an end of the major axis; both are then scaled to the area of the region,
# so that the points of the axes are wrong as well. The smallest rectangle (mbr) of all three is
# right.
# Versions: image-js 1.7.0 (npm). Source: src/roi/properties/getEllipse.ts, minorLength,
# minorAxisPoint1.column - majorAxisPoint2.column.
# Hurt: who tells long from compact buildings, or trucks from sheds, in a browser: squares are
# long, and a row of equal houses falls into two kinds by its direction.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit image-js@1.7.0
cat > ellipses.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import { fromMask, Mask } from "image-js";

/** Return the region of a house of this width and height, turned by degrees. */
function house(width, height, degrees) {
  const side = 120, mask = new Mask(side, side), angle = (degrees * Math.PI) / 180;
  for (let row = 0; row < side; row++)
    for (let column = 0; column < side; column++) {
      const x = column - side / 2 + 0.5, y = row - side / 2 + 0.5;
      const along = x * Math.cos(angle) + y * Math.sin(angle);
      const across = y * Math.cos(angle) - x * Math.sin(angle);
      const inside = Math.abs(along) < width / 2 && Math.abs(across) < height / 2;
      if (inside) mask.setBit(column, row, true);
    }
  return fromMask(mask).getRois({ kind: "white" })[0];
}

/** Return the ratio of the axes by the second moments of the pixels. */
function byMoments({ absolutePoints: points, centroid }) {
  const mean = (of) => points.reduce((sum, point) => sum + of(point), 0) / points.length;
  const xx = mean((point) => (point.column - centroid.column) ** 2);
  const yy = mean((point) => (point.row - centroid.row) ** 2);
  const xy = mean((point) => (point.column - centroid.column) * (point.row - centroid.row));
  const spread = Math.sqrt(((xx - yy) / 2) ** 2 + xy ** 2);
  return Math.sqrt(((xx + yy) / 2 + spread) / ((xx + yy) / 2 - spread));
}

const round = (value) => Math.round(value * 100) / 100;
const wanted = {
  "20 20 0": [2, 1], "20 20 45": [2, 1], "20 10 0": [1.42, 2.01], "10 20 0": [4.02, 2.01],
  "80 10 0": [1.94, 8.04],
};
for (const [name, ratios] of Object.entries(wanted)) {
  const region = house(...name.split(" ").map(Number));
  const { majorAxis, minorAxis } = region.ellipse;
  const { width, height } = region.mbr;
  const seen = [round(majorAxis.length / minorAxis.length), round(byMoments(region))];
  console.log("width, height and degrees", name, "- ellipse:", seen[0], "by moments:", seen[1],
    "smallest rectangle:", round(width), "x", round(height));
  assert.deepEqual(seen, ratios);
}
JAVASCRIPT
node ellipses.mjs
