#!/usr/bin/env bash
# Four readers of GeoTIFF turn the voids of a surface model in LERC into heights of 0.
#
# Guess before the run: pixels that are NaN in a file of GDAL are NaN for each reader that knows the
# compression, as with deflate; a reader that cannot do it refuses.
# Seen: the 4,000 voids of a surface model are 0.0 in geotiff.js, tifffile, async-geotiff and
# virtual-tiff with xarray; with deflate they are NaN in all of them. LERC keeps NaN in a mask of
# its own, which GDAL reads; these readers take the numbers and leave the mask. The file says that
# nodata is NaN, so a test for nodata finds none, and there is no message. With nodata -9999, which
# are ordinary numbers for LERC, all find their voids.
# Versions: geotiff 3.0.5 (npm), tifffile 2026.3.3 with imagecodecs 2026.3.6, async-geotiff 0.5.1
# with async-tiff 0.7.2, virtual-tiff 0.5.0, rasterio 1.4.4. Source: compression/lerc.js of geotiff
# (pixels without mask), imagecodecs.lerc_decode without masks=True, async-tiff's decoder of LERC.
# Hurt: who takes heights of buildings or of the ground from such a model, often a COG, in a web map
# or without GDAL: where the terrain has voids, a house on a hill of 300 m is 300 m high.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterio==1.4.4 tifffile==2026.3.3 \
  imagecodecs==2026.3.6 async-geotiff==0.5.1 async-tiff==0.7.2 virtual-tiff==0.5.0 \
  imagecodecs-numcodecs==2026.3.6 virtualizarr==2.5.1 obstore==0.12.1 obspec-utils==0.9.0 \
  zarr==3.1.6 xarray==2026.9.0 numpy==2.4.6
npm install --silent --no-fund --no-audit geotiff@3.0.5
cat > make.py <<'PYTHON'
import numpy as np
import rasterio

heights = np.full((256, 256), 310, np.float32)
heights[100:120, 50:250] = np.nan
for name, compress, nodata in (
    ("lerc", "lerc_deflate", np.nan), ("deflate", "deflate", np.nan),
    ("numbers", "lerc_deflate", -9999),
):
    with rasterio.open(
        f"{name}.tif", "w", driver="GTiff", width=256, height=256, count=1, dtype="float32",
        crs=32633, transform=rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000),
        tiled=True, blockxsize=128, blockysize=128, compress=compress, nodata=nodata,
    ) as file:
        file.write(np.nan_to_num(heights, nan=nodata), 1)
PYTHON
venv/bin/python make.py
cat > read.mjs <<'JAVASCRIPT'
import fs from "node:fs";
import { fromFile } from "geotiff";

for (const name of ["lerc", "deflate", "numbers"]) {
  const image = await (await fromFile(`${name}.tif`)).getImage();
  const [heights] = await image.readRasters();
  fs.writeFileSync(`${name}.bin`, heights);
}
JAVASCRIPT
node read.mjs
cat > compare.py <<'PYTHON'
import asyncio
import os

import async_geotiff
import numpy as np
import rasterio
import tifffile
import virtual_tiff
import xarray
from obspec_utils.registry import ObjectStoreRegistry
from obstore.store import LocalStore


def rasterio_reads(name):
    with rasterio.open(f"{name}.tif") as file:
        return file.read(1)


def geotiff_js_reads(name):
    return np.fromfile(f"{name}.bin", np.float32).reshape(256, 256)


def tifffile_reads(name):
    return tifffile.imread(f"{name}.tif")


def async_geotiff_reads(name):
    async def read():
        file = await async_geotiff.GeoTIFF.open(f"{name}.tif", store=LocalStore(os.getcwd()))
        return (await file.read()).data[0]

    return asyncio.run(read())


def virtual_tiff_reads(name):
    stores = ObjectStoreRegistry({"file://": LocalStore()})
    url = f"file://{os.path.abspath(name)}.tif"
    store = virtual_tiff.VirtualTIFF(ifd=0)(url, registry=stores)
    table = xarray.open_zarr(store, consolidated=False, zarr_format=3)
    return next(iter(table.data_vars.values())).values.squeeze()


for read in (
    rasterio_reads, geotiff_js_reads, tifffile_reads, async_geotiff_reads, virtual_tiff_reads,
):
    voids = {
        name: np.unique(read(name)[100:120, 50:250]).tolist()
        for name in ("lerc", "deflate", "numbers")
    }
    print(f"{read.__name__:20} voids by compression:", voids)
    expected = [np.nan] if read is rasterio_reads else [0]
    assert np.array_equal(voids["lerc"], expected, equal_nan=True)
    assert np.isnan(voids["deflate"]).all() and len(voids["deflate"]) == 1
    # xarray makes NaN of the nodata that the file names
    expected = [np.nan] if read is virtual_tiff_reads else [-9999]
    assert np.array_equal(voids["numbers"], expected, equal_nan=True)
PYTHON
venv/bin/python -W ignore compare.py
