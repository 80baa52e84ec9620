#!/usr/bin/env bash
# geotiff (Python) gives an overview of the image for its second band, at a quarter of its place.
#
# Guess before the run: GeoTiff(file, band=1) is the second band of the image ("if the geotiff file
# has multiple bands, you can specify which band to use"), with its size and bounding box.
# Seen: of an image of 64 x 64 m with overviews, as cloud-optimized files have them, band=1 is all
# three bands at 2 m, 32 x 32 pixels, with the box of the western and northern half, as if a pixel
# were 1 m still; band=2 is that of 4 m. band=0 is not the first band, but all of them. Of a file
# with one band after the other the box is 64 m wide and 3 m high. There is no message.
# Versions: geotiff 0.2.10, tifffile 2023.8.12, zarr 2.12.0, rasterio 1.4.4. Source:
# geotiff/geotiff.py, GeoTiff.__init__: tif.aszarr(key=band) takes the page of that number, which is
# an overview, and the pixel size is that of the first page.
# Hurt: who reads masks or heights beside imagery without GDAL: houses are half as large and stand
# elsewhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geotiff==0.2.10 tifffile==2023.8.12 \
  zarr==2.12.0 numcodecs==0.12.1 rasterio==1.4.4 numpy==1.26.4 pyproj==3.7.2
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import rasterio
from geotiff import GeoTiff
from rasterio.transform import from_origin

WEST, NORTH = 500_000, 5_500_064
image = np.zeros((3, 64, 64), "uint8")
image[:, 16:48, 16:48] = np.array([101, 102, 103])[:, None, None]
seen = {}
for interleave in ("pixel", "band"):
    with rasterio.open(
        f"{interleave}.tif", "w", driver="GTiff", width=64, height=64, count=3, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(WEST, NORTH, 1, 1), interleave=interleave,
        tiled=True, blockxsize=16, blockysize=16,
    ) as file:
        file.write(image)
    with rasterio.open(f"{interleave}.tif", "r+") as file:
        file.build_overviews([2, 4])
    for band in range(3):
        raster = GeoTiff(f"{interleave}.tif", band=band, as_crs=32633)
        east, south = raster.tif_bBox[1]
        shape = np.array(raster.read()).shape
        seen[interleave, band] = shape, (east - WEST, NORTH - south)
        print(interleave, band, "shape and size in metres:", *seen[interleave, band])
assert seen == {
    ("pixel", 0): ((64, 64, 3), (64, 64)), ("band", 0): ((3, 64, 64), (64, 3)),
    ("pixel", 1): ((32, 32, 3), (32, 32)), ("band", 1): ((3, 32, 32), (32, 3)),
    ("pixel", 2): ((16, 16, 3), (16, 16)), ("band", 2): ((3, 16, 16), (16, 3)),
}
PYTHON
