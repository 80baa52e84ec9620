#!/usr/bin/env bash
# Datumaro writes every mask to COCO as a crowd region, so COCO's evaluation ignores all of them.
#
# Guess before the run: a mask is exported like a polygon, with iscrowd 0; a prediction equal to the
# labels has AP 1.0.
# Seen: each mask has "iscrowd": 1. COCOeval then finds no object to detect: AP is -1 for a perfect
# prediction. Polygons of the same data set have iscrowd 0. CVAT exports brush and SAM masks in this
# way; a training that skips crowds, as torchvision's examples do, loses those buildings.
# Versions: datumaro 1.13.12, pycocotools 2.0.10. Source:
# datumaro/plugins/data_formats/coco/exporter.py, is_crowd = mask is not None.
# Hurt: who draws masks in CVAT and trains or evaluates with COCO tools.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datumaro==1.13.12 pycocotools==2.0.10
venv/bin/python - <<'PYTHON'
import json
import numpy as np
from datumaro import Dataset, DatasetItem, Image, Mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

mask = np.zeros((40, 60), np.uint8)
mask[5:20, 5:25] = 1
picture = Image.from_numpy(np.zeros((40, 60, 3), np.uint8))
item = DatasetItem(id="a", subset="train", media=picture, annotations=[Mask(mask, label=0)])
Dataset.from_iterable([item], categories=["building"]).export("out", "coco_instances")
path = "out/annotations/instances_train.json"
(annotation,) = json.load(open(path))["annotations"]
print("iscrowd:", annotation["iscrowd"])
truth = COCO(path)
rle = truth.annToRLE(annotation)
perfect = {"image_id": 1, "category_id": 1, "segmentation": rle, "score": 1.0}
scores = COCOeval(truth, truth.loadRes([perfect]), "segm")
scores.evaluate()
scores.accumulate()
scores.summarize()
print("AP of a perfect prediction:", scores.stats[0])
assert annotation["iscrowd"] == 1 and scores.stats[0] == -1
PYTHON
