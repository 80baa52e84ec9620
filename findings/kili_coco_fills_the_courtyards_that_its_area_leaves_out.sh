#!/usr/bin/env bash
# Kili's COCO export fills the courtyard of a building, whose area in the same file leaves it out.
#
# Guess before the run: a block of 20 x 20 pixels with a yard of 10 x 10, drawn as an outline and a
# hole, becomes a mask in run lengths of 300 pixels, since polygons of COCO know no holes, or
# raises.
# Seen: both rings are listed as polygons of one building, so its mask is their union and has 400
# pixels: the yard is roof. The field "area" of the annotation is 300. There is no message. Rated
# with pycocotools, a prediction of the true 300 pixels has an average precision of 1 at an IoU of
# 0.5 and of 0 at 0.8.
# Versions: kili-formats 1.6.0, which the SDK kili 26.2.4 exports with, pycocotools 2.0.11, numpy
# 2.4.6, shapely 2.1.2. Source: kili_formats/format/coco/__init__.py,
# _get_coco_geometry_from_kili_bpoly, appends "negative" rings to the polygons.
# Hurt: who trains or evaluates on buildings labelled in Kili: courtyards are learnt as roofs, while
# the statistics of the file say otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check kili-formats==1.6.0 pycocotools==2.0.11 \
  numpy==2.4.6 shapely==2.1.2 imagesize==1.4.1 pillow==12.0.0
venv/bin/python - <<'PYTHON'
import contextlib
import io

import numpy as np
from kili_formats import convert_from_kili_to_coco_format
from PIL import Image
from pycocotools import mask as masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Image.new("RGB", (64, 64)).save("town.png")


def ring(west, north, east, south):
    """Return a rectangle in pixels as Kili keeps it, in parts of the image."""
    corners = ((west, north), (east, north), (east, south), (west, south))
    return {"normalizedVertices": [{"x": x / 64, "y": y / 64} for x, y in corners]}


block = {
    "type": "semantic",
    "categories": [{"name": "BUILDING"}],
    "boundingPoly": [ring(4, 4, 24, 24), ring(9, 9, 19, 19)],
}
coco = convert_from_kili_to_coco_format(
    jobs={"JOB": {"content": {"categories": {"BUILDING": {"name": "building"}}}}},
    assets=[{
        "content": "town.png",
        "externalId": "town",
        "latestLabel": {"jsonResponse": {"JOB": {"annotations": [block]}}},
    }],
    title="town", project_input_type="IMAGE", annotation_modifier=None, merged=False,
)
with contextlib.redirect_stdout(io.StringIO()):
    labels = COCO()
    labels.dataset = dict(coco)
    labels.createIndex()
    (annotation,) = labels.dataset["annotations"]
    mask = labels.annToMask(annotation)
    true = np.zeros((64, 64), np.uint8, order="F")
    true[4:24, 4:24] = 1
    true[9:19, 9:19] = 0
    runs = masks.encode(true)
    found = labels.loadRes([{"image_id": annotation["image_id"], "score": 1.0,
                             "category_id": annotation["category_id"], "segmentation": runs}])
    rated = COCOeval(labels, found, "segm")
    rated.params.iouThrs = np.array([0.5, 0.8])
    rated.evaluate()
    rated.accumulate()
precision = rated.eval["precision"][:, :, 0, 0, -1].mean(axis=1)
print("rings:", len(annotation["segmentation"]), "mask:", mask.sum(), "area:", annotation["area"])
print("average precision of the true mask at 0.5 and 0.8:", precision)
assert len(annotation["segmentation"]) == 2
assert mask.sum() == 400 and annotation["area"] == 300 == true.sum()
assert precision.round(6).tolist() == [1, 0]
PYTHON
