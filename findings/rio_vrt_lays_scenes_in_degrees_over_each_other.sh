#!/usr/bin/env bash
# rio-vrt lays the rows of scenes in degrees over each other, and takes fine for coarse.
#
# Guess before the run: build_vrt, whose resolutions have the names of gdalbuildvrt's, keeps the
# width and the height of pixels; in a mosaic of scenes of two pixel sizes each scene covers its own
# ground; and res="highest" takes the smallest pixels.
# Seen: of scenes whose pixels are 1e-5 degrees wide and 6e-6 high, as square ones are at 53 N,
# pixels become 1e-5 high: each scene begins where it should, is stretched to the south by two
# thirds, and lies over the next or is cut at the end. Of two scenes of 10,000 pixels 6,000 of each
# are left. Beside a scene with pixels of 1e-5, one with pixels of 2e-5 covers a quarter of its
# ground under res="lowest", which takes the smallest pixels; "highest" takes the largest, and shows
# one quarter of the fine scene, stretched over the ground of all of it. There is no message.
# Versions: rio-vrt 0.3.1, rasterio 1.4.4, affine 2.4.0. Source: rio_vrt/vrt.py, build_vrt: yres_ is
# filled from f.res[0], "highest" from max; _add_source_content takes the size of a source in its
# own pixels for its size in those of the mosaic.
# Hurt: who opens tiles of orthophotos, heights or scenes of a satellite in longitude and latitude
# as one file: streets are cut, and houses lie up to 40 rows from their place. HydroMT builds the
# VRT of the tiles that it caches with it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rio-vrt==0.3.1 rasterio==1.4.4 \
  affine==2.4.0 numpy==2.2.6
venv/bin/python - <<'PYTHON'
import numpy as np
import rasterio
from rasterio.merge import merge
from rasterio.transform import from_origin
from rio_vrt import build_vrt

WEST, NORTH = 13, 53


def scene(value, col, row, width, height, count):
    """Write a scene of count x count pixels, whose corner is that many pixels from the origin."""
    corner = from_origin(WEST + col * width, NORTH - row * height, width, height)
    with rasterio.open(
        f"{value}.tif", "w", driver="GTiff", width=count, height=count, count=1, dtype="uint8",
        crs=4326, transform=corner, nodata=0,
    ) as file:
        file.write(np.full((1, count, count), value, np.uint8))
    return f"{value}.tif"


def pixels(band, values):
    return [int((band == value).sum()) for value in values]


def mosaic(files, values, res="average"):
    """Return pixel size and shape, and the pixels of each scene, by rio-vrt and by rasterio."""
    build_vrt("town.vrt", files, res=res)
    with rasterio.open("town.vrt") as town:
        size = tuple(float(f"{each:.0e}") for each in town.res)
        found = size, town.shape, pixels(town.read(1), values)
    right = merge(files, res=size)[0][0]
    return *found, pixels(right, values)


files = [scene(1, 0, 0, 1e-5, 6e-6, 100), scene(2, 0, 100, 1e-5, 6e-6, 100)]
size, shape, found, _ = mosaic(files, (1, 2))
right = merge(files)[0][0]
print("pixels of two scenes:", size, shape, found, "right:", right.shape, pixels(right, (1, 2)))
assert size == (1e-5, 1e-5) and shape == (120, 100) and found == [6000, 6000]
assert right.shape == (200, 100) and pixels(right, (1, 2)) == [10000, 10000]

fine, coarse = scene(3, 0, 0, 1e-5, 1e-5, 100), scene(4, 50, 0, 2e-5, 2e-5, 50)
seen = {res: mosaic([fine, coarse], (3, 4), res=res) for res in ("highest", "lowest")}
for res, (size, shape, found, right) in seen.items():
    print(f"{res:8} pixel {size[0]} in degrees, pixels of both scenes: {found}, right: {right}")
assert seen["lowest"][0] == (1e-5, 1e-5) and seen["lowest"][2:] == ([10000, 2500], [10000, 10000])
assert seen["highest"][0] == (2e-5, 2e-5) and seen["highest"][2:] == ([2500, 2500], [2500, 2500])
PYTHON
