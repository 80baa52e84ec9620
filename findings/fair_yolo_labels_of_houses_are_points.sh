#!/usr/bin/env bash
# hot-fair-utilities makes a point in the corner of its tile of each house for YOLO.
#
# Guess before the run: preprocess() with its defaults writes chips and labels in EPSG:3857, as it
# says, and yolo_format() writes the outlines of those labels as parts of the chip's width and
# height, also of houses that the edge of a chip cuts into several parts.
# Seen: a house over a fifth of a chip's width and height becomes "0 1 0 1 0 1 0 1 0 1 0": a point
# at the upper right. Chips in EPSG:3857 are taken to have labels in degrees; metres are clipped to
# 0 and 1 before the check that values lie between them, which so holds always. With epsg=4326 the
# outline is right, but a house in U that the edge cuts into two wings has no label in either, as
# multipolygons are left out, while the mask from the same preprocess() has both wings. Nothing
# warns.
# Versions: hot-fair-utilities 4.0.0, geomltoolkits 2.1.2, geopandas 1.1.1. Source:
# preprocessing/yolo_v8/utils.py, convert_coordinates (check_and_clamp before the assertions) and
# write_yolo_file (only "Polygon").
# Hurt: who trains YOLO for fAIr on labels from preprocess(): the network learns no house at all, or
# that houses at the edges of chips are ground.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  geopandas==1.1.1 pandas==2.3.3 pyogrio==0.12.1 rasterio==1.4.4 mercantile==1.2.1 rich==14.2.0 \
  scipy==1.17.1 rio-cogeo==7.0.4 numpy==2.2.6 aiohttp==3.14.5 rtree==1.4.1 pyyaml==6.0.3 \
  typer==0.21.1 tenacity==9.2.1 pydantic==2.12.5 requests==2.32.5 pillow==12.1.1 shapely==2.1.2
venv/bin/pip install --quiet --disable-pip-version-check --no-deps geomltoolkits==2.1.2 \
  hot-fair-utilities==4.0.0
venv/bin/python -W ignore - > log <<'PYTHON'
from pathlib import Path

import geopandas
import mercantile
import numpy as np
import rasterio
from hot_fair_utilities.preprocessing import preprocess, yolo_format
from PIL import Image
from shapely import box

tile = mercantile.tile(85.3, 27.7, 18)
west, south, east, north = mercantile.bounds(tile)
Path("scene").mkdir()
for number in range(10):
    image = Image.new("RGB", (256, 256))
    image.save(f"scene/OAM-{tile.x + number}-{tile.y}-18.png")


def part(left, top, right, bottom):
    """Return a rectangle from parts of the tile's width and height."""
    wide, high = east - west, north - south
    return box(west + left * wide, north - bottom * high, west + right * wide, north - top * high)


house = part(0.2, 0.2, 0.4, 0.4)
wings = part(-0.3, 0.6, 0.3, 0.9).difference(part(-0.1, 0.7, 0.3, 0.8))
labels = geopandas.GeoDataFrame(geometry=[house, wings], crs=4326)
labels.to_file("scene/labels.geojson", driver="GeoJSON")

for epsg, outlines in (
    (3857, [{(1, 0)}]),
    (4326, [{(0.2, 0.2), (0.2, 0.4), (0.4, 0.2), (0.4, 0.4)}]),
):
    options = {} if epsg == 3857 else {"epsg": epsg}
    preprocess("scene", f"ready{epsg}/scene", rasterize=True, rasterize_options=["binary"],
               georeference_images=True, **options)
    yolo_format(input_path=f"ready{epsg}/*", output_path=f"yolo{epsg}")
    (written,) = Path(f"yolo{epsg}", "labels").rglob(f"OAM-{tile.x}-{tile.y}-18.txt")
    seen = [set(zip(*[iter(map(float, line.split()[1:]))] * 2))
            for line in written.read_text().splitlines()]
    mask = f"ready{epsg}/scene/binarymasks/OAM-{tile.x}-{tile.y}-18.mask.tif"
    with rasterio.open(mask) as dataset:
        houses = round(float(np.mean(dataset.read(1))), 2)
    print(f"EPSG:{epsg}: corners of the labels {[sorted(outline) for outline in seen]}, "
          f"houses in the mask {houses}")
    assert seen == outlines
    assert houses == 0.1
PYTHON
grep "^EPSG" log
