#!/usr/bin/env bash
# SuperAnnotate's COCO export gives a house more area the lower in the image it stands.
#
# Guess before the run: the area of a box of 20 x 20 pixels is 400 wherever it lies; of a polygon
# with a courtyard ("exclude") the courtyard is taken off.
# Seen: three boxes of 20 x 20 pixels at the rows 10, 500 and 970 have the areas 590, 9900 and
# 18830, and right corners. A block of 100 x 100 pixels around a yard of 60 x 60 has one outline
# without the yard, an area of 10201 in place of 6400 and a box of 101 x 101. There is no message.
# Versions: superannotate 4.6.2. Source: superannotate/lib/app/input_converters/converters/
# coco_converters/sa_vector_to_coco.py: in sa_vector_to_coco_object_detection the product binds
# before the difference of y; sa_vector_to_coco_instance_segmentation never reads "exclude".
# Hurt: who trains or tests on the export: COCO's evaluation takes small, medium and large from
# "area", so most houses of a tile are large, and AP small is that of the top of the images.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check superannotate==4.6.2
export HOME="$folder"
venv/bin/python -W ignore - <<'PYTHON' 2> log.txt || { cat log.txt; exit 1; }
import json
from pathlib import Path

from superannotate import export_annotation


def building(**shape):
    """Return an annotated building as SuperAnnotate stores it."""
    return {"classId": 1, "className": "building", "groupId": 0, "probability": 100,
            "pointLabels": {}, "locked": False, "visible": True, "attributes": [], **shape}


def square(x, y, side):
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def box(x, y, side):
    return building(type="bbox", points={"x1": x, "x2": x + side, "y1": y, "y2": y + side})


rows = (10, 500, 970)
block = building(type="polygon", points=square(100, 100, 100), exclude=[square(120, 120, 60)])
Path("project/classes").mkdir(parents=True)
Path("project/classes/classes.json").write_text(json.dumps(
    [{"id": 1, "name": "building", "color": "#ff0000", "attribute_groups": []}]))
Path("project/tile.png.json").write_text(json.dumps({
    "metadata": {"name": "tile.png", "width": 1000, "height": 1000, "status": "Completed"},
    "instances": [*(box(100, row, 20) for row in rows), block], "tags": [], "comments": []}))
seen = {}
for task in ("object_detection", "instance_segmentation"):
    export_annotation("project", task, "COCO", "town", "Vector", task)
    seen[task] = json.loads(Path(task, "town.json").read_text())["annotations"]
for row, house in zip(rows, seen["object_detection"]):
    print("a box of 20 x 20 pixels at row", row, "has the area", house["area"])
    assert house["bbox"] == [100, row, 20, 20]
assert [house["area"] for house in seen["object_detection"]] == [590, 9900, 18830]
block = seen["instance_segmentation"][-1]
print("the block:", block["segmentation"], block["area"], block["bbox"])
assert block["segmentation"] == [square(100, 100, 100)]
assert block["area"] == 10201 and block["bbox"] == [100, 100, 101, 101]
PYTHON
