#!/usr/bin/env bash
# rio-tiler's ImageReader masks the polygon that it was asked for, unless it is at the top left.
#
# Guess before the run: feature() of an image without georeference reads the pixels around a polygon
# in pixel coordinates and masks what lies outside it, wherever the polygon is; Reader does so for
# images with one.
# Seen: of a house of 40 x 20 pixels in the top left corner all 800 are valid, 10 to the right and 5
# down 450, and 40 or more to the right none: the array has the right pixels, and each is masked.
# An L is valid where another L, moved by its own offset, would be. mean() of what is left, PNG and
# statistics follow the mask. part() is right, and so is Reader. There is no message.
# Versions: rio-tiler 9.4.12, rasterio 1.4.4, numpy 2.4.6. Source: rio_tiler/io/rasterio.py,
# ImageReader.feature: geometry_mask of the size of the crop has the transform of the whole image.
# Hurt: who cuts labelled houses out of aerial photographs and scans, which have no georeference:
# chips are empty, or hold the corner of a house.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 rasterio==1.4.4 \
  rio-tiler==9.4.12 morecantile==7.1.0 pystac==1.15.2 pydantic==2.14.4 numexpr==2.14.2 \
  color-operations==0.4.0 cachetools==8.0.0 httpx2==2.16.2
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import rasterio
from rasterio.features import geometry_mask
from rasterio.transform import from_origin
from rio_tiler.io import ImageReader, Reader

image = np.arange(200 * 300, dtype=np.uint16).reshape(200, 300)
for name, georeference in (
    ("photo.tif", {}),
    ("map.tif", {"crs": "EPSG:32632", "transform": from_origin(500000, 5500200, 1, 1)}),
):
    with rasterio.open(name, "w", driver="GTiff", height=200, width=300, count=1, dtype="uint16",
                       **georeference) as scene:
        scene.write(image, 1)

HOUSE = [(0, 0), (40, 0), (40, 20), (0, 20)]
WINGS = [(0, 0), (40, 0), (40, 10), (10, 10), (10, 20), (0, 20)]


def polygon(corners, column, row):
    ring = [(x + column, y + row) for x, y in corners]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def valid(corners, column, row):
    """Return how many pixels are valid of those that lie in the polygon, and how many beside it."""
    shape = polygon(corners, column, row)
    with ImageReader("photo.tif") as reader:
        chip = reader.feature(shape).array
        part = reader.part((column, row + 20, column + 40, row)).array
    assert (chip.data[0] == image[row:row + 20, column:column + 40]).all()
    assert (part.data == chip.data).all() and not part.mask.any()
    outside = geometry_mask([shape], image.shape, rasterio.Affine.identity())
    outside = outside[row:row + 20, column:column + 40]
    return int((~chip.mask[0] & ~outside).sum()), int((~chip.mask[0] & outside).sum())


seen = {}
for column, row in ((0, 0), (10, 5), (40, 0), (100, 120)):
    seen[column, row] = valid(HOUSE, column, row), valid(WINGS, column, row)
    print(f"house at {column}, {row}: {seen[column, row][0][0]} of 800 pixels are valid;",
          "an L: {} of 500, and {} beside it".format(*seen[column, row][1]))
assert [house for house, _ in seen.values()] == [(800, 0), (450, 0), (0, 0), (0, 0)]
assert [wings for _, wings in seen.values()] == [(500, 0), (150, 200), (0, 0), (0, 0)]

with Reader("map.tif") as reader:
    ring = [(500000 + x + 100, 5500200 - y - 120) for x, y in HOUSE]
    shape = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    chip = reader.feature(shape, shape_crs=reader.crs, dst_crs=reader.crs).array
print("Reader, with georeference:", int((~chip.mask).sum()), "of 800")
assert chip.shape == (1, 20, 40) and not chip.mask.any()
PYTHON
