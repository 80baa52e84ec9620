#!/usr/bin/env bash
# geotiff.js places a GeoTIFF whose pixels are points half a pixel to the south-east of where GDAL does.
#
# Guess before the run: getBoundingBox is the extent of the pixels for both values of
# GTRasterTypeGeoKey, since the GeoTIFF standard (OGC 19-008r4, 7.1.2) says what a tie point means.
# Seen: the tie point of a PixelIsPoint file, which is the centre of the first pixel, is taken for its
# corner: with pixels of 10 m the box lies 5 m east and 5 m south of the one that GDAL gives, and the
# same pixels written as PixelIsArea agree. image.pixelIsArea() is right, but nothing uses it.
# Versions: geotiff 2.1.3 (npm), rasterio 1.4.4. Source: getOrigin and getBoundingBox in
# geotiffimage.js.
# Hurt: who overlays a surface or terrain model in a browser: many are distributed as points (SRTM,
# Copernicus, 3DEP), and buildings then stand beside their steps by half a pixel.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterio==1.4.4
npm install --silent --no-fund --no-audit geotiff@2.1.3
venv/bin/python - <<'PYTHON'
import numpy as np
import rasterio
from rasterio.transform import from_origin

for kind in ("Area", "Point"):
    with rasterio.open(
        f"{kind}.tif", "w", driver="GTiff", width=40, height=30, count=1, dtype="float32",
        crs="EPSG:32633", transform=from_origin(500_000, 5_000_000, 10, 10),
    ) as file:
        file.update_tags(AREA_OR_POINT=kind)
        file.write(np.zeros((1, 30, 40), dtype=np.float32))
    with rasterio.open(f"{kind}.tif") as file:
        print("GDAL", kind, tuple(file.bounds))
        assert tuple(file.bounds) == (500_000, 4_999_700, 500_400, 5_000_000)
PYTHON
cat > boxes.mjs <<'JAVASCRIPT'
import assert from "node:assert";
import { fromFile } from "geotiff";

const wanted = { Area: [500000, 4999700, 500400, 5000000], Point: [500005, 4999695, 500405, 4999995] };
for (const [kind, box] of Object.entries(wanted)) {
  const image = await (await fromFile(`${kind}.tif`)).getImage();
  console.log("geotiff.js", kind, image.getBoundingBox(), image.pixelIsArea());
  assert.deepEqual(image.getBoundingBox(), box);
  assert.equal(image.pixelIsArea(), kind === "Area");
}
JAVASCRIPT
node boxes.mjs
