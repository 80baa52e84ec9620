#!/usr/bin/env bash
# rslearn's maps of a coarser resolution than the scene have stripes without data between tiles.
#
# Guess before the run: RasterMerger with downsample_factor=4 and overlap_pixels=64 covers a window
# with the maps of its overlapping crops, each a quarter as wide as the crop, as it does with
# downsample_factor=1: of what two crops share, half is taken of each.
# Seen: with maps of 1 everywhere a window of 448 x 448 pixels in crops of 256 with 64 of overlap is
# 1 everywhere at factor 1, and at factor 2 as well, where the first crop gives all that is
# shared. At factor 4 columns and rows 64 to 79 of 112 are nodata, 27 % of the map, and at factor 8
# columns and rows 32 to 55 of 56, 67 %. There is no message.
# Versions: rslearn 0.1.19, numpy 2.2.6. Source: rslearn/train/prediction_writer.py,
# RasterMerger.merge: half of overlap_pixels, which is in pixels of the window, is cut from maps
# that have downsample_factor times fewer.
# Hurt: who maps buildings with a network whose output is coarser than its input, by crops: houses
# in the stripes are nodata, which is 0 and so ground where the layer has no nodata value.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
$pip numpy==2.2.6 rasterio==1.4.4 shapely==2.1.2 pyproj==3.7.2 pillow==11.3.0 einops==0.8.1 \
  fsspec==2025.10.0 universal-pathlib==0.3.4 pydantic==2.12.4 "jsonargparse[signatures]==4.50.0" \
  pytimeparse==1.1.8 python-dateutil==2.9.0.post0 tqdm==4.67.1 torch==2.13.0 torchvision==0.28.0 \
  torchmetrics==1.8.2 lightning==2.5.6 scipy==1.16.3
$pip --no-deps rslearn==0.1.19
cat > merge.py <<'PYTHON'
import sys
from types import ModuleType, SimpleNamespace

import torch

sys.modules["wandb"] = ModuleType("wandb")  # draws charts; none is drawn here
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

import numpy as np
from rslearn.config import BandSetConfig, DType, LayerConfig, LayerType
from rslearn.train.prediction_writer import PendingCropOutput, RasterMerger

layer = LayerConfig(
    type=LayerType.RASTER,
    band_sets=[BandSetConfig(dtype=DType.UINT8, bands=["building"], nodata_value=255)],
)
window = SimpleNamespace(bounds=(0, 0, 448, 448))
seen = {}
for factor in (1, 2, 4, 8):
    crops = [
        PendingCropOutput((x, y, x + 256, y + 256),
                          np.ones((1, 256 // factor, 256 // factor), np.uint8))
        for x in (0, 192) for y in (0, 192)
    ]
    merged = RasterMerger(overlap_pixels=64, downsample_factor=factor).merge(window, crops, layer)
    void = merged[0] == 255
    columns = np.flatnonzero(void.all(axis=0))
    seen[factor] = round(100 * float(void.mean()))
    print(f"factor {factor}: map of {merged.shape[1:]}, {seen[factor]} % nodata, columns",
          f"{columns.min()} to {columns.max()}" if len(columns) else "none")
assert seen == {1: 0, 2: 0, 4: 27, 8: 67}
PYTHON
venv/bin/python -W ignore merge.py
