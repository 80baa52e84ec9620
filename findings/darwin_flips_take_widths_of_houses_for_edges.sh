#!/usr/bin/env bash
# darwin-py's datasets take the width and height of a house's box for its right and lower edge.
#
# Guess before the run: InstanceSegmentationDataset returns boxes as its docstring says, [x, y, x,
# y], those of the masks beside them; a flip of ObjectDetectionDataset, whose boxes are documented
# as [x, y, w, h], keeps the size of houses and moves them with the image.
# Seen: for a house from 10, 12 to 30, 28 the box beside the mask is [10, 12, 20, 16], with the
# width and the height in place of the far edges: read as documented it covers 40 of 320 square
# pixels, and one at 40 that is 40 wide has no width at all. The package's own flips take the boxes
# of both datasets for edges: RandomHorizontalFlip of a tile that is 100 wide makes [80, 12, 90, 16]
# of the house, which is [70, 12, 20, 16], and RandomVerticalFlip of a tile of 80 makes [10, 68, 20,
# 64], which is [10, 52, 20, 16], and has its upper below its lower edge if edges are meant. The
# masks are right. There is no message.
# Versions: darwin-py 3.6.3, torch 2.13.0, torchvision 0.28.0, numpy 2.2.6. Source:
# darwin/torch/dataset.py, get_target ("Convert to XYWH"); darwin/torch/transforms.py, forward.
# Hurt: who trains detectors of houses on data from V7: torchvision's models, for which the fields
# are named, learn boxes that begin at the house and end somewhere else.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.2.6 \
  darwin-py==3.6.3 upolygon==0.2.3
venv/bin/pip install --quiet --disable-pip-version-check --no-deps torchvision==0.28.0
HOME=$folder venv/bin/python -W ignore - <<'PYTHON'
import json
import sys
from pathlib import Path

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
from darwin.dataset.utils import make_class_lists
from darwin.torch.dataset import InstanceSegmentationDataset, ObjectDetectionDataset
from darwin.torch.transforms import RandomHorizontalFlip, RandomVerticalFlip, ToTensor
from PIL import Image


def ring(left, top, right, bottom):
    """Return the outline of a rectangle as V7 exports it."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return [{"x": x, "y": y} for x, y in corners]


def building(*rings):
    """Return a building of one or more rings as V7 exports it."""
    (left, top), (right, bottom) = [(rings[0][i]["x"], rings[0][i]["y"]) for i in (0, 2)]
    box = {"x": left, "y": top, "w": right - left, "h": bottom - top}
    return {"id": str(left), "name": "building", "slot_names": ["0"], "bounding_box": box,
            "polygon": {"paths": rings}}


town, release = Path("town"), Path("town/releases/latest")
for path in (town / "images", release / "annotations"):
    path.mkdir(parents=True)
Image.new("RGB", (100, 80)).save(town / "images" / "tile.png")
slot = {"type": "image", "slot_name": "0", "width": 100, "height": 80,
        "source_files": [{"file_name": "tile.png"}]}
(release / "annotations" / "tile.json").write_text(json.dumps({
    "version": "2.0", "item": {"name": "tile.png", "path": "/", "slots": [slot]},
    "annotations": [building(ring(10, 12, 30, 28))],
}))
make_class_lists(release)


def edges(mask):
    """Return the first and last edge of a mask as x, y, x, y."""
    rows, columns = torch.nonzero(mask, as_tuple=True)
    return [int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())]


def boxes(kind, *transforms):
    """Return the box of the house in a dataset, and the edges of its mask if there is one."""
    _, target = kind(dataset_path=town, transform=[*transforms, ToTensor()])[0]
    masks = [edges(mask) for mask in target.get("masks", [])]
    return [int(value) for value in target["boxes"][0]], *masks


assert "[x, y, x, y]" in InstanceSegmentationDataset.__getitem__.__doc__
assert "[x, y, w, h]" in ObjectDetectionDataset.__getitem__.__doc__
seen = {(kind.__name__, *(type(flip).__name__ for flip in flips)): boxes(kind, *flips)
        for kind in (InstanceSegmentationDataset, ObjectDetectionDataset)
        for flips in ([], [RandomHorizontalFlip(1)], [RandomVerticalFlip(1)])}
for name, (box, *mask) in seen.items():
    print(*name, "box", box, "edges of the mask", *mask)
plain, across, down = [10, 12, 20, 16], [80, 12, 90, 16], [10, 68, 20, 64]
assert list(seen.values()) == [
    (plain, [10, 12, 30, 28]), (across, [69, 12, 89, 28]), (down, [10, 51, 30, 67]),
    (plain,), (across,), (down,)]
PYTHON
