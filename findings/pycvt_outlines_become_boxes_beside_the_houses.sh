#!/usr/bin/env bash
# pycvt reads the first two corners of a YOLO outline as a box, beside the house.
#
# Guess before the run: convert_yolo_dataset_to_coco of a data set for YOLO segmentation, with a
# class and the corners of an outline in each line, gives each house the box around its corners,
# or refuses such lines.
# Seen: a house from (10, 20) to (40, 30) in a tile of 100 x 100 pixels has the box from (0, 10)
# to (30, 30), and one from (60, 60) to (90, 90) that from (15, 30) to (100, 90): the first corner
# is the centre and the second is width and height. Boxes depend on the corner where the outline
# begins, and there is no segmentation. Lines with a class and a box are right. There is no
# message.
# Versions: pycvt 0.1.0.post202607181215. Source: pycvt/annotations/yolo.py, parase_yolo_line
# takes outlines that follow a box, as no version of YOLO writes them.
# Hurt: who converts outlines of roofs made for YOLO to train RF-DETR, which the converter is for:
# each label lies beside its house, and validation with the same labels does not show it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pycvt==0.1.0.post202607181215
mkdir -p town/images/train town/labels/train
cat > town/data.yaml <<'YAML'
train: images/train
names: [house]
YAML
venv/bin/python - <<'PYTHON'
import json

import pycvt
from PIL import Image

Image.new("RGB", (100, 100)).save("town/images/train/tile.png")
HOUSES = [(10, 20, 40, 30), (60, 60, 90, 90)]


def boxes(lines, folder):
    """Return left, top, right and bottom of each house in pixels after the conversion."""
    with open("town/labels/train/tile.txt", "w") as file:
        file.write("\n".join(lines) + "\n")
    pycvt.convert_yolo_dataset_to_coco(yaml_path="town/data.yaml", output_dir=folder,
                                       include_test=False)
    with open(f"{folder}/annotations/train.json") as file:
        annotations = json.load(file)["annotations"]
    assert all("segmentation" not in annotation for annotation in annotations)
    return [tuple(round(value) for value in (x, y, x + width, y + height))
            for x, y, width, height in (annotation["bbox"] for annotation in annotations)]


def outline(house, first):
    """Return the line of a house, with the corners from this one on."""
    left, top, right, bottom = house
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    corners = corners[first:] + corners[:first]
    return "0 " + " ".join(f"{x / 100} {y / 100}" for x, y in corners)


plain = [f"0 {(left + right) / 200} {(top + bottom) / 200} {(right - left) / 100} "
         f"{(bottom - top) / 100}" for left, top, right, bottom in HOUSES]
seen = {"boxes": boxes(plain, "boxes")}
for first in (0, 2):
    seen[first] = boxes([outline(house, first) for house in HOUSES], f"outlines{first}")
for name, found in seen.items():
    print("boxes:" if name == "boxes" else f"outlines from corner {name}:", *found)
assert seen["boxes"] == HOUSES
assert seen[0] == [(0, 10, 30, 30), (15, 30, 100, 90)] and seen[2] != seen[0]
PYTHON
