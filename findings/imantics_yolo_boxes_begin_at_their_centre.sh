#!/usr/bin/env bash
# imantics writes the corner of a box where YOLO has its centre, and boxes of masks a pixel short.
#
# Guess before the run: the line of YOLO has the middle of the box, and its width and height, as
# parts of the image; the box of a mask of 20 x 20 pixels is 20 wide, in COCO and in VOC, whose last
# pixel counts.
# Seen: of a house of 20 x 20 pixels with its corner at (40, 60) in an image of 100 x 100, the line
# is "0 0.40000 0.60000 0.19000 0.19000": read as YOLO, a box from column 30.5 to 49.5, which has
# an IoU of 0.13 with the house. In COCO the box is 19 wide and the area 400, while the polygon,
# through the middles of pixels, has 361; as VOC, from 40 to 59, the box is right. There is no
# message.
# Versions: imantics 0.1.12, opencv-python-headless 4.12.0.88, numpy 2.2.6. Source: yolo in
# imantics/annotation.py divides _xmin and _ymin by the size of the image; Mask.bbox takes the last
# row and column for the end of the box.
# Hurt: who makes YOLO labels of building masks with it: each box lies half its own size to the
# upper left, and a detector learns to find houses there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check imantics==0.1.12 \
  opencv-python-headless==4.12.0.88 numpy==2.2.6 setuptools==80.9.0
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from imantics import Annotation, Category, Image, Mask

SIDE, ROW, COL, HOUSE = 100, 60, 40, 20
mask = np.zeros((SIDE, SIDE), bool)
mask[ROW:ROW + HOUSE, COL:COL + HOUSE] = True
image = Image(image_array=np.zeros((SIDE, SIDE, 3), np.uint8))
image.add(Annotation.from_mask(Mask(mask), image=image, category=Category("building")))
house = next(iter(image.annotations.values()))

line = house.yolo()
label, x, y, width, height = (float(each) for each in line.split())
left, top, right, bottom = (
    SIDE * each for each in (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
common = (max(0, min(right, COL + HOUSE) - max(left, COL))
          * max(0, min(bottom, ROW + HOUSE) - max(top, ROW)))
iou = common / ((right - left) * (bottom - top) + HOUSE**2 - common)
print("line of YOLO:", line, "right: 0 0.50000 0.70000 0.20000 0.20000")
print(f"box in pixels: {left:.1f} {top:.1f} {right:.1f} {bottom:.1f}, IoU with the house {iou:.2f}")
assert line == "0 0.40000 0.60000 0.19000 0.19000" and round(iou, 2) == 0.13

coco = house.coco(include=False)
corners = np.array(coco["segmentation"][0]).reshape(-1, 2)
following = np.roll(corners, -1, axis=0)
polygon = abs(corners[:, 0] @ following[:, 1] - corners[:, 1] @ following[:, 0]) / 2
box = [int(each) for each in coco["bbox"]]
voc = [int(each.text) for each in house.voc().find("bndbox")]
print("COCO box:", box, "area:", coco["area"], "area of the polygon:", polygon, "VOC box:", voc)
assert box == [40, 60, 19, 19] and coco["area"] == 400 and polygon == 361
assert voc == [40, 60, 59, 79]
PYTHON
