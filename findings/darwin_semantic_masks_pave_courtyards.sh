#!/usr/bin/env bash
# darwin-py's semantic masks fill the courtyards that its instance masks leave out.
#
# Guess before the run: a building with a courtyard, two paths of one polygon in V7, has the same
# pixels in InstanceSegmentationDataset and SemanticSegmentationDataset of the same files, and its
# "area" are those pixels.
# Seen: of a block of 40 x 40 with a courtyard of 20 x 20 the instance mask has 1320 pixels and the
# semantic mask 1681: the courtyard is building. Each path becomes an annotation of its own there,
# and the ring of the courtyard is drawn over the block as a second building. The area of the
# instance is 2000, the block and the courtyard added, where 1200 are built up; a TODO in the source
# says as much of the area. There is no message.
# Versions: darwin-py 3.6.3, upolygon 0.2.3, torch 2.13.0, numpy 2.2.6. Source:
# darwin/torch/dataset.py, SemanticSegmentationDataset.get_target: the loop over paths.
# Hurt: who trains on semantic masks of towns with courtyards, and who sorts houses by their area:
# the network learns to pave yards, though the labels and the other dataset are right.
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
from darwin.torch.dataset import InstanceSegmentationDataset, SemanticSegmentationDataset
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
    "annotations": [building(ring(40, 20, 80, 60), ring(50, 30, 70, 50))],
}))
make_class_lists(release)

_, instances = InstanceSegmentationDataset(dataset_path=town)[0]
_, semantic = SemanticSegmentationDataset(dataset_path=town)[0]
instance, mask = instances["masks"][0], semantic["mask"]
print("pixels of the instance", int(instance.sum()), "of the semantic mask", int(mask.sum()))
print("in the courtyard", int(instance[40, 60]), int(mask[40, 60]))
print("area", float(instances["area"][0]))
assert (int(instance.sum()), int(mask.sum())) == (1320, 1681)
assert (int(instance[40, 60]), int(mask[40, 60])) == (0, 1)
assert float(instances["area"][0]) == 2000
PYTHON
