#!/usr/bin/env bash
# coco-froc-analysis takes any box in a tile for the house that it looks for.
#
# Guess before the run: a box that lies 70 pixels beside the only house of its tile is a false
# positive and the house is missed, both by the centre of the box and by an IoU of 0.5.
# Seen: it is a hit and nothing is false, with either rule. In three tiles of two houses each, six
# boxes that all lie beside the houses have a sensitivity of 1 and no false positives, as the six
# right ones do; with threshold 0.99 as with 0.1. Only boxes beyond the number of houses of a tile
# are false. counts of its count curve are the same. There is no message.
# Versions: coco-froc-analysis 0.2.15, numpy 1.26.4, scipy 1.13.1. Source: update_stats in
# froc/froc_stats.py and count/count_stats.py: pairs that do not match cost 1e6 and more, the
# assignment takes them where no other is left, and all assigned pairs are counted as hits.
# Hurt: who draws the FROC curve of a detector: where tiles hold as many boxes as houses, each
# detector is perfect, and the curve says how many boxes there are, not where.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check coco-froc-analysis==0.2.15 \
  numpy==1.26.4 scipy==1.13.1 matplotlib==3.9.4
MPLBACKEND=Agg venv/bin/python - <<'PYTHON'
import copy

from coco_froc_analysis.count.count_stats import init_stats, update_stats
from coco_froc_analysis.froc.froc_curve import froc_point
from coco_froc_analysis.utils import build_gt_id2annotations, build_pr_id2annotations

tiles = range(3)
houses = [[10, 10, 20, 20], [40, 10, 20, 20]]
truth = {
    "images": [{"id": tile, "width": 100, "height": 100} for tile in tiles],
    "categories": [{"id": 1, "name": "building"}],
    "annotations": [
        {"id": 2 * tile + i, "image_id": tile, "category_id": 1, "bbox": box}
        for tile in tiles
        for i, box in enumerate(houses)
    ],
}


def predict(boxes):
    return [
        {"image_id": tile, "category_id": 1, "bbox": box, "score": 0.9}
        for tile in tiles
        for box in boxes
    ]


beside = [[x, y + 60, width, height] for x, y, width, height in houses]
cases = {
    "right": (predict(houses), 6, 0),
    "beside": (predict(beside), 6, 0),
    "one beside": (predict(beside[:1]), 3, 0),
    "right and beside": (predict(houses + beside), 6, 6),
}
for name, (boxes, hits, false) in cases.items():
    for use_iou, threshold in ((False, 0.5), (True, 0.1), (True, 0.5), (True, 0.99)):
        stats = froc_point(copy.deepcopy(truth), copy.deepcopy(boxes), 0.5, use_iou, threshold)[1]
        assert (stats["LL"], stats["NL"], stats["n_lesions"]) == (hits, false, 6), stats
    counts = update_stats(
        init_stats(truth, truth["categories"]),
        build_gt_id2annotations(truth),
        build_pr_id2annotations(boxes),
        truth["categories"],
        False,
    )[1]
    print(f"{name}: {stats['LL']} of 6 houses found, {stats['NL']} false; counts {counts}")
    assert (counts["TP"], counts["FP"], counts["FN"]) == (hits, false, 6 - hits)
PYTHON
