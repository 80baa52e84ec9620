#!/usr/bin/env bash
# Datumaro's YOLO export drops polygons and masks without a word and writes empty label files.
#
# Guess before the run: it raises an error, since the format holds boxes only, or it writes the
# bounding box of each shape.
# Seen: the export succeeds, and the label file of every image is there and empty. Ultralytics takes
# an empty file for an image without objects, so a training on it learns that there are none.
# Versions: datumaro 1.13.12. Source: datumaro/plugins/data_formats/yolo/exporter.py, which keeps
# annotations of the type bbox.
# Hurt: who converts outlines (COCO, CVAT) to YOLO with it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datumaro==1.13.12
venv/bin/python - <<'PYTHON'
from pathlib import Path
import numpy as np
from datumaro import Dataset, DatasetItem, Image, Mask, Polygon

picture = Image.from_numpy(np.zeros((40, 60, 3), np.uint8))
mask = np.zeros((40, 60), np.uint8)
mask[5:20, 5:25] = 1
shapes = {"polygon": Polygon([5, 5, 25, 5, 25, 20, 5, 20], label=0), "mask": Mask(mask, label=0)}
items = [
    DatasetItem(id=name, subset="train", media=picture, annotations=[shape])
    for name, shape in shapes.items()
]
Dataset.from_iterable(items, categories=["building"]).export("out", "yolo", save_media=True)
for name in shapes:
    text = Path(f"out/obj_train_data/{name}.txt").read_text()
    print(name, "->", repr(text))
    assert text == ""
PYTHON
