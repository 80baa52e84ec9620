#!/usr/bin/env bash
# rio-stac gives a scene of 100 m on the antimeridian a box around the whole world.
#
# Guess before the run: the bbox of an item whose geometry crosses longitude 180 has its west edge
# at 179.9 and its east edge at -179.9, as RFC 7946 (5.2) says and STAC asks for; rasterio's
# transform_bounds, which it could take, gives this.
# Seen: the geometry is right, a MultiPolygon of two parts that end at 180; the bbox is -180 to 180,
# the extreme coordinates of both parts. A search by box in Africa finds the scene on Taveuni.
# Versions: rio-stac 0.12.0, rasterio 1.4.4. Source: rio_stac/stac.py, get_dataset_geom, which calls
# rasterio.features.bounds of the geometry after it is cut.
# Hurt: who makes a catalogue of Fiji, New Zealand's islands, Chukotka or the Aleutians: each search
# at these latitudes returns them, and mosaics open files from the other side of the world.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rio-stac==0.12.0 rasterio==1.4.4
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from rio_stac import create_stac_item

place = from_origin(180498, 8118048, 1, 1)
with rasterio.open("taveuni.tif", "w", driver="GTiff", width=100, height=100, count=1,
                   dtype="uint8", crs="EPSG:32701", transform=place) as image:
    image.write(np.ones((1, 100, 100), "uint8"))
with rasterio.open("taveuni.tif") as image:
    right = transform_bounds(image.crs, "EPSG:4326", *image.bounds)
item = create_stac_item("taveuni.tif")
parts = item.geometry["coordinates"]
widths = [round(float(np.ptp([x for x, _ in ring])), 6) for (ring,) in parts]
print("transform_bounds:", [round(number, 4) for number in right])
box = [round(number, 4) for number in item.bbox]
print("bbox of the item:", box, "width of its parts:", widths)
assert right[0] > 179.99 and right[2] < -179.99
assert (item.bbox[0], item.bbox[2]) == (-180, 180)
assert len(parts) == 2 and max(widths) < 0.001
PYTHON
