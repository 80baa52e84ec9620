#!/usr/bin/env bash
# torchgeo takes two of five training chips from the region that was set apart for testing.
#
# Guess before the run: samplers of the two parts that roi_split makes of a dataset, which refuses
# regions that overlap, yield chips of their own region; so does a sampler with roi=, "region of
# interest to sample from". At its edge a chip may reach over, but not lie beyond it.
# Seen: if a scene is divided along its diagonal into a part to train on and one to test on, of 1000
# random chips to train on some 430 lie inside the other part, and 550 reach into it; of a grid of
# 256 chips they are 91 and 151. Regions are replaced by their bounding boxes, which here are both
# the whole scene. Only upright rectangles are kept apart. There is no message.
# Versions: torchgeo 0.8.1, torch 2.13.0, rasterio 1.4.4, geopandas 1.2.0, shapely 2.2.0. Source:
# torchgeo/samplers/single.py: the index is clipped to the region, and RandomGeoSampler and
# GridGeoSampler then use index.geometry.iloc[hit].bounds.
# Hurt: who divides a town by its districts or a river: the model is tested on what it has learnt,
# and its accuracy on new towns is overstated.
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

import numpy as np
import rasterio
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
from shapely import Polygon, box
from torchgeo.datasets import RasterDataset, roi_split
from torchgeo.samplers import GridGeoSampler, RandomGeoSampler

west, south, side = 500_000, 5_500_000, 500
with rasterio.open(
    "scene_20240101.tif", "w", driver="GTiff", width=1000, height=1000, count=1, dtype="uint8",
    crs=32633, transform=rasterio.Affine(0.5, 0, west, 0, -0.5, south + side),
) as dataset:
    dataset.write(np.ones((1, 1000, 1000), "uint8"))


class Scenes(RasterDataset):
    filename_glob = "scene_*.tif"
    filename_regex = r"scene_(?P<date>\d{8})"


diagonal = (west + side, south), (west, south + side)
train = Polygon([(west, south), *diagonal])
test = Polygon([*diagonal[::-1], (west + side, south + side)])
scenes = Scenes(".")
part, _ = roi_split(scenes, [train, test])
torch.manual_seed(0)
seen = {}
for name, sampler in {
    "random, roi_split": RandomGeoSampler(part, size=64, length=1000),
    "random, roi": RandomGeoSampler(scenes, size=64, length=1000, roi=train),
    "grid, roi_split": GridGeoSampler(part, size=64),
    "grid, roi": GridGeoSampler(scenes, size=64, roi=train),
}.items():
    chips = [box(x.start, y.start, x.stop, y.stop) for x, y, _ in sampler]
    seen[name] = (len(chips), sum(chip.within(test) for chip in chips),
                  sum(chip.intersection(test).area > 0 for chip in chips))
    print(name, "chips to train on, inside the test region, reaching into it:", seen[name])
assert seen["grid, roi_split"] == seen["grid, roi"] == (256, 91, 151)
for name in ("random, roi_split", "random, roi"):
    assert seen[name][0] == 1000 and 350 < seen[name][1] < 500 < seen[name][2] < 650
PYTHON
