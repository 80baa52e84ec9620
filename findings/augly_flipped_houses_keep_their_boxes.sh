#!/usr/bin/env bash
# AugLy flips and covers tiles and leaves the boxes of their houses as they were.
#
# Guess before the run: bboxes of hflip are flipped with the tile: "this list will be modified in
# place", says the docstring. overlay_image of a cloud leaves boxes that it does not touch, cuts
# those that it partly covers, and makes None of those that it hides, as it documents.
# Seen: the list is as it was after each call. With metadata=[] the flipped boxes are in its
# dst_bboxes, if they are in pixels: boxes as shares of the tile, "pascal_voc_norm", are not flipped
# there either. A cloud of 160 x 160 pixels in the middle of 400 x 400 stretches the box of a house
# of 20 x 20 to its west to 60 x 20, up to the cloud, and so to the north, east and south, and the
# house that it hides has its whole box. There is no message.
# Versions: augly 1.0.0, pillow 11.3.0, numpy 2.2.6. Source: augly/image/utils/metadata.py:
# get_func_kwargs copies the boxes, or drops them without metadata; convert_bboxes returns at once
# for pascal_voc_norm and skips boxes that are None. utils/bboxes.py, overlay_image_bboxes_helper
# looks at one end of the overlay for each side. Rotated boxes are reported (issue 249).
# Hurt: who teaches detectors on flipped tiles, or on tiles with clouds or pasted patches: boxes
# hold the ground where a house was before.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  pillow==11.3.0 numpy==2.2.6 iopath==0.1.10 regex==2025.11.3
venv/bin/pip install --quiet --disable-pip-version-check --no-deps augly==1.0.0
venv/bin/python -W ignore - <<'PYTHON'
import sys
from types import ModuleType

import numpy as np
from PIL import Image

sys.modules["magic"] = ModuleType("magic")  # tells kinds of files; none is read here
from augly.image import hflip, overlay_image

street = Image.fromarray(np.zeros((100, 200, 3), np.uint8))
for kind, house, flipped in [("pascal_voc", (10, 20, 30, 40), (170, 20, 190, 40)),
                             ("pascal_voc_norm", (0.05, 0.2, 0.15, 0.4), (0.85, 0.2, 0.95, 0.4))]:
    for notes in (None, []):
        boxes = [house]
        hflip(street, metadata=notes, bboxes=boxes, bbox_format=kind)
        noted = [tuple(map(float, box)) for box in notes[-1]["dst_bboxes"]] if notes else None
        print(kind, "list:", boxes, "metadata:", noted)
        assert boxes == [house]
    assert np.allclose(noted, [flipped if kind == "pascal_voc" else house])

houses = {
    "west": (60, 190, 80, 210), "north": (190, 60, 210, 80), "east": (320, 190, 340, 210),
    "south": (190, 320, 210, 340), "north-west": (60, 60, 80, 80), "under": (190, 190, 210, 210),
    "half": (110, 190, 130, 210),
}
tile = np.zeros((400, 400, 3), np.uint8)
for left, top, right, bottom in houses.values():
    tile[top:bottom, left:right] = 200
cloud = Image.new("RGB", (50, 50), (255, 255, 255))
notes = []
seen = np.asarray(overlay_image(
    Image.fromarray(tile), overlay=cloud, overlay_size=0.4, x_pos=0.3, y_pos=0.3, metadata=notes,
    bboxes=list(houses.values()), bbox_format="pascal_voc",
))
assert (seen[120:280, 120:280] == 255).all()
found = {}
for (name, house), box in zip(houses.items(), notes[-1]["dst_bboxes"]):
    left, top, right, bottom = house
    shown = int((seen[top:bottom, left:right] == 200).all(axis=2).sum())
    found[name] = tuple(round(value) for value in box)
    print(f"{name}: {house}, {shown} of 400 pixels shown, box {found[name]}")
assert found == houses | {
    "west": (60, 190, 120, 210), "north": (190, 60, 210, 120), "east": (280, 190, 340, 210),
    "south": (190, 280, 210, 340), "half": (110, 190, 120, 210),
}
PYTHON
