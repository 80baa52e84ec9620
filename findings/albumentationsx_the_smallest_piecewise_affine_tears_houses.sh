#!/usr/bin/env bash
# AlbumentationsX moves pixels by 38 on average in PiecewiseAffine, however small its scale is.
#
# Guess before the run: the scale is the deviation of the points of the grid, as a part of the tile:
# a scale of a billionth leaves the tile as it is, as a scale of 0 does, and one of 0.03, the
# default, moves pixels of a tile of 512 x 512 by about 5.
# Seen: with a scale of 1e-9 the pixels move by 38 on average and by 78 at most, with 0.03 by 39 and
# 81. Of 64 houses of 20 x 20 pixels 52 are left as parts of their own, of 155 to 3,769 pixels in
# place of 400 each, and roofs cover 14 % more than before. A finer grid of 16 x 16 makes 86 parts.
# Image, mask and points move together, so that no check of labels sees it.
# Versions: albumentationsx 2.5.1 (the latest), albucore 0.2.21, torch 2.13.0. Source:
# augmentations/geometric/_functional_distortion.py, create_piecewise_affine_maps: weights by the
# inverse squared distance average the places of all points of the grid, and not their shifts, so
# what is between points is drawn to them. Only a scale of 0 is turned away before.
# Hurt: who adds it for slight distortions: houses grow ninefold or shrink to specks, straight walls
# are bent, and a smaller scale, which one tries then, changes nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
$pip torch==2.13.0 numpy==2.2.6 scipy==1.17.1 pydantic==2.14.4 pyyaml==6.0.4 numkong==7.8.6 \
  stringzilla==5.3.2 opencv-python-headless==4.12.0.88
$pip --no-deps albucore==0.2.21 albumentationsx==2.5.1
venv/bin/python -W ignore - <<'PYTHON'
import albumentations as A
import cv2
import numpy as np

SIDE = 512
mask = np.zeros((SIDE, SIDE), np.uint8)
for y in range(30, 500, 60):
    for x in range(30, 500, 60):
        mask[y - 10 : y + 10, x - 10 : x + 10] = 1
rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
places = np.dstack([columns, rows, columns]) / SIDE


def changed(scale, grid):
    """Return the mean and largest way of pixels, the share of roofs, and the areas of houses."""
    change = A.PiecewiseAffine(
        scale_range=(scale, scale), nb_rows_range=(grid, grid), nb_cols_range=(grid, grid), p=1
    )
    result = A.Compose([change], seed=0)(image=places, mask=mask)
    x, y = result["image"][..., 0] * SIDE, result["image"][..., 1] * SIDE
    way = np.hypot(x - columns, y - rows)
    areas = cv2.connectedComponentsWithStats(result["mask"])[2][1:, cv2.CC_STAT_AREA]
    print(f"scale {scale}, grid {grid}: way {way.mean():.1f}, at most {way.max():.1f} pixels,",
          f"{len(areas)} houses of {areas.min()} to {areas.max()} pixels")
    return way.mean(), way.max(), result["mask"].sum() / mask.sum(), areas


mean, largest, share, areas = changed(0, 4)
assert largest < 0.01 and share == 1 and len(areas) == 64 and set(areas) == {400}
mean, largest, share, areas = changed(1e-9, 4)
assert 38 < mean < 39 and 78 < largest < 79 and 1.13 < share < 1.15
assert len(areas) == 52 and areas.min() < 160 and areas.max() > 3700
mean, largest, share, areas = changed(0.03, 4)
assert 38 < mean < 40 and 80 < largest < 82
assert len(changed(1e-9, 16)[3]) == 86
PYTHON
