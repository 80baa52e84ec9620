#!/usr/bin/env bash
# geotile saves tiles of a mask with the buildings as nodata, also where nodata=0 is asked for.
#
# Guess before the run: save_tiles(nodata=0) writes tiles whose nodata value is 0; without the
# argument, "the nodata value will be assigned based on the dtype".
# Seen: both write 255 into tiles of uint8, which is what a mask of 0 and 255 has for a building:
# read as a masked array, each building is void and the ground alone is left. nodata=1 is kept.
# Of 16-bit heights, nodata=0 becomes 65535, and the voids count as ground at height 0: the mean of
# a tile of which half is void falls from 300 to 150. There is no message.
# Versions: geotile 1.1.0, rasterio 1.4.4, fiona 1.10.1, geopandas 1.2.0, numpy 2.3.5. Source:
# geotile/GeoTile.py, save_tiles: "nodata or" the highest value of the data type.
# Hurt: who cuts masks into tiles for training, or scores and heights for statistics, with tools
# that respect nodata: masks have no buildings, or voids have heights.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.2.0 shapely==2.1.2 \
  rasterio==1.4.4 fiona==1.10.1 pandas==2.3.3 numpy==2.3.5
venv/bin/pip install --quiet --disable-pip-version-check --no-deps geotile==1.1.0
venv/bin/python - <<'PYTHON'
import numpy as np
import rasterio
from geotile import GeoTile
from rasterio.transform import from_origin

SIDE = 64


def save(name, values):
    with rasterio.open(
        name, "w", driver="GTiff", width=SIDE, height=SIDE, count=1, dtype=values.dtype,
        crs="EPSG:32633", transform=from_origin(500_000, 5_500_000, 1, 1),
    ) as dataset:
        dataset.write(values, 1)


def tile(name, folder, **options):
    tiles = GeoTile(name)
    tiles.generate_tiles(save_tiles=False, tile_x=SIDE, tile_y=SIDE, stride_x=SIDE, stride_y=SIDE)
    tiles.save_tiles(folder, **options)
    with rasterio.open(f"{folder}/tile_0_0.tif") as dataset:
        return dataset.nodata, dataset.read(1, masked=True)


mask = np.zeros((SIDE, SIDE), dtype="uint8")
mask[10:30, 10:30] = 255
save("mask.tif", mask)
heights = np.full((SIDE, SIDE), 300, dtype="uint16")
heights[:, SIDE // 2:] = 0
save("heights.tif", heights)
seen = {}
for name, options in {"nodata=0": {"nodata": 0}, "none": {}, "nodata=1": {"nodata": 1}}.items():
    nodata, read = tile("mask.tif", f"mask-{name}", **options)
    seen[name] = nodata, int(np.sum(read.filled(0) == 255)), int(read.mask.sum())
    print(name, "nodata, pixels of buildings, void pixels:", seen[name])
nodata, read = tile("heights.tif", "heights", nodata=0)
print("heights: nodata, mean:", nodata, read.mean())
assert seen == {"nodata=0": (255, 0, 400), "none": (255, 0, 400), "nodata=1": (1, 400, 0)}
assert nodata == 65535 and read.mean() == 150 and heights[heights > 0].mean() == 300
PYTHON
