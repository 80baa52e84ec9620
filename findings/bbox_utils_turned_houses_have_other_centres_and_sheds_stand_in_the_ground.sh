#!/usr/bin/env bash
# bbox-utils writes YOLO boxes beside turned and small houses, and sinks 3D boxes into the ground.
#
# Guess before the run: to_yolo and from_yolo give a box back, the centre of four corners is their
# mean, and a 3D box from two opposite corners reaches from the one to the other.
# Seen: a house of 40 by 10 pixels, turned by 30 degrees around (50, 50), has its YOLO box around
# (55, 41), off its roof, 40 wide and 10 high. Upright ones lose up to half a pixel in to_yolo, and
# another half if they begin within a pixel: one of 5 pixels at 10.4 comes back at 9.5. A shed of
# 1.5 by 1.8 by 2.9 m on the ground has its corner for its centre on the plan, and reaches from
# 0.45 m below the ground to 2.45 m. There is no message.
# Versions: bbox-utils 0.1.1 (the latest), pyquaternion 0.9.9, numpy 2.3.5. Source: bbox_2d.py, the
# property center: tl[0] + width // 2 and tl[1] + height // 2, rounded, also where the sides are
# not upright, as order_points allows; bbox_3d.py, from_xyzxyz: min_x + length // 2 and so on.
# Hurt: who converts labels of houses to YOLO: small ones move by a tenth of their size and turned
# ones altogether; and who draws boxes around sheds and cars in a cloud of points.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check bbox-utils==0.1.1 pyquaternion==0.9.9 \
  numpy==2.3.5
venv/bin/python - <<'PYTHON'
import math

import numpy as np
from bbox_utils import BoundingBox, BoundingBox3D

TILE = np.array([100, 100])


def yolo(box):
    """Return centre, width and height of a YOLO box in pixels."""
    return (box.to_yolo(TILE) * 100).round(3).tolist()


cosine, sine = math.cos(math.pi / 6), math.sin(math.pi / 6)
sides = np.array([[-20, -5], [20, -5], [20, 5], [-20, 5]])
house = sides @ np.array([[cosine, sine], [-sine, cosine]]) + 50
turned = BoundingBox(house)
dx, dy = np.array(yolo(turned)[:2]) - 50
across = dy * cosine - dx * sine
print("turned", house.mean(axis=0), "becomes", yolo(turned), "off its axis by", across)
assert np.allclose(house.mean(axis=0), 50) and yolo(turned) == [55, 41, 40, 10]
assert abs(across) > 5

for start, side, centre, again in [(10, 4, 12, 10), (10, 5, 12, 9.5), (10.4, 5, 12, 9.5)]:
    upright = BoundingBox.from_xywh(np.array([start, start]), side, side)
    x, y, width, height = upright.to_yolo(TILE)
    back = BoundingBox.from_yolo((x, y), width, height, TILE).points[0].round(3).tolist()
    print("upright", start, side, "becomes", yolo(upright), "begins at", back)
    assert yolo(upright) == [centre, centre, side, side] and back == [again, again]

low, high = [10, 10, 0], [11.5, 11.8, 2.9]
shed = BoundingBox3D.from_xyzxyz(low, high)
print("shed", shed.center, shed.p.min(axis=0), shed.p.max(axis=0))
assert np.allclose(shed.p.min(axis=0), [9.25, 9.1, -0.45])
assert np.allclose(shed.p.max(axis=0), [10.75, 10.9, 2.45])
PYTHON
