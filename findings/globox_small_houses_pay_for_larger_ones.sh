#!/usr/bin/env bash
# globox's AP of small houses falls by each larger house that was found, which COCO leaves out.
#
# Guess before the run: ap_small() of COCOEvaluator, which computes the standard COCO metrics, is that
# of pycocotools: predictions that match a house of another size class do not count for it.
# Seen: a shed of 20 x 20 pixels, predicted exactly, and eight houses of 30 x 35, which are medium,
# predicted a pixel short, which is small: pycocotools has 1 for small houses, globox 0.11. Each such
# prediction counts as a false one, once there is any small house in the image, wherever it lies: that
# one, with an IoU of 0, is taken for the best match before houses of other sizes are looked at. AP
# of all sizes is 1 by both. On random boxes AP of small and of medium ones differs now and then.
# Versions: globox 2.9.0, pycocotools 2.0.11. Source: globox/evaluation.py, evaluate_boxes, best_iou =
# 0.0 and the break, where COCO's evaluation begins with the threshold.
# Hurt: who chooses a detector by its small buildings: one that finds those near the limit is punished.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check globox==2.9.0 pycocotools==2.0.11 \
  numpy==2.4.6
venv/bin/python - <<'PYTHON'
import contextlib
import io

from globox import Annotation, AnnotationSet, BoundingBox, COCOEvaluator
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SHED = (5, 5, 25, 25)
houses = [(50 * number + 50, 60, 50 * number + 85, 90) for number in range(8)]
found = [(left, top, right - 1, bottom) for left, top, right, bottom in houses]


def by_globox(truth, predictions):
    def read(boxes, scores):
        return AnnotationSet([Annotation("town", (500, 200), [
            BoundingBox(label="building", xmin=box[0], ymin=box[1], xmax=box[2], ymax=box[3], confidence=score)
            for box, score in zip(boxes, scores)])])
    scores = [0.9 - 0.01 * number for number in range(len(predictions))]
    evaluator = COCOEvaluator(ground_truths=read(truth, [None] * len(truth)),
                              predictions=read(predictions, scores))
    return evaluator.ap(), evaluator.ap_small()


def by_pycocotools(truth, predictions):
    def read(boxes):
        return [{"id": number + 1, "image_id": 1, "category_id": 1, "iscrowd": 0,
                 "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
                for number, (left, top, right, bottom) in enumerate(boxes)]
    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO()
        labels.dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": read(truth)}
        labels.createIndex()
        results = labels.loadRes([one | {"score": 0.9 - 0.01 * number}
                                  for number, one in enumerate(read(predictions))])
        evaluation = COCOeval(labels, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0], evaluation.stats[3]


seen = {}
for count in (0, 1, 4, 8):
    truth, predictions = [*houses[:count], SHED], [*found[:count], SHED]
    seen[count] = [[round(float(each), 3) for each in rate(truth, predictions)]
                   for rate in (by_globox, by_pycocotools)]
    print("a shed and", count, "houses, AP and AP of small ones by globox:", *seen[count][0],
          "by pycocotools:", *seen[count][1])
assert all(each == [1, 1] for each in (seen[0][0], *(pycocotools for _, pycocotools in seen.values())))
assert [seen[count][0] for count in (1, 4, 8)] == [[1, 0.5], [1, 0.2], [1, 0.111]]
PYTHON
