#!/usr/bin/env bash
# image-js moves what it resizes by half a pixel of the result to the south-east.
#
# Guess before the run: resize keeps the edges of the image where they are, with each
# interpolation, as canvas, Pillow and OpenCV do; the centre of a house stays at the same share of
# the width and height.
# Seen: a house of 20 x 20 pixels with its centre at 34, 30 of a tile of 64 x 64. At half the size
# its centre is at 35, 31 of the tile, at a quarter at 36, 32, at twice the size at 34.25, 30.25,
# with "bilinear", which is the default, and "bicubic". With "nearest" it stays at 34, 30. The
# matrix moves by f / 2, which is right for the corners of pixels, while these two interpolate
# between centres, which need (f - 1) / 2. There is no message.
# Versions: image-js 1.7.0 (npm). Source: src/geometry/resize.ts, [xFactor, 0, xFactor / 2].
# Hurt: who makes overviews of scenes, or the input of a network, in a browser: the map lies beside
# the image, by 2 m for images of 1 m at a quarter of their size, and masks resized by "nearest" do
# not fit their images.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-fund --no-audit image-js@1.7.0
cat > sizes.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import { Image } from "image-js";

const SIDE = 64, tile = new Image(SIDE, SIDE, { colorModel: "GREY" });
for (let row = 20; row < 40; row++)
  for (let column = 24; column < 44; column++) tile.setValue(column, row, 0, 200);

/** Return the centre of what is light, in pixels of the tile: column and row. */
function centre(image) {
  let light = 0, east = 0, south = 0;
  for (let row = 0; row < image.height; row++)
    for (let column = 0; column < image.width; column++) {
      const value = image.getValue(column, row, 0);
      light += value;
      east += value * (column + 0.5);
      south += value * (row + 0.5);
    }
  return [(east / light / image.width) * SIDE, (south / light / image.height) * SIDE];
}

assert.deepEqual(centre(tile), [34, 30]);
for (const factor of [0.25, 0.5, 2, 4])
  for (const interpolationType of [undefined, "bilinear", "bicubic", "nearest"]) {
    const size = { width: SIDE * factor, height: SIDE * factor };
    const found = centre(tile.resize({ ...size, interpolationType }));
    const [east, south] = [found[0] - 34, found[1] - 30];
    console.log("size times", factor, interpolationType ?? "default", "- moved by", east, south);
    const wanted = interpolationType === "nearest" ? 0 : 0.5 / factor;
    for (const moved of [east, south]) assert(Math.abs(moved - wanted) < 0.01);
  }
JAVASCRIPT
node sizes.mjs
