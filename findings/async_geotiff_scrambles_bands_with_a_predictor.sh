#!/usr/bin/env bash
# async-geotiff reads noise from orthophotos whose bands are stored one after the other.
#
# Guess before the run: a tiled GeoTIFF of GDAL with deflate and PREDICTOR=2 is read the same
# whether its bands are interleaved by pixel or by band, or the reader refuses what it cannot read.
# Seen: with INTERLEAVE=BAND and a predictor, 2 or 3, more than half of the values of an orthophoto
# of 3 bands are wrong, and so is a float32 raster of 2 bands: differences are added up between
# pixels as many places apart as there are bands, though a tile holds one band. Size, type, CRS and
# nodata are right, and there is no message. By pixel, without a predictor, or with one band all is
# right, and rasterio and tifffile read each of the files.
# Versions: async-geotiff 0.5.1 with async-tiff 0.7.2, tifffile 2026.3.3 with imagecodecs 2026.3.6,
# rasterio 1.4.4. Source: the predictor of async-tiff, which takes SamplesPerPixel as its step and
# does not ask for PlanarConfiguration.
# Hurt: who feeds a network or a map server from such orthophotos, which many surveys deliver by
# band: predictions of noise, and a model trained on it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterio==1.4.4 tifffile==2026.3.3 \
  imagecodecs==2026.3.6 async-geotiff==0.5.1 async-tiff==0.7.2 obstore==0.12.1 numpy==2.4.6
cat > compare.py <<'PYTHON'
import asyncio
import os

import async_geotiff
import numpy as np
import rasterio
import tifffile
from obstore.store import LocalStore

roofs = np.random.default_rng(7).integers(40, 255, (3, 15, 20))
scene = np.kron(roofs, np.ones((20, 20))).astype(np.uint8)


async def read(path):
    file = await async_geotiff.GeoTIFF.open(path, store=LocalStore(os.getcwd()))
    return (await file.read()).data


def wrong_share(bands, kind, interleave, predictor):
    """The share of values that async-geotiff reads otherwise than they were written."""
    written = scene[:bands].astype(kind)
    with rasterio.open(
        "scene.tif", "w", driver="GTiff", width=400, height=300, count=bands, dtype=kind,
        crs=32633, transform=rasterio.Affine(0.2, 0, 500_000, 0, -0.2, 5_000_000),
        tiled=True, blockxsize=128, blockysize=128, compress="deflate",
        interleave=interleave, predictor=predictor,
    ) as file:
        file.write(written)
    with rasterio.open("scene.tif") as file:
        assert np.array_equal(file.read(), written)
    others = tifffile.imread("scene.tif")
    assert np.array_equal(np.moveaxis(others, -1, 0) if interleave == "pixel" else others,
                          written if bands > 1 else written[0])
    found = asyncio.run(read("scene.tif"))
    assert found.shape == written.shape and found.dtype == written.dtype
    return round(float((found != written).mean()), 2)


shares = {
    case: wrong_share(*case)
    for case in (
        (3, "uint8", "band", 2), (3, "uint16", "band", 2), (2, "float32", "band", 3),
        (3, "uint8", "pixel", 2), (3, "uint8", "band", 1), (1, "uint8", "band", 2),
    )
}
for (bands, kind, interleave, predictor), share in shares.items():
    print(f"{bands} bands of {kind} by {interleave}, predictor {predictor}: {share:.0%} wrong")
values = list(shares.values())
assert min(values[:3]) > 0.5 and max(values[3:]) == 0
PYTHON
venv/bin/python -W ignore compare.py
