#!/usr/bin/env bash
# DagsHub's annotation converter takes each building of a COCO file for two and loses empty tiles.
#
# Guess before the run: an object of COCO, which has a box and a segmentation, is one annotation;
# from COCO to COCO the file keeps its images and objects.
# Seen: three houses are three boxes and three polygons. Written to COCO they are six objects: three
# with a box and no segmentation, and three, with new numbers, with a segmentation and no box. Written
# to Label Studio they are three rectangles and three polygons. The tile without a building is no
# longer in the list of images. There is no message. A file without boxes gives three objects.
# Versions: dagshub-annotation-converter 0.3.0, pycocotools 2.0.11. Source: converters/coco.py,
# _load_coco_dict, which appends what import_bbox and what import_segmentation return.
# Hurt: who moves labels of buildings with it: twice as many, detectors that see each house twice,
# and no background tiles to count false positives on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check dagshub-annotation-converter==0.3.0 \
  pycocotools==2.0.11 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import contextlib
import io
import json
import logging
from collections import Counter
from pathlib import Path

from dagshub_annotation_converter.converters.coco import export_to_coco_file, load_coco_from_file
from dagshub_annotation_converter.formats.label_studio.task import LabelStudioTask
from pycocotools.coco import COCO

messages = io.StringIO()
logging.basicConfig(stream=messages, level=logging.WARNING)


def houses(with_boxes):
    for number in range(3):
        left, top, right, bottom = 20 * number + 5, 5, 20 * number + 15, 25
        house = {"id": number + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 200,
                 "segmentation": [[left, top, right, top, right, bottom, left, bottom]]}
        yield house | {"bbox": [left, top, 10, 20]} if with_boxes else house


def through_the_converter(with_boxes):
    sizes = {"width": 100, "height": 50}
    Path("town.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "town.png"} | sizes, {"id": 2, "file_name": "field.png"} | sizes],
        "categories": [{"id": 1, "name": "building"}], "annotations": list(houses(with_boxes))}))
    read, context = load_coco_from_file("town.json")
    flat = [one for each in read.values() for one in each]
    export_to_coco_file(flat, "written.json", context)
    task = LabelStudioTask()
    task.add_ir_annotations(flat)
    with contextlib.redirect_stdout(io.StringIO()):
        before, after = COCO("town.json"), COCO("written.json")
    return before, after, Counter(one.type for one in task.annotations[0].result)


before, after, studio = through_the_converter(with_boxes=True)
fields = Counter(tuple(sorted({"bbox", "segmentation"} & one.keys())) for one in after.anns.values())
images = [[one["file_name"] for one in file.imgs.values()] for file in (before, after)]
print("objects before and after:", len(before.anns), len(after.anns), dict(fields), "images:", *images)
print("Label Studio:", dict(studio), "messages:", repr(messages.getvalue()))
assert len(before.anns) == 3 and fields == {("bbox",): 3, ("segmentation",): 3}
assert studio == {"rectanglelabels": 3, "polygonlabels": 3} and not messages.getvalue()
assert images == [["town.png", "field.png"], ["town.png"]]
assert len(through_the_converter(with_boxes=False)[1].anns) == 3
PYTHON
