#!/usr/bin/env bash
# ensemble-boxes' soft_nms returns a house once for each model that found it, at full scores.
#
# Guess before the run: soft NMS lowers the score of a box by its overlap with better ones (linear
# by 1 - IoU, Gaussian by exp(-IoU^2 / sigma)), as in the paper; a threshold then drops the
# doubles.
# Seen: of three houses that two models found with an IoU of 0.9, all six boxes come back with the
# scores that they came with: 0.9, 0.8, 0.7 and 0.85, 0.75, 0.65. Soft NMS would have 0.085, 0.075
# and 0.065 for the second ones (linear). The lowered scores decide which boxes fall below thresh
# and are then left behind in a copy. With a threshold of 0.5 afterwards there are six houses; nms
# and weighted_boxes_fusion have three. There is no message.
# Versions: ensemble-boxes 1.0.9, numba 0.61.2, numpy 2.2.6. Source: ensemble_boxes/
# ensemble_boxes_nms.py, nms_method: scores_by_label.copy() goes in, scores_by_label[keep] comes
# out.
# Hurt: who joins detectors, or the tiles of one, by soft NMS: buildings are counted twice, and the
# doubles are false positives at high scores, so that soft NMS looks worse than plain NMS.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check ensemble-boxes==1.0.9 numba==0.61.2 \
  pandas==2.3.3 numpy==2.2.6
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from ensemble_boxes import nms, soft_nms, weighted_boxes_fusion

SIDE, STEP = 0.19, 0.01
first = [[x, 0.1, x + SIDE, 0.3] for x in (0.1, 0.4, 0.7)]
second = [[x + STEP, 0.1, x + STEP + SIDE, 0.3] for x in (0.1, 0.4, 0.7)]
scores = [[0.9, 0.8, 0.7], [0.85, 0.75, 0.65]]
iou = (SIDE - STEP) / (SIDE + STEP)
print("IoU of the two boxes of a house:", round(iou, 3))


def joined(way, **options):
    """Return the scores of the boxes that are left, best first."""
    _, found, _ = way([first, second], [list(each) for each in scores], [[0] * 3] * 2,
                      iou_thr=0.5, **options)
    return sorted((round(float(each), 3) for each in found), reverse=True)


def by_paper(weight):
    """Return the scores after soft NMS: the second box of a house is the only one that overlaps."""
    return sorted([*scores[0], *(round(each * weight, 3) for each in scores[1])], reverse=True)


seen = {
    "nms": joined(nms),
    "weighted_boxes_fusion": joined(weighted_boxes_fusion),
    "soft_nms, linear": joined(soft_nms, method=1),
    "soft_nms, Gaussian": joined(soft_nms, method=2, sigma=0.5),
}
wanted = {"linear": by_paper(1 - iou), "Gaussian": by_paper(np.exp(-(iou**2) / 0.5))}
for name, found in seen.items():
    print(f"{name}: scores", *found, "above 0.5:", sum(score > 0.5 for score in found))
for name, found in wanted.items():
    above = sum(score > 0.5 for score in found)
    print(f"by the paper, {name}: scores", *found, "above 0.5:", above)
assert len(seen["nms"]) == len(seen["weighted_boxes_fusion"]) == 3
for name in ("linear", "Gaussian"):
    assert seen[f"soft_nms, {name}"] == sorted(scores[0] + scores[1], reverse=True)
    assert sum(score > 0.5 for score in wanted[name]) == 3
PYTHON
