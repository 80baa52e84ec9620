#!/usr/bin/env bash
# torch-uncertainty's mean IoU counts a class that is absent from the labels from the first pixel.
#
# Guess before the run: "Classes that never appear in the targets are excluded from the average", as
# MeanIntersectionOverUnion says: a town without thatched roofs is rated by its other classes.
# Seen: a map of four classes that is right but for one pixel in 16,384 has 0.9998 where that pixel
# has one of the four, and 0.8 where it has the class of thatched roofs, which the town lacks: its
# IoU of 0 is a fifth of the mean. With no such pixel it is left out. A model that guesses
# one pixel wrong is rated as one that misses every house of a class. There is no message.
# Versions: torch-uncertainty 0.13.0, torch 2.13.0, torchmetrics 1.9.0. Source:
# torch_uncertainty/metrics/segmentation/mean_iou.py, compute: NaN only where tp + fp + fn is 0.
# Hurt: who compares models or towns by mean IoU with rare kinds of roofs or land cover, scene by
# scene: a step of a fifth comes from noise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0 \
  numpy==2.2.6
venv/bin/pip install --quiet --disable-pip-version-check --no-deps torch-uncertainty==0.13.0
venv/bin/python -W ignore - <<'PYTHON'
import sys
from pathlib import Path
from types import ModuleType

import torch

# The package imports Lightning and more for training; this measure needs none of them.
for name in ("torch_uncertainty", "torch_uncertainty.metrics",
             "torch_uncertainty.metrics.segmentation"):
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(Path(path, *name.split("."))) for path in sys.path]
from torch_uncertainty.metrics.segmentation.mean_iou import MeanIntersectionOverUnion

assert "never appear in the targets are excluded" in MeanIntersectionOverUnion.__init__.__doc__
GROUND, TILES, METAL, CONCRETE, THATCH = range(5)
town = torch.full((1, 128, 128), GROUND)
for kind, column in ((TILES, 10), (METAL, 50), (CONCRETE, 90)):
    town[:, 20:80, column : column + 30] = kind

seen = {}
for name, wrong in (("right", None), ("of metal", METAL), ("of thatch", THATCH)):
    predicted = town.clone()
    if wrong is not None:
        predicted[0, 0, 0] = wrong
    metric = MeanIntersectionOverUnion(num_classes=5)
    metric.update(predicted, town)
    seen[name] = round(float(metric.compute()), 4)
    print(f"one pixel {name}: mean IoU {seen[name]}")
assert seen == {"right": 1, "of metal": 0.9998, "of thatch": 0.8}
PYTHON
