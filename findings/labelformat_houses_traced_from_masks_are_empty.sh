#!/usr/bin/env bash
# labelformat traces the outline of a house of a mask twice, so that it holds no pixel.
#
# Guess before the run: converting pairs of images and masks to COCO or YOLO gives each house an
# outline; through the centres of its border pixels a house of 20 x 10 pixels has 19 x 9, and so
# much is filled by whoever reads it.
# Seen: its outline has 112 points, the 56 of the border twice. pycocotools decodes it to 0 pixels,
# fillPoly of OpenCV, with which detectors are taught from YOLO outlines, to the border of 56
# without what is inside, and its area by its corners is 342 in place of 171. Simplified by
# approx_epsilon it stays so. As rle the house has its 200 pixels. There is no message.
# Versions: labelformat 0.1.17, pycocotools 2.0.10, opencv-python-headless 4.12.0.88. Source:
# labelformat/mask_utils.py, _trace_outer_contour: when it is back at its first pixel it notes that
# it has visited it and goes on, and stops at the second return.
# Hurt: who makes labels of buildings from masks with the default, polygon: COCO's masks are empty,
# so that AP is 0, and models learn rings of one pixel.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check labelformat==0.1.17 numpy==2.2.6 \
  pillow==11.3.0 pycocotools==2.0.10 opencv-python-headless==4.12.0.88
mkdir images masks
venv/bin/python - <<'PYTHON'
import numpy as np
from PIL import Image

mask = np.zeros((40, 50), np.uint8)
mask[10:20, 5:25] = 255
Image.fromarray(mask).save("masks/tile.png")
Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save("images/tile.png")
PYTHON
convert() {
  venv/bin/labelformat convert --task instance-segmentation --input-format maskpair \
    --image-glob "images/*.png" --mask-glob "masks/*.png" --category-names house "$@" > log 2>&1
}
convert --output-format coco --output-file house.json
convert --approx-epsilon 0.01 --output-format coco --output-file simple.json
convert --segmentation-type rle --output-format coco --output-file rle.json
convert --output-format yolov8 --output-file yolo/data.yaml
venv/bin/python - <<'PYTHON'
import json

import cv2
import numpy as np
from pycocotools import mask as coco


def outline(points):
    x, y = points.T
    area = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
    decoded = coco.decode(coco.merge(coco.frPyObjects([points.ravel().tolist()], 40, 50)))
    filled = cv2.fillPoly(np.zeros((40, 50), np.uint8), [np.rint(points).astype(np.int32)], 1)
    return len(points), round(float(area)), int(decoded.sum()), int(filled.sum())


def coco_outline(name):
    (house,) = json.load(open(name))["annotations"]
    (flat,) = house["segmentation"]
    return outline(np.array(flat).reshape(-1, 2))


for name, found in [
    ("COCO", coco_outline("house.json")), ("COCO, simplified", coco_outline("simple.json")),
    ("YOLO", outline(np.array(
        open("yolo/labels/tile.txt").read().split()[1:], float).reshape(-1, 2) * (50, 40))),
]:
    points, area, decoded, filled = found
    print(f"{name}: {points} points, area {area}, {decoded} pixels decoded, {filled} filled")
    assert area == 342 and decoded == 0
    if name == "COCO":
        assert points == 112 and filled == 56
(house,) = json.load(open("rle.json"))["annotations"]
rle = house["segmentation"]
pixels = int(coco.decode(coco.frPyObjects(rle, *rle["size"])).sum())
print("rle:", pixels, "pixels")
assert pixels == 200
PYTHON
