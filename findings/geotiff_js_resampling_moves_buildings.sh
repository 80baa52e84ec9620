#!/usr/bin/env bash
# geotiff.js moves buildings where it reads a mask at another size: 1.5 pixels at a quarter of it.
#
# Guess before the run: readRasters({width, height}) covers the extent of the image, so a building
# stays where it is, up to what whole pixels allow; GDAL's nearest neighbour is half a pixel off at
# a quarter of the size, since the middle of four pixels is none, and its bilinear one not at all.
# Seen: the mean shift over all places of a house of 40 pixels, in pixels of the file, is 1.5 to the
# right and down at a quarter of the size and 0.5 at half of it, by nearest and bilinear alike: an
# output pixel has the value of the upper left pixel that it covers. Four times enlarged, a house is
# 0.5 pixels to the left and up by nearest, which is two pixels of the screen, and 0.38 by bilinear.
# The box that belongs to the result is that of the image, so outlines of the result are off.
# Versions: geotiff 2.1.3 (3.1.0-beta.0 has the same values), rasterio 1.4.4. Source: resample.js,
# which takes relX * x and not relX * (x + 0.5) - 0.5.
# Hurt: who draws a mask over an image on a web map, or measures in one that was read at the zoom of
# the map; with overviews both errors add up.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterio==1.4.4 numpy==2.2.6
npm install --silent --no-fund --no-audit geotiff@2.1.3
cat > make.py <<'PYTHON'
import numpy as np
import rasterio
from rasterio.transform import from_origin

# twelve masks, each with a house of 40 x 40 pixels one pixel further to the right and down
for start in range(40, 52):
    mask = np.zeros((240, 240), np.uint8)
    mask[start : start + 40, start : start + 40] = 200
    with rasterio.open(
        f"{start}.tif", "w", driver="GTiff", width=240, height=240, count=1, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(500000, 5000000, 1, 1),
    ) as file:
        file.write(mask, 1)
PYTHON
venv/bin/python make.py
cat > read.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import { fromFile } from "geotiff";

const found = [];
for (const size of [60, 120, 480, 960]) {
  for (const method of ["nearest", "bilinear"]) {
    for (let start = 40; start < 52; start++) {
      const image = await (await fromFile(`${start}.tif`)).getImage();
      const values = await image.readRasters({
        width: size, height: size, resampleMethod: method, interleave: true,
      });
      found.push({ size, method, start, values: Array.from(values) });
    }
  }
}
fs.writeFileSync("found.json", JSON.stringify(found));
JAVASCRIPT
node read.mjs
venv/bin/python - <<'PYTHON'
import json

import numpy as np
import rasterio
from rasterio.enums import Resampling


def shift(pixels, start):
    """How far the house is to the right and below of its place, in pixels of the file."""
    size = len(pixels)
    weights = np.asarray(pixels, float)
    places = (np.arange(size) + 0.5) * 240 / size - (start + 20)
    return np.array([weights.sum(0) @ places, weights.sum(1) @ places]) / weights.sum()


js, gdal = {}, {}
for one in json.load(open("found.json")):
    size, start, key = one["size"], one["start"], (one["size"], one["method"])
    js.setdefault(key, []).append(shift(np.reshape(one["values"], (size, size)), start))
    with rasterio.open(f"{start}.tif") as file:
        pixels = file.read(1, out_shape=(size, size), resampling=Resampling[one["method"]])
    gdal.setdefault(key, []).append(shift(pixels, start))
for key in js:
    js[key], gdal[key] = np.mean(js[key], 0), np.mean(gdal[key], 0)
    print(f"{key[0] / 240:5} {key[1]:8} geotiff.js {js[key].round(2)} GDAL {gdal[key].round(2)}")
expected = {
    (60, "nearest"): 1.5, (120, "nearest"): 0.5, (480, "nearest"): -0.5, (960, "nearest"): -0.5,
    (60, "bilinear"): 1.5, (120, "bilinear"): 0.5,
    (480, "bilinear"): -0.25, (960, "bilinear"): -0.375,
}
for key, value in expected.items():
    assert np.allclose(js[key], value, atol=0.02), key
    assert np.all(np.abs(gdal[key]) <= (0.51 if key[1] == "nearest" else 0.02)), key
PYTHON
