#!/usr/bin/env bash
# COCO's evaluation never finds the first building of a file that Label Studio exported.
#
# Guess before the run: a perfect prediction of the exported labels has AP 1.0.
# Seen: the first object is counted as missed and its prediction as a false alarm: with two buildings
# the AP is 0.25. Label Studio numbers objects from 0, and pycocotools stores for each prediction the
# number of the object that it matches, where 0 stands for none. Number 0 for image and category is
# harmless. With numbers from 1 the AP is 1.0. faster-coco-eval gives the same two values, but warns;
# pycocotools does not. The more buildings, the smaller the loss, and the harder to see.
# Versions: label-studio-sdk 2.1.2, pycocotools 2.0.11, faster-coco-eval 1.8.0. Source: convert_to_coco
# in label_studio_sdk/converter/converter.py; dtMatches in pycocotools/cocoeval.py.
# Hurt: who evaluates on labels from Label Studio: small test sets get a wrong score, and each fold of
# a cross-validation loses a building.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check label-studio-sdk==2.1.2 pycocotools==2.0.11 faster-coco-eval==1.8.0
venv/bin/python - <<'PYTHON'
import json
import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval
from label_studio_sdk.converter import Converter


def house(number, left):
    corners = [[left, 10], [left + 20, 10], [left + 20, 50], [left, 50]]
    return {"id": f"h{number}", "type": "polygonlabels", "from_name": "label", "to_name": "image",
            "original_width": 200, "original_height": 100, "image_rotation": 0,
            "value": {"points": corners, "closed": True, "polygonlabels": ["building"]}}


task = {"id": 1, "data": {"image": "a.png"},
        "annotations": [{"id": 1, "result": [house(0, 10), house(1, 60)]}]}
with open("tasks.json", "w") as file:
    json.dump([task], file)
config = {"label": {"type": "PolygonLabels", "to_name": ["image"], "labels": ["building"],
                    "labels_attrs": {"building": {}},
                    "inputs": [{"type": "Image", "value": "image"}]}}
converter = Converter(config, ".", download_resources=False)
converter.convert_to_coco("tasks.json", "out", output_image_dir="out/images", is_dir=False)


def score(data, read, evaluate):
    with open("truth.json", "w") as file:
        json.dump(data, file)
    truth = read("truth.json")
    perfect = [
        {"image_id": one["image_id"], "category_id": one["category_id"],
         "segmentation": truth.annToRLE(one), "score": 0.9 - 0.1 * place}
        for place, one in enumerate(data["annotations"])
    ]
    scores = evaluate(truth, truth.loadRes(perfect), "segm")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    return round(float(scores.stats[0]), 2)


with open("out/result.json") as file:
    exported = json.load(file)
assert [one["id"] for one in exported["annotations"]] == [0, 1]
renumbered = exported | {"annotations": [
    one | {"id": one["id"] + 1} for one in exported["annotations"]
]}
for read, evaluate in (
    (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
):
    seen = score(exported, read, evaluate), score(renumbered, read, evaluate)
    print(evaluate.__name__, "as exported and from 1:", seen)
    assert seen == (0.25, 1.0)
PYTHON
