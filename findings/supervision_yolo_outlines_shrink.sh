#!/usr/bin/env bash
# supervision writes masks to YOLO as polygons through pixel centres, so other tools read them smaller.
#
# Guess before the run: the polygon of a mask of 10 x 10 pixels has an area of 100 pixels, up to
# rounding.
# Seen: its corners are the indices of the first and last pixel: 0.20 to 0.29 for the pixels 20 to 29
# of 100. The area of the polygon is 81; rasterio, which colours pixels whose centre is inside, draws
# 81 pixels. supervision itself draws the edge as well and gets 100 back, which hides it. Each side of
# a building loses half a pixel: 19 % of a shed of 10 x 10 pixels, and its centre moves by half a
# pixel to the upper left.
# Versions: supervision 0.31.2, opencv-python-headless 4.14.0.94, rasterio 1.4.4. Source:
# supervision/detection/utils, mask_to_polygons (cv2.findContours).
# Hurt: who moves masks of small objects to YOLO and on to another tool.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check supervision==0.31.2 opencv-python-headless==4.14.0.94 rasterio==1.4.4
venv/bin/python - <<'PYTHON'
from pathlib import Path
import cv2
import numpy as np
import supervision as sv
from rasterio.features import rasterize

mask = np.zeros((100, 100), bool)
mask[20:30, 20:30] = True
Path("in").mkdir()
cv2.imwrite("in/a.png", np.zeros((100, 100, 3), np.uint8))
box = np.array([[20, 20, 29, 29]], float)
shapes = sv.Detections(xyxy=box, mask=mask[None], class_id=np.array([0]))
data = sv.DetectionDataset(["building"], ["in/a.png"], {"in/a.png": shapes})
data.as_yolo("out/images", "out/labels", "out/data.yaml")
line = Path("out/labels/a.txt").read_text().split()
corners = np.array(line[1:], float).reshape(-1, 2) * 100
print("corners in pixels:", corners.tolist())
ring = [*corners.tolist(), corners[0].tolist()]
drawn = rasterize([{"type": "Polygon", "coordinates": [ring]}], (100, 100))
again = sv.DetectionDataset.from_yolo("out/images", "out/labels", "out/data.yaml", force_masks=True)
(_, _, read), = again
print("mask:", mask.sum(), "rasterio:", drawn.sum(), "supervision:", read.mask.sum())
assert (mask.sum(), drawn.sum(), read.mask.sum()) == (100, 81, 100)
PYTHON
