#!/usr/bin/env bash
# torchmetrics' IoU of detected boxes is 1/n for a perfect prediction of n houses in a tile.
#
# Guess before the run: IntersectionOverUnion pairs each detected house with one true house, as mean
# average precision does; boxes equal to the labels have 1.0, and houses that were missed count as 0
# or not at all.
# Seen: it is the mean over all pairs of a detected and a true box of the same class in a tile. For
# equal boxes it is 1.0, 0.5, 0.25 and 0.1 with 1, 2, 4 and 10 houses; the generalized IoU is 1.0,
# 0.4, -0.03 and -0.43. With iou_threshold=0.5 pairs below it are left out, and what nobody found
# with them: where one house of ten was found, and nine boxes lie on lawns, the IoU is 1.0.
# Versions: torchmetrics 1.9.0, torch 2.13.0, torchvision 0.28.0. Source: torchmetrics/detection/
# iou.py, compute: the mean over all entries of iou_matrix; torchmetrics/functional/detection/iou.py
# takes the diagonal. The documentation names the mean over classes and no pairing.
# Hurt: who compares detectors of buildings: the value follows how many houses a tile has, dense
# quarters look worst, and with a threshold it never says how many buildings were missed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 torchvision==0.28.0 \
  torchmetrics==1.9.0 numpy==2.3.5
cat > boxes.py <<'PYTHON'
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
from torchmetrics.detection import GeneralizedIntersectionOverUnion, IntersectionOverUnion


def houses(count, south=0.0):
    """Return boxes of 10 x 10 pixels that lie 15 pixels apart in a row."""
    west = torch.arange(count) * 15.0
    top = torch.full_like(west, south)
    return torch.stack([west, top, west + 10, top + 10], dim=1)


def score(metric, detected, true):
    """Return the metric of one tile in which all boxes are of one class."""
    labels = [torch.zeros(len(boxes), dtype=torch.int) for boxes in (detected, true)]
    metric.update(
        [{"boxes": detected, "labels": labels[0], "scores": torch.ones(len(detected))}],
        [{"boxes": true, "labels": labels[1]}],
    )
    return round(float(next(iter(metric.compute().values()))), 2)


perfect = [score(IntersectionOverUnion(), houses(n), houses(n)) for n in (1, 2, 4, 10)]
generalized = [
    score(GeneralizedIntersectionOverUnion(), houses(n), houses(n)) for n in (1, 2, 4, 10)
]
on_lawns = torch.cat([houses(1), houses(9, south=200)])
one_of_ten = score(IntersectionOverUnion(iou_threshold=0.5), on_lawns, houses(10))
print("IoU of equal boxes, 1, 2, 4 and 10 houses:", perfect, "generalized:", generalized)
print("one house of ten found, nine false, threshold 0.5:", one_of_ten)
assert perfect == [1, 0.5, 0.25, 0.1]
assert generalized == [1, 0.4, -0.03, -0.43]
assert one_of_ten == 1
PYTHON
venv/bin/python -W ignore boxes.py
