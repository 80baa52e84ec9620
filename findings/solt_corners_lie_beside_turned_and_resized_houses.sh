#!/usr/bin/env bash
# solt turns corners of houses to the pixel beside their masks, and cuts them to whole pixels.
#
# Guess before the run: one transform moves a mask of one pixel and a keypoint on it to the same
# place; a resized keypoint keeps its fraction.
# Seen: Rotate90 by 90 degrees takes the pixel (3, 2) of a tile of 256 pixels to (253, 3), and the
# keypoint on it to (253, 4); by 270 degrees to (2, 252) and (3, 252). By 180 degrees, and for tiles
# of 255 pixels, they agree. Resize to the size that a tile has already takes a keypoint (9.75,
# 8.75) to (9, 8); half the size takes (9.75, 8.75) to (4, 4). No warning.
# Versions: solt 0.2.1, torch 2.13.0, numpy 2.4.6. Source: solt/transforms/_transforms.py: Rotate90
# turns pixels by numpy.rot90, and leaves keypoints to a matrix about the pixel (size - 1) // 2
# (solt/core/_base_transforms.py); Resize makes integers of keypoints. Nothing says so.
# Hurt: who trains networks of corners or outlines on turned tiles of 256 or 512 pixels: half of the
# turns are wrong by a pixel to one side, and each resize by half a pixel to the upper left.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check solt==0.2.1 \
  torch==2.13.0 torchvision==0.28.0 opencv-python-headless==5.0.0.93 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import solt.core as core
import solt.transforms as transforms


def moved(transform, size, x, y):
    mask = np.zeros((size, size), np.uint8)
    mask[int(y), int(x)] = 1
    points = core.Keypoints(np.array([[x, y]], float), size, size)
    mask, points = transform(core.DataContainer((mask, points), "MP")).data
    pixel = [tuple(map(int, place)) for place in np.argwhere(mask)[:, ::-1]]
    return pixel, tuple(map(float, points.data[0].round(6)))


seen = {}
for size in (256, 255):
    for turns in (1, 2, 3):
        (pixel,), point = moved(transforms.Rotate90(k=turns, p=1), size, 3, 2)
        seen[size, turns] = (point[0] - pixel[0], point[1] - pixel[1])
        print(f"tile of {size}, {90 * turns} degrees: pixel {pixel}, keypoint {point}")
same = moved(transforms.Resize(resize_to=(256, 256)), 256, 9.75, 8.75)[1]
half = moved(transforms.Resize(resize_to=(128, 128)), 256, 9.75, 8.75)[1]
print("resized to the same size:", same, "to half:", half)
assert [seen[256, turns] for turns in (1, 2, 3)] == [(0, 1), (0, 0), (1, 0)]
assert [seen[255, turns] for turns in (1, 2, 3)] == [(0, 0)] * 3
assert same == (9, 8) and half == (4, 4)
PYTHON
