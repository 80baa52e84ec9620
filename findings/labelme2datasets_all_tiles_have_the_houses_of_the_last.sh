#!/usr/bin/env bash
# labelme2datasets numbers houses anew in each tile, so all tiles get the houses of the last.
#
# Guess before the run: voc2coco writes COCO in which pycocotools finds the houses of each tile.
# Seen: of three tiles with 3, 2 and 2 houses, COCO has seven annotations with the numbers 1, 2, 3,
# 1, 2, 1 and 2, and pycocotools knows three of the seven. Asked for the houses of the first tile,
# it gives both of the third and one of the first; for the second, both of the third. A map that is
# the truth itself, all seven houses in their places at a score of 1, has an average recall of 0.429
# in COCOeval, and 1 once the numbers are unique. There is no message.
# Versions: labelme2datasets 0.0.4 (the latest), pycocotools 2.0.11. Source: labelme2datasets/
# voc2coco.py, get_coco_anno_with_file: anno_id = 1 for each file; pycocotools/coco.py, createIndex:
# anns[ann['id']] = ann.
# Hurt: who brings labels of labelme by Pascal VOC to COCO: detectors learn and are rated on houses
# that stand in other tiles.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME="$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps labelme2datasets==0.0.4 \
  xmltodict==0.13.0 pycocotools==2.0.11 numpy==1.26.4
cat > write.py <<'PYTHON'
from pathlib import Path

TILES = {
    "a": [(4, 4, 13, 13), (30, 4, 39, 13), (4, 30, 13, 39)],
    "b": [(20, 20, 29, 29), (50, 50, 59, 59)],
    "c": [(40, 8, 49, 17), (8, 50, 17, 59)],
}
for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
    Path("voc", name).mkdir(parents=True)
for name, houses in TILES.items():
    objects = "".join(
        f"<object><name>house</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for box in houses
    )
    Path(f"voc/Annotations/{name}.xml").write_text(
        f"<annotation><filename>{name}.jpg</filename><size><width>64</width><height>64</height>"
        f"<depth>3</depth></size>{objects}</annotation>"
    )
    Path(f"voc/JPEGImages/{name}.jpg").write_bytes(b"")
Path("voc/ImageSets/Main/train.txt").write_text("\n".join(TILES))
Path("voc/class_names.txt").write_text("house\n")
PYTHON
cat > read.py <<'PYTHON'
import json
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

truth = json.loads(Path("coco/annotations/train.json").read_text())
houses = truth["annotations"]
numbers = [house["id"] for house in houses]
print("numbers", numbers)
assert numbers == [1, 2, 3, 1, 2, 1, 2]
found = [house | {"score": 1} for house in houses]


def rate(name):
    """Return the tiles whose houses a reader gets for each tile, and recall of the truth itself."""
    coco = COCO(name)
    tiles = [
        [house["image_id"] for house in coco.loadAnns(coco.getAnnIds(imgIds=[tile]))]
        for tile in coco.imgs
    ]
    scores = COCOeval(coco, coco.loadRes(found), "bbox")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    return tiles, round(float(scores.stats[8]), 3)


tiles, recall = rate("coco/annotations/train.json")
for number, house in enumerate(houses, 1):
    house["id"] = number
Path("unique.json").write_text(json.dumps(truth))
right, whole = rate("unique.json")
print("houses of each tile come from", tiles, "recall", recall, "and", right, whole)
assert right == [[1, 1, 1], [2, 2], [3, 3]] and whole == 1
assert tiles == [[3, 3, 1], [3, 3], [3, 3]] and recall == 0.429
PYTHON
venv/bin/python write.py
venv/bin/voc2coco --voc_dir voc --coco_dir coco
venv/bin/python read.py
