#!/usr/bin/env bash
# EMPatches' average of overlapping tiles halves earlier ones, and takes scores of 0 for none.
#
# Guess before the run: merge_patches(mode="avg") is the mean of all tiles at a pixel, as its
# documentation says ("mean/average value of overlapping area at each pixel will be written").
# Seen: it takes (so far + next) / 2 tile by tile. Where four tiles meet, the last has the weight
# 1/2 and the first two 1/8: three tiles that are sure of a roof and a last one that sees none give
# 0.5 in place of 0.75, and 1.0 if that one is the first. A value of 0 counts as not yet written, so
# where it comes first the mean of 0 and 1 is 1.0, and 0.5 the other way.
# Versions: empatches 0.2.3, numpy 2.2.6. Source: merge_patches in empatches/empatches.py, mode
# "avg" (np.where(... == 0, ..., np.add(...) / 2)).
# Hurt: who predicts tile by tile and blends by this average: the map depends on the order of the
# tiles, and the lower right tile has the last word on every building in an overlap.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check empatches==0.2.3 numpy==2.2.6
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from empatches import EMPatches

tiler = EMPatches()
tiles, places = tiler.extract_patches(np.zeros((60, 60), np.float32), patchsize=40, overlap=0.5)
assert places == [(0, 40, 0, 40), (20, 60, 0, 40), (0, 40, 20, 60), (20, 60, 20, 60)]


def middle(*scores):
    """Score at the middle, where all four tiles overlap, and left of it, where the first two do."""
    predicted = [np.full((40, 40), score, np.float32) for score in scores]
    merged = tiler.merge_patches(predicted, places, mode="avg")
    print(scores, "mean:", np.mean(scores), "merged:", merged[30, 30])
    return round(float(merged[30, 30]), 4), float(merged[30, 10])


assert middle(1, 1, 1, 0)[0] == 0.5
assert middle(0, 1, 1, 1)[0] == 1.0
assert middle(0.8, 0.1, 0.1, 0.1)[0] == 0.1875
assert middle(0.1, 0.1, 0.1, 0.8)[0] == 0.45
assert (middle(0, 1, 0, 0)[1], middle(1, 0, 0, 0)[1]) == (1.0, 0.5)
PYTHON
