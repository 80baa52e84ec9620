#!/usr/bin/env bash
# Albumentations moves masks against their images where it makes them smaller, or images coarser.
#
# Guess before the run: transforms that take image and mask keep them together, up to rounding; one
# that takes the image alone, such as Downscale, leaves things where they are.
# Seen: Resize to a quarter puts walls in the mask 1.5 source pixels to the lower right of the walls
# in the image, on average over all places of a house: the nearest neighbour of OpenCV is the upper
# left pixel of each 4 x 4 and not a middle one. A network that copies the ground exactly reaches an
# IoU of 0.89 with such labels of small houses, and 0.80 at an eighth. Downscale, which takes this
# neighbour for the image, moves the image by 1.5 pixels and not the mask; by INTER_AREA nothing
# moves. With mask_interpolation=INTER_NEAREST_EXACT masks are 0.5 pixels off, the least that whole
# pixels allow.
# Versions: albumentations 2.0.8, opencv-python-headless 5.0.0.93. Source: OpenCV's INTER_NEAREST,
# which rounds places down. AlbumentationsX 2.5.1 resizes masks in the same way.
# Hurt: who trains at a coarser scale than that of the labels: outlines come out shifted, and small
# houses get a poor score from right predictions.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check albumentations==2.0.8 opencv-python-headless==5.0.0.93 numpy==2.2.6
NO_ALBUMENTATIONS_UPDATE=1 venv/bin/python -W ignore - <<'PYTHON'
import albumentations
import cv2
import numpy as np


def run(transform, mask):
    done = transform(image=np.dstack([mask * 255] * 3), mask=mask)
    return done["image"][..., 0] / 255, done["mask"].astype(float)


def wall(transform):
    """Move of the right wall in source pixels in image and mask, mean over places modulo 4."""
    moves = []
    for end in range(40, 44):
        mask = np.zeros((128, 128), np.uint8)
        mask[20:100, :end] = 1
        moves.append([
            128 / len(pixels) * pixels[len(pixels) // 2].sum() - end
            for pixels in run(transform, mask)
        ])
    return tuple(np.mean(moves, axis=0).round(1).tolist())


AREA, EXACT = cv2.INTER_AREA, cv2.INTER_NEAREST_EXACT
coarse = {"downscale": AREA, "upscale": cv2.INTER_NEAREST}
seen = {
    "Resize": wall(albumentations.Resize(32, 32)),
    "Resize, exact": wall(albumentations.Resize(32, 32, mask_interpolation=EXACT)),
    "Downscale": wall(albumentations.Downscale((0.25, 0.25), p=1)),
    "Downscale by areas": wall(albumentations.Downscale((0.25, 0.25), coarse, p=1)),
}
for name, (image, mask) in seen.items():
    print(name, "image moved by", image, "mask by", mask)

rng = np.random.default_rng(0)
town = np.zeros((1024, 1024), np.uint8)
for _ in range(150):
    row, column = rng.integers(0, 954, 2)
    height, width = rng.integers(24, 64, 2)
    town[row:row + height, column:column + width] = 1
best = {}
for scale in (4, 8):
    side = 1024 // scale
    ground = town.reshape(side, scale, side, scale).mean((1, 3)) >= 0.5
    label = run(albumentations.Resize(side, side), town)[1] == 1
    best[scale] = round(float((ground & label).sum() / (ground | label).sum()), 2)
print("IoU of the ground with its own label by scale:", best)
assert seen == {"Resize": (0, 1.5), "Resize, exact": (0, -0.5), "Downscale": (1.5, 0),
                "Downscale by areas": (0, 0)}
assert best == {4: 0.89, 8: 0.8}
PYTHON
