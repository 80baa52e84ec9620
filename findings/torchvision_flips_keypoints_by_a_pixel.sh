#!/usr/bin/env bash
# torchvision flips keypoints about another line than boxes and masks: outlines move by a pixel.
#
# Guess before the run: a corner of an outline that is given as KeyPoints stays at the corner of its
# box and of its mask in every transform, since all three share one grid of pixels.
# Seen: resize, rotate, crop and affine place the image from 0 to its width, as for boxes. Flips
# place it from 0 to width - 1: a house with its corners at 2 and 6 of 10 columns has its box from 4
# to 8 after a horizontal flip, its mask in the columns 4 to 7, and its keypoints at 3 and 7. Both
# flips together are not a rotation by 180 degrees: it has them at 4 and 8. Keypoints at the centres
# of pixels (2.0 is the first column of the house) are right after a flip and a pixel off after a
# rotation.
# Versions: torchvision 0.28.0, torch 2.13.0. Source: horizontal_flip_keypoints and
# vertical_flip_keypoints in transforms/v2/functional/_geometry.py (canvas_size[1] - 1), and
# _affine_keypoints_with_expand there (width * 0.5).
# Hurt: who trains a network that predicts corners of roofs: of its augmented labels half are moved
# by a pixel to the upper left, and no convention of coordinates is right for all transforms.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 torchvision==0.28.0 numpy==2.2.6
venv/bin/python - <<'PYTHON'
import sys
import torch

# Where pip took torch for CPUs alone, the compiled operators of torchvision do not load. Nothing here
# calls them, but the package asks for the declarations of two.
try:
    import torchvision
except RuntimeError:
    for module in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[module]
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

SIZE = (10, 10)
pixels = torch.zeros(1, *SIZE, dtype=torch.uint8)
pixels[:, 1:4, 2:6] = 1
house = {
    "mask": tv_tensors.Mask(pixels),
    "box": tv_tensors.BoundingBoxes([[2.0, 1, 6, 4]], format="XYXY", canvas_size=SIZE),
    "keypoints": tv_tensors.KeyPoints([[2.0, 1], [6, 1], [6, 4], [2, 4]], canvas_size=SIZE),
}


def columns(kind, value):
    """First and last edge of the house, in columns."""
    if kind == "mask":
        (filled,) = torch.nonzero(value.amax((0, 1)), as_tuple=True)
        return int(filled.min()), int(filled.max()) + 1
    x = value.reshape(-1, 2)[:, 0]
    return float(x.min()), float(x.max())


transforms = {
    "flip": functional.horizontal_flip,
    "both flips": lambda value: functional.vertical_flip(functional.horizontal_flip(value)),
    "rotation by 180": lambda value: functional.rotate(value, 180),
}
seen = {}
for name, transform in transforms.items():
    seen[name] = {kind: columns(kind, transform(value)) for kind, value in house.items()}
    print(name, seen[name])
for name in ("flip", "both flips"):
    assert seen[name] == {"mask": (4, 8), "box": (4, 8), "keypoints": (3, 7)}
assert seen["rotation by 180"] == {"mask": (4, 8), "box": (4, 8), "keypoints": (4, 8)}
PYTHON
