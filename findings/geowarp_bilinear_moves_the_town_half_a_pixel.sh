#!/usr/bin/env bash
# geowarp's bilinear method blurs a raster on its own grid and moves it by half a pixel.
#
# Guess before the run: a raster that is warped to its own extent, system and size is returned as it
# is by each method; at twice the size bilinear values lie between those of the four nearest
# centres.
# Seen: each value is the mean of four pixels, its own and those to the right and below. A house of
# 20 x 20 m in a mask of 1 m lies half a metre to the north-west, at its own size and at larger
# ones; a roof that rises by 1 m per pixel to the east is half a metre too high. At half the size
# all is right, and the methods near, mean and median return the raster. There is no message.
# Versions: geowarp 1.26.2 (npm). Source: geowarp/geowarp.js, method "bilinear": a place in pixels
# counts from the corner of the first pixel, and weights are taken as if it counted from its centre.
# Hurt: who shows or samples masks, probabilities and heights with it, or with
# georaster-layer-for-leaflet, which depends on it: a threshold of 0.5 cuts houses elsewhere than
# where they stand, and heights at walls are mixed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit geowarp@1.26.2
cat > warp.cjs <<'JAVASCRIPT'
const assert = require("node:assert");
const { default: exported, ...rest } = require("geowarp");
const geowarp = exported ?? require("geowarp");

const size = 60;
const bbox = [500000, 5500000, 500000 + size, 5500000 + size];
const raster = (value) =>
  Array.from({ length: size }, (_, row) => Array.from({ length: size }, (_, col) => value(row, col)));
const warp = (band, method, width) =>
  geowarp({
    in_data: [band], in_bbox: bbox, in_layout: "[band][row][column]", in_srs: 32633,
    in_width: size, in_height: size, out_bbox: bbox, out_layout: "[band][row][column]",
    out_srs: 32633, out_width: width, out_height: width, method, round: false,
  }).data[0];
// The place of the middle of a house, in metres from the upper left corner.
const middle = (band) => {
  const metre = size / band.length;
  let [sum, down, right] = [0, 0, 0];
  band.forEach((line, row) => line.forEach((value, col) => {
    sum += value;
    down += value * (row + 0.5) * metre;
    right += value * (col + 0.5) * metre;
  }));
  return [down / sum, right / sum].map((each) => Number(each.toFixed(3)));
};
const house = raster((row, col) => (row >= 20 && row < 40 && col >= 10 && col < 30 ? 1 : 0));
for (const width of [60, 120, 240]) {
  const found = middle(warp(house, "bilinear", width));
  console.log(width, "pixels, middle of the house:", found, "right:", middle(house));
  assert.deepStrictEqual(found, [29.5, 19.5]);
}
for (const method of ["near", "mean", "median"])
  assert.deepStrictEqual(warp(house, method, size), house);
const roof = raster((row, col) => col);
const heights = warp(roof, "bilinear", size)[30].slice(10, 14);
console.log("heights of a roof:", heights, "right:", roof[30].slice(10, 14));
assert.deepStrictEqual(heights, [10.5, 11.5, 12.5, 13.5]);
JAVASCRIPT
node warp.cjs
