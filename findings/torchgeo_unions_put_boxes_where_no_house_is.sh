#!/usr/bin/env bash
# torchgeo unions put boxes where no house is, and make voids and sea level of heights at seams.
#
# Guess before the run: a | b of two districts has the houses of both, and on the seam between two
# height models the heights of the one that has data there, as one dataset of both files does.
# Seen: of a district with one house in the chip and another with one, the union has one box, with
# the larger of each of four numbers: it touches neither house. One house and two make two boxes,
# beside all three. A chip over the seam of two height models with NaN as nodata is void; without
# nodata, ground 2 and 3 m below the sea is at 0. With -9999 it is right. There is no message.
# Versions: torchgeo 0.8.1, torch 2.13.0, rasterio 1.4.4, geopandas 1.2.0, shapely 2.2.0. Source:
# torchgeo/datasets/utils.py, merge_samples: torch.maximum of each tensor, for whatever lies outside
# a dataset is held to be 0; the page of UnionDataset says "disparate geospatial locations".
# Hurt: who trains a detector on several districts or on height models: boxes are beside the houses
# at each seam, and one chip of NaN makes a loss NaN.
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
import numpy
import rasterio
from rasterio.crs import CRS
from rasterio.transform import from_origin
from shapely import box
from torchgeo.datasets import RasterDataset, VectorDataset

WEST, SOUTH = 500_000, 5_500_000
UTM = CRS.from_epsg(32633)


def district(name, *places):
    """Write houses of 10 m and return the dataset of their boxes."""
    houses = [box(WEST + x, SOUTH + y, WEST + x + 10, SOUTH + y + 10) for x, y in places]
    geopandas.GeoDataFrame(geometry=houses, crs=32633).to_file(f"{name}.gpkg")
    return VectorDataset(f"{name}.gpkg", crs=UTM, res=(1, 1), task="object_detection")


def boxes(labels):
    """Return the boxes in a chip of 100 m as lists."""
    return labels[WEST:WEST + 100, SOUTH:SOUTH + 100]["bbox_xyxy"].tolist()


west, east = district("west", (10, 20)), district("east", (70, 60))
south = district("south", (70, 60), (40, 60))
print("boxes", boxes(west), boxes(east), boxes(west | east), boxes(west | south))
assert boxes(west) == [[10, 70, 20, 80]] and boxes(east) == [[70, 30, 80, 40]]
assert boxes(west | east) == [[70, 70, 80, 80]]
assert boxes(west | south) == [[70, 70, 80, 80], [40, 70, 50, 80]]


def heights(name, west, height, nodata):
    """Write a model of 8 m of ground at one height and return its dataset."""
    with rasterio.open(
        f"{name}.tif", "w", driver="GTiff", width=8, height=8, count=1, dtype="float32",
        crs=UTM, transform=from_origin(west, SOUTH + 8, 1, 1), nodata=nodata,
    ) as model:
        model.write(numpy.full((1, 8, 8), height, "float32"))
    return RasterDataset(f"{name}.tif")


def seam(models):
    """Return one row of a chip of 8 m over the seam."""
    return models[WEST + 4:WEST + 12, SOUTH:SOUTH + 8]["image"][0, 0].tolist()


RIGHT = [-3] * 4 + [-2] * 4
for nodata in (None, -9999, numpy.nan):
    row = seam(heights("low", WEST, -3, nodata) | heights("high", WEST + 8, -2, nodata))
    print("nodata", nodata, "union", row)
    assert seam(RasterDataset(["low.tif", "high.tif"])) == RIGHT
    if nodata == -9999:
        assert row == RIGHT
    elif nodata is None:
        assert row == [0] * 8
    else:
        assert numpy.isnan(row).all()
PYTHON
