#!/usr/bin/env bash
# MISeval's Hausdorff distance of two masks is 0 however far apart the houses are.
#
# Guess before the run: evaluate(truth, prediction, metric="HD") is the greatest distance from a
# pixel of one mask to the other mask: 15 for the same house 15 pixels further down.
# Seen: 0, as for a perfect prediction. The rows of an image are taken as points of as many
# dimensions as there are columns: order and place of rows do not count, only which rows occur. A
# house 15 pixels to the right, in place of down, is 3.16 apart, the square root of its width.
# "AHD", the average distance of the same library, is more than 9 for both.
# Versions: MISeval 1.3.0, hausdorff 0.2.6, numpy 2.4.6. Source: miseval/hausdorff.py,
# calc_SimpleHausdorffDistance, hands masks to a function for lists of points.
# Hurt: who reports the distance of boundaries for segmented houses: it is 0 for predictions moved
# to the north or south, and for all others it measures the width of houses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check miseval==1.3.0 hausdorff==0.2.6 \
  numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from miseval import evaluate

truth = np.zeros((40, 40), int)
truth[5:15, 5:15] = 1
seen = {}
for name, axis in (("down", 0), ("right", 1)):
    moved = np.roll(truth, 15, axis)
    seen[name] = {metric: round(float(evaluate(truth, moved, metric=metric)), 2)
                  for metric in ("HD", "AHD", "IoU")}
    print("the house 15 pixels", name, seen[name])
assert seen["down"]["HD"] == 0 and seen["down"]["IoU"] == 0
assert seen["right"]["HD"] == 3.16
assert all(metrics["AHD"] > 9 for metrics in seen.values())
PYTHON
