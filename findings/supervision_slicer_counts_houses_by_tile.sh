#!/usr/bin/env bash
# supervision's slicer counts a house at the corner of four tiles four times.
#
# Guess before the run: InferenceSlicer returns each object once; "non-max suppression" of tiles
# that overlap by a fifth takes the pieces of a house together, or keeps the best of them.
# Seen: with its defaults a perfect detector finds 5 objects where there are 2 houses: the pieces of
# a house of 40 pixels overlap each other by an IoU of 0.5 at the most, which is not above the
# threshold, so all four stay, each with 900 of the 1,600 pixels. overlap_filter=NON_MAX_MERGE gives
# 2 whole houses.
# Versions: supervision 0.31.2, opencv-python-headless 4.14.0.94. Source:
# supervision/detection/tools/inference_slicer.py, whose default is NON_MAX_SUPPRESSION.
# Hurt: who counts buildings or measures roofs in large images: blocks are counted by tile.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check supervision==0.31.2 opencv-python-headless==4.14.0.94
venv/bin/python -W ignore - <<'PYTHON'
import cv2
import numpy as np
import supervision as sv


def perfect(tile):
    count, numbers = cv2.connectedComponents((tile[..., 0] > 0).astype(np.uint8))
    masks = np.array([numbers == k for k in range(1, count)]).reshape(-1, *numbers.shape)
    if not len(masks):
        return sv.Detections.empty()
    boxes = sv.mask_to_xyxy(masks).astype(float)
    return sv.Detections(xyxy=boxes, mask=masks, confidence=np.full(len(masks), 0.9),
                         class_id=np.zeros(len(masks), int))


image = np.zeros((250, 250, 3), np.uint8)
image[70:110, 70:110] = image[10:30, 10:30] = 255
tiles = {"slice_wh": (100, 100), "overlap_wh": (20, 20)}
merge = sv.OverlapFilter.NON_MAX_MERGE
seen = {}
for name, options in {"default": {}, "merge": {"overlap_filter": merge}}.items():
    found = sv.InferenceSlicer(callback=perfect, **tiles, **options)(image)
    seen[name] = sorted(int(mask.sum()) for mask in found.mask)
    print(name, "objects:", len(found), "pixels:", seen[name])
assert seen == {"default": [400, 900, 900, 900, 900], "merge": [400, 1600]}
PYTHON
