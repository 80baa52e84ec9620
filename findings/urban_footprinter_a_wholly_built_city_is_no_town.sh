#!/usr/bin/env bash
# urban-footprinter: a wholly built city is no town, nor is a boolean mask; shapes are in pixels.
#
# Guess before the run: where every pixel around is built, the share is 1, so thresholds up to 1
# hold; a boolean mask needs no urban_classes, as the docstring says; shapes are on the file's map.
# Seen: of ground of 60 by 60 pixels of 10 m that is built to the last pixel, a kernel of 50 m finds
# all pixels at a threshold of 0.6 and none at 0.7; of ground that is built to the half, all at 0.3
# and none at 0.4. A town of 40 by 40 pixels as boolean mask without urban_classes has 0 pixels, as
# class 1 of uint8 1,284. Its shape from a GeoTIFF of UTM has bounds of 12 to 48, which are pixels;
# with the transform passed again they are metres. There is no message.
# Versions: urban-footprinter 0.4.0 (the latest), rasterio 1.4.4. Source: urban_footprinter/
# __init__.py, compute_footprint_mask: the sum in a circle is compared with the threshold times the
# pixels of the square around it; __init__: "if urban_classes is None" is overwritten by the "else"
# of the "if" behind it; compute_footprint_mask_shp passes shapes_kwargs, not _shapes_kwargs.
# Hurt: who draws the edge of a town from building masks: dense centres are left out, since each
# threshold counts a quarter to a half more than said, and outlines of a file are not on its map.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check urban-footprinter==0.4.0 numpy==1.26.4 \
  pandas==2.3.3 rasterio==1.4.4 scipy==1.15.3 shapely==2.1.2 opencv-python-headless==4.11.0.86
venv/bin/python - <<'PYTHON'
import numpy
import rasterio
from rasterio.transform import from_origin
from urban_footprinter import urban_footprint_mask, urban_footprint_mask_shp


def count(built, threshold, classes=1):
    """Return how many pixels of 10 m are town, for a kernel with a radius of 50 m."""
    mask = urban_footprint_mask(built, 50, threshold, urban_classes=classes, res=10)
    return int(mask.sum())


dense = numpy.ones((60, 60), "uint8")
half = (numpy.indices((60, 60)).sum(axis=0) % 2).astype("uint8")
shares = [count(dense, 0.6), count(dense, 0.7), count(half, 0.3), count(half, 0.4)]
print("wholly built at 0.6 and 0.7, half built at 0.3 and 0.4:", shares)
assert shares == [3600, 0, 3600, 0]

town = numpy.zeros((60, 60), "uint8")
town[10:50, 10:50] = 1
found = [count(town, 0.5), count(town.astype(bool), 0.5, None)]
print("pixels of a town as class 1 and as boolean mask:", found)
assert found == [1284, 0]

place = from_origin(500_000, 5_500_000, 10, 10)
with rasterio.open(
    "town.tif", "w", driver="GTiff", height=60, width=60, count=1, dtype="uint8",
    crs="EPSG:32633", transform=place,
) as scene:
    scene.write(town, 1)
alone = urban_footprint_mask_shp("town.tif", 50, 0.5, urban_classes=1).bounds
told = urban_footprint_mask_shp("town.tif", 50, 0.5, urban_classes=1, transform=place).bounds
print("bounds", alone, "with the transform", told)
assert alone == (12, 12, 48, 48) and told == (500_120, 5_499_520, 500_480, 5_499_880)
PYTHON
