#!/usr/bin/env bash
# COCO's mask evaluation sorts predictions by the area of their box where the results name a box.
#
# Guess before the run: for iouType "segm" the sizes small, medium and large are those of masks; a
# member "bbox" beside "segmentation" changes nothing, as it changes no IoU.
# Seen: with the same masks, "bbox" turns AP small from 0.5 to 1.0 and AP medium from 1.0 to 0.5.
# False bars of 480 pixels that lie diagonally have boxes of 6,800: they leave the small buildings,
# of which half are wrong, and spoil the medium ones. AP over all sizes is the same, 0.67. loadRes
# replaces the area of each mask by that of the box. faster-coco-eval gives the same values.
# Versions: pycocotools 2.0.11, faster-coco-eval 1.8.0. Source: loadRes in pycocotools/coco.py,
# which asks for "bbox" before "segmentation". Detectron2 removes "bbox" from its results for this
# reason.
# Hurt: who compares models by the size of buildings: a false row of houses at an angle to the image
# counts with the large ones, and one parallel to it with the small.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.2.6
venv/bin/python - <<'PYTHON'
import json
import faster_coco_eval
import numpy as np
import pycocotools.coco
import pycocotools.cocoeval
from pycocotools import mask as rle

bar, block = np.zeros((2, 200, 200), np.uint8)
for step in range(80):
    bar[10 + step, 10 + step:16 + step] = 1
block[120:160, 20:60] = 1
wrong = np.roll(bar, 90, axis=1)


def coded(mask):
    found = rle.encode(np.asfortranarray(mask))
    box = rle.toBbox(found).tolist()
    return {"segmentation": found | {"counts": found["counts"].decode()}, "bbox": box}


images = [{"id": number, "height": 200, "width": 200} for number in range(1, 5)]
truth = [
    coded(mask) | {"id": 2 * image["id"] + place, "image_id": image["id"], "category_id": 1,
                   "area": int(mask.sum()), "iscrowd": 0}
    for image in images for place, mask in enumerate((bar, block))
]
results = [
    coded(mask) | {"image_id": image["id"], "category_id": 1, "score": score}
    for image in images for mask, score in ((bar, 0.5), (block, 0.5), (wrong, 0.9))
]
print("pixels:", bar.sum(), block.sum(), "box of the wrong bar:", coded(wrong)["bbox"])
with open("truth.json", "w") as file:
    json.dump({"images": images, "annotations": truth,
               "categories": [{"id": 1, "name": "building"}]}, file)


def scores(read, evaluate, with_boxes):
    labels = read("truth.json")
    masks = [
        {key: value for key, value in one.items() if with_boxes or key != "bbox"} for one in results
    ]
    run = evaluate(labels, labels.loadRes(masks), "segm")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return [round(float(run.stats[place]), 2) for place in (0, 3, 4)]


for read, evaluate in (
    (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
):
    seen = [scores(read, evaluate, with_boxes) for with_boxes in (False, True)]
    print(evaluate.__name__, "AP all, small, medium; without and with boxes:", seen)
    assert seen == [[0.67, 0.5, 1.0], [0.67, 1.0, 0.5]]
PYTHON
