#!/usr/bin/env bash
# sahi's YOLO export calls class 1 of COCO by the name of class 2.
#
# Guess before the run: category ids of COCO, which mostly begin at 1, become the places of their
# names in data.yml, which begin at 0.
# Seen: of the categories 1 house and 2 shed, data.yml has the names [house, shed], which YOLO
# numbers 0 and 1, and the label files have the COCO ids 1 and 2: houses are sheds, and sheds are a
# class that does not exist. There is no message. Of one category with the id 1, no label is valid,
# and Ultralytics skips such images as corrupt. Ids from 0 are right, and so is
# update_categories({"house": 0, "shed": 1}) before the export.
# Versions: sahi 0.12.8. Source: sahi/utils/coco.py, export_yolo_images_and_txts_from_coco_object
# and Coco.export_as_yolo, which write category_id and list(category_mapping.values()).
# Hurt: who turns COCO labels into YOLO by it: classes are swapped, or all images are empty.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sahi==0.12.8
venv/bin/python - <<'PYTHON' 2>/dev/null
import json
from pathlib import Path

import yaml
from PIL import Image
from sahi.utils.coco import Coco

Path("images").mkdir()
Image.new("RGB", (100, 100)).save("images/a.png")


def shape(number, category, left):
    corners = [left, 20, left + 20, 20, left + 20, 40, left, 40]
    return {"id": number, "image_id": 1, "category_id": category, "bbox": [left, 20, 20, 20],
            "area": 400, "iscrowd": 0, "segmentation": [corners]}


def export(name, change):
    labels = {"images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 100}],
              "categories": [{"id": 1, "name": "house"}, {"id": 2, "name": "shed"}],
              "annotations": [shape(1, 1, 10), shape(2, 2, 60)]}
    Path("coco.json").write_text(json.dumps(labels))
    coco = Coco.from_coco_dict_or_path("coco.json", image_dir="images")
    if change:
        coco.update_categories({"house": 0, "shed": 1})
    coco.export_as_yolo(name, train_split_rate=1.0, disable_symlink=True)
    names = yaml.safe_load(Path(name, "data.yml").read_text())["names"]
    (file,) = Path(name, "train").glob("*.txt")
    classes = [int(line.split()[0]) for line in file.read_text().splitlines()]
    return [names[k] if k < len(names) else "no such class" for k in classes]


seen = export("out", change=False), export("changed", change=True)
print("house and shed become:", seen[0], "after update_categories:", seen[1])
assert seen == (["shed", "no such class"], ["house", "shed"])
PYTHON
