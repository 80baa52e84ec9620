#!/usr/bin/env bash
# torchgeo gives houses near two corners of a chip no label, if the labels are in degrees.
#
# Guess before the run: each house within a chip is in its mask and its boxes, whatever the
# coordinate system of the labels, and a hall that covers a whole chip is one building in it.
# Seen: of 1,024 houses within a chip of 2,560 m in UTM zone 33, at 11.4 degrees east and 60
# north, all are there if their file is in UTM, and 979 if it is GeoJSON in degrees: 45 in wedges
# along two edges are ground, and have neither a box nor an instance. At the meridian of the zone
# none is lost. With task="instance_segmentation", a hall of the size of the chip has a box, a label
# and no mask. There is no message.
# Versions: torchgeo 0.8.1, torch 2.13.0, rasterio 1.4.4, geopandas 1.2.0, shapely 2.2.0. Source:
# torchgeo/datasets/geo.py, VectorDataset.__getitem__ asks the file for the box between the south-
# west and the north-east corner, each transformed; grid north is not true north there. The masks
# are those of np.unique(masks)[1:], which leaves the hall out where no pixel is ground.
# Hurt: who trains on images in a national grid with footprints of OpenStreetMap or Microsoft: the
# model learns that houses at the edges of chips are ground.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps torchgeo==0.8.1
# The rest of what torchgeo asks for, Lightning among it, is for training.
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 torchvision==0.28.0 \
  kornia==0.9.0 einops==0.8.2 matplotlib==3.11.2 pillow==13.0.0 requests==2.34.2 tqdm==4.70.1 \
  rasterio==1.4.4 geopandas==1.2.0 shapely==2.2.0 pyproj==3.7.2 numpy==2.3.5 pandas==2.3.3 \
  2> conflicts.txt || { cat conflicts.txt; exit 1; }
venv/bin/python -W ignore - <<'PYTHON'
import sys

import torch

# Where pip took torch for CPUs alone, the compiled operators of torchvision do not load. Nothing
# here calls them, but the package asks for the declarations of two.
try:
    import torchvision
except RuntimeError:
    for module in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[module]
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import geopandas
from rasterio.crs import CRS
from shapely import box
from torchgeo.datasets import VectorDataset

SIDE, STEP = 2560, 80
UTM = CRS.from_epsg(32633)


def chip(file, west, south, task, side=SIDE):
    """Return the sample of a square chip with pixels of 5 m."""
    labels = VectorDataset(file, crs=UTM, res=(5, 5), task=task)
    return labels[west:west + side, south:south + side]


def counts(west, south):
    """Return the houses in masks, boxes and instances for labels in UTM and in degrees."""
    corners = [(west + x + 30, south + y + 30)
               for x in range(0, SIDE, STEP) for y in range(0, SIDE, STEP)]
    houses = [box(x, y, x + 15, y + 15) for x, y in corners]
    town = geopandas.GeoDataFrame(geometry=houses, crs=32633)
    town.to_file("town.gpkg")
    town.to_crs(4326).to_file("town.geojson")
    found = {}
    for file in ("town.gpkg", "town.geojson"):
        pixels = chip(file, west, south, "semantic_segmentation")["mask"].sum().item()
        boxes = chip(file, west, south, "object_detection")["bbox_xyxy"]
        masks = chip(file, west, south, "instance_segmentation")["mask"]
        found[file] = (pixels // 9, len(boxes), len(masks))
    print("west", west, found)
    return list(found.values())


assert counts(304_000, 6_700_000) == [(1024,) * 3, (979,) * 3]
assert counts(500_000 - SIDE // 2, 6_700_000) == [(1024,) * 3, (1024,) * 3]

west, south = 500_000, 6_700_000
hall = box(west - 50, south - 50, west + 400, south + 400)
geopandas.GeoDataFrame(geometry=[hall], crs=32633).to_file("hall.gpkg")
for side in (320, 480):
    sample = chip("hall.gpkg", west, south, "instance_segmentation", side)
    sizes = {key: len(sample[key]) for key in ("mask", "bbox_xyxy", "label")}
    print("side", side, sizes)
    assert sizes == {"mask": int(side == 480), "bbox_xyxy": 1, "label": 1}
PYTHON
