#!/usr/bin/env bash
# maplibre-cog-protocol reads a void of heights in decimetres as -999.9 m, and ground as a void.
#
# Guess before the run: locationValues gives metres where a COG has a scale and an offset, and NaN
# where its pixel is nodata, as its README says: the stored number is compared with nodata, and then
# scaled.
# Seen: with heights in metres a house has 9 m, and a void and what lies beside the scene NaN. With
# the same heights in decimetres (scale 0.1, nodata -9999) the house has 9 m, the void -999.9 m, and
# so has all that lies beside the scene. With centimetres above -100 m (offset -100, nodata 0) the
# void is at -100 m, and ground at sea level, whose scaled value is 0, is NaN. There is no message.
# Versions: @geomatico/maplibre-cog-protocol 0.9.3 (npm) with geotiff 3.0.5, rasterio 1.4.4. Source:
# read/locationValues.ts, render/renderColor.ts and renderTerrain.ts: the scaled number is compared
# with noData. (esbuild puts the package into a file, as its modules are made for bundlers.)
# Hurt: who asks for heights of roofs under the mouse, or sums up a profile; #color and #dem compare
# in the same way, so that voids are painted as the deepest ground, and ground at zero is clear.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterio==1.4.4 numpy==2.2.6
npm install --silent --no-fund --no-audit --legacy-peer-deps \
  @geomatico/maplibre-cog-protocol@0.9.3 geotiff@3.0.5 esbuild@0.25.10
venv/bin/python - <<'PYTHON'
import numpy
import rasterio
import rasterio.shutil
from rasterio.transform import from_origin

EARTH = 20037508.342789244
ZOOM, COLUMN, ROW, SIDE = 18, 140000, 86000, 512
pixel = 2 * EARTH / 2**ZOOM / 256
place = from_origin(COLUMN * 256 * pixel - EARTH, EARTH - ROW * 256 * pixel, pixel, pixel)
metres = numpy.zeros((SIDE, SIDE))
metres[100:200, 100:200] = 9
void = numpy.zeros((SIDE, SIDE), dtype=bool)
void[300:400, 300:400] = True
kinds = [("m", 1, 0, -9999), ("dm", 0.1, 0, -9999), ("cm", 0.01, -100, 0)]
for name, scale, offset, nodata in kinds:
    stored = numpy.where(void, nodata, (metres - offset) / scale).round().astype("int16")
    with rasterio.open(
        "plain.tif", "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype="int16",
        nodata=nodata, crs="EPSG:3857", transform=place,
    ) as raster:
        raster.write(stored, 1)
        raster.scales, raster.offsets = (scale,), (offset,)
    rasterio.shutil.copy("plain.tif", f"{name}.tif", driver="COG", blocksize=256)
PYTHON
cat > read.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import fs from "node:fs";
import http from "node:http";
import { locationValues } from "@geomatico/maplibre-cog-protocol";

const server = http.createServer((request, response) => {
  const file = fs.readFileSync(`.${request.url}`);
  const [start, end] = request.headers.range.match(/\d+/g).map(Number);
  const part = file.subarray(start, end + 1);
  const range = `bytes ${start}-${start + part.length - 1}/${file.length}`;
  response.writeHead(206, { "content-range": range, "content-length": part.length }).end(part);
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const place = (column, row) => {
  const [x, y] = [140000 + column / 256, 86000 + row / 256].map((tile) => tile / 2 ** 18);
  const latitude = (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI;
  return { longitude: 360 * x - 180, latitude };
};
const PLACES = {
  ground: [50.5, 50.5], house: [150.5, 150.5], void: [350.5, 350.5], beside: [600.5, 9.5],
};
const seen = {};
for (const name of ["m", "dm", "cm"]) {
  seen[name] = {};
  for (const [what, pixel] of Object.entries(PLACES)) {
    const url = `http://127.0.0.1:${server.address().port}/${name}.tif`;
    const [value] = await locationValues(url, place(...pixel));
    seen[name][what] = Math.round(value * 10) / 10;
  }
  console.log(name, JSON.stringify(seen[name]));
}
assert.deepStrictEqual(seen, {
  m: { ground: 0, house: 9, void: NaN, beside: NaN },
  dm: { ground: 0, house: 9, void: -999.9, beside: -999.9 },
  cm: { ground: NaN, house: 9, void: -100, beside: -100 },
});
process.exit(0);
JAVASCRIPT
npx esbuild read.mjs --bundle --platform=node --format=esm --log-level=error --outfile=out.mjs \
  --external:geotiff --external:quick-lru --external:@mapbox/sphericalmercator --external:d3-scale
node out.mjs
