#!/usr/bin/env bash
# kwimage's box of a mask is another one for each way in which the mask is kept.
#
# Guess before the run: Mask.box() is a property of the pixels: a house of 40 columns and 10 rows
# has the box 30, 10, 40, 10 (x, y, width, height) as an array in row order, in column order and as
# run lengths, which toformat() turns into each other.
# Seen: run lengths have it. As an array in row order the box is 39 x 9, a house of one pixel has a
# box without area, and IoU with the box of the run lengths is 0.88. As an array in column order x
# and y are exchanged: the box lies at 10, 30 and is 9 x 39, although shape and area are the same
# and the mask drawn is the same. get_xywh says the same. There is no message.
# Versions: kwimage 0.12.0, kwimage-ext 0.4.1, OpenCV 5.0.0, numpy 2.4.6. Source:
# kwimage/structs/mask.py, get_xywh: max - min for C_MASK and F_MASK, where pycocotools counts the
# last pixel, and x_coords, y_coords = np.where(...) for F_MASK.
# Hurt: who writes COCO files from masks (kwcoco, GeoWATCH): boxes are a pixel short or elsewhere,
# depending on the step before, and small houses fail the match by boxes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check kwimage==0.12.0 kwimage-ext==0.4.1 \
  pycocotools==2.0.11 opencv-python-headless==5.0.0.93 shapely==2.2.0 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import kwimage
import numpy as np


def boxes(rows, columns):
    """Return the box of a house (x, y, width, height) by the way in which its mask is kept."""
    pixels = np.zeros((60, 100), np.uint8)
    pixels[rows, columns] = 1
    mask = kwimage.Mask(pixels, "c_mask")
    found = {}
    for kept in ("c_mask", "f_mask", "array_rle", "bytes_rle"):
        other = mask.toformat(kept)
        assert np.array_equal(other.toformat("c_mask").data, pixels)
        found[kept] = other.box().to_xywh().data.astype(int).ravel().tolist()
        assert found[kept] == other.get_xywh().astype(int).tolist()
    return found


house = boxes(slice(10, 20), slice(30, 70))
shed = boxes(slice(5, 6), slice(8, 9))
for name, found in (("house", house), ("shed of one pixel", shed)):
    for kept, box in found.items():
        print(name, kept, box)
right = [30, 10, 40, 10]
assert house["array_rle"] == house["bytes_rle"] == right and shed["bytes_rle"] == [8, 5, 1, 1]
assert house["c_mask"] == [30, 10, 39, 9] and shed["c_mask"] == [8, 5, 0, 0]
assert house["f_mask"] == [10, 30, 9, 39] and shed["f_mask"] == [5, 8, 0, 0]
iou = kwimage.Boxes([house["c_mask"]], "xywh").ious(kwimage.Boxes([right], "xywh"))[0, 0]
print("IoU of the boxes of c_mask and bytes_rle:", round(float(iou), 3))
assert round(float(iou), 2) == 0.88
PYTHON
