#!/usr/bin/env bash
# supervisely's courtyards grow with every way from mask to polygon and back, and turn.
#
# Guess before the run: a mask of a block of 20 x 20 pixels with a yard of 8 x 8 becomes a polygon
# whose mask is the one before, as it does without a yard.
# Seen: the outer wall comes back unchanged, but the yard of 64 pixels has 96 by to_contours, and
# 132 and 172 after two further rounds: a pixel is lost all round each time. By convert(Polygon) it
# has 82, and is a square no more: its corners are (10, 9), (9, 17), (17, 18) and (18, 10), turned
# by seven degrees, since the chipped corners of the contour are simplified away. A light shaft of
# 3 x 3 pixels has 17.
# Versions: supervisely 6.74.51, opencv-python-headless 5.0.0.93, numpy 2.4.6. Source:
# supervisely/geometry/bitmap.py, to_contours: OpenCV's contour of a hole runs on the pixels of the
# building, and Polygon.draw clears what the contour of a hole covers.
# Hurt: who moves labels between mask and polygon tools of Supervisely: blocks lose floor area
# with each export, and old towns with light shafts lose most.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check supervisely==6.74.51 \
  opencv-python-headless==5.0.0.93 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import supervisely as sly


def mask_of(polygons):
    canvas = np.zeros((40, 40, 3), np.uint8)
    for polygon in polygons:
        polygon.draw(canvas, [255, 255, 255])
    return canvas[..., 0] > 0


seen = {}
for yard in (0, 3, 8):
    block = np.zeros((40, 40), bool)
    block[5:25, 5:25] = True
    block[10 : 10 + yard, 10 : 10 + yard] = False
    mask, rounds = block, []
    for _ in range(3):
        mask = mask_of(sly.Bitmap(mask).to_contours())
        rounds.append(400 - int(mask.sum()))
    converted = sly.Bitmap(block).convert(sly.Polygon)
    assert len(converted) == 1 and mask_of(converted)[5:25, [5, 24]].all()
    corners = [[(corner.row, corner.col) for corner in ring] for ring in converted[0].interior]
    seen[yard] = rounds, 400 - int(mask_of(converted).sum()), corners
    print(f"yard of {yard * yard}: by to_contours {rounds}, by convert {seen[yard][1]}", corners)
assert seen[0] == ([0, 0, 0], 0, [])
assert seen[3][1] == 17
assert seen[8][:2] == ([96, 132, 172], 82)
assert sorted(seen[8][2][0]) == [(9, 17), (10, 9), (17, 18), (18, 10)]
PYTHON
