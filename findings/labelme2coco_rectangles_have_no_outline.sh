#!/usr/bin/env bash
# labelme2coco writes a LabelMe rectangle as an object with a box and no outline.
#
# Guess before the run: a rectangle, which LabelMe stores by two corners, becomes a polygon of four
# corners, as circles become polygons; and shapes of one group_id are one object.
# Seen: segmentation is [] while area and box are those of the rectangle; the circle has an outline.
# Two shapes with the same group_id, which LabelMe uses for the parts of one object, are two objects.
# Versions: labelme2coco 0.2.6, sahi 0.12.8. Source: labelme2coco/labelme2coco.py, line 96: of a
# rectangle, CocoAnnotation gets the box alone.
# Hurt: who draws simple roofs as rectangles and trains a segmentation on the COCO file: those
# buildings have no pixel, and count as background.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check labelme2coco==0.2.6 sahi==0.12.8
venv/bin/python - <<'PYTHON'
import json
from pathlib import Path

import labelme2coco
from PIL import Image

Path("in").mkdir()
Image.new("RGB", (100, 100)).save("in/a.png")


def shape(kind, points, group=None):
    return {"label": "building", "shape_type": kind, "points": points, "group_id": group,
            "flags": {}}


shapes = [
    shape("rectangle", [[5, 50], [25, 90]]),
    shape("circle", [[50, 20], [60, 20]]),
    shape("polygon", [[60, 60], [70, 60], [70, 70], [60, 70]], group=1),
    shape("polygon", [[80, 80], [90, 80], [90, 90], [80, 90]], group=1),
]
Path("in/a.json").write_text(json.dumps({
    "version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "a.png", "imageData": None,
    "imageHeight": 100, "imageWidth": 100,
}))
labelme2coco.convert("in", "out")
found = json.loads(Path("out/dataset.json").read_text())["annotations"]
for one in found:
    print("corners:", [len(ring) // 2 for ring in one["segmentation"]], "area:", one["area"])
assert [len(one["segmentation"]) for one in found] == [0, 1, 1, 1]
assert (found[0]["area"], found[0]["bbox"]) == (800, [5, 50, 20, 40])
PYTHON
