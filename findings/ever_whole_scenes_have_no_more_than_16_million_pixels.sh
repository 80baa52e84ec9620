#!/usr/bin/env bash
# EVER's confusion matrix of a whole scene holds at most 16,777,216 pixels in a cell.
#
# Guess before the run: PixelMetric and its ConfusionMatrix add up pixels, so a scene that is
# passed whole has the figures of the same scene passed in tiles.
# Seen: of a scene of 6,000 x 6,000 pixels, 27 million of ground that were found so are 16,777,216,
# and the IoU of ground is 0.78; in tiles of 1,000 x 1,000 it is 0.85, which is right, and the
# other three cells agree. Pixels are added one by one in floats of 32 bits, where 2^24 + 1 is
# 2^24. With 5,000 x 5,000 pixels, as scenes of the Inria data set have, it is so from 67 % of
# ground on. There is no message.
# Versions: ever-beta 0.6.1, torch 2.13.0, scipy 1.17.1, numpy 2.4.6. Source:
# ever/metric/confusion_matrix.py, ConfusionMatrix.forward, dtype=np.float32.
# Hurt: who rates maps of whole scenes: accuracy, kappa and the IoU of ground are too low, and the
# more, the larger the scene; the mean over classes moves with it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 scipy==1.17.1 numpy==2.4.6
venv/bin/pip install --quiet --disable-pip-version-check --no-deps ever-beta==0.6.1
venv/bin/python -W ignore - <<'PYTHON'
import importlib.util
import sys
from pathlib import Path

# The package itself imports torchvision; these modules of it need only torch and SciPy.
sys.path.append(str(Path(importlib.util.find_spec("ever").origin).parent / "metric"))

import numpy as np
from confusion_matrix import ConfusionMatrix

SIDE, TILE = 6000, 1000
labels = np.zeros((SIDE, SIDE), np.uint8)
labels[:1000] = 1
predicted = labels.copy()
predicted[:300], predicted[1000:1500] = 0, 1


def rate(side):
    """Return the confusion matrix and the IoU of both classes, passed in tiles of a side."""
    matrix = ConfusionMatrix(2)
    for row in range(0, SIDE, side):
        for column in range(0, SIDE, side):
            tile = (slice(row, row + side), slice(column, column + side))
            matrix.forward(labels[tile], predicted[tile])
    counts = matrix.dense_cm.astype(int)
    iou = counts.diagonal() / (counts.sum(axis=0) + counts.sum(axis=1) - counts.diagonal())
    return counts.ravel().tolist(), [round(float(each), 2) for each in iou]


truth = np.bincount((labels * 2 + predicted).ravel(), minlength=4).tolist()
seen = {"whole": rate(SIDE), "tiles": rate(TILE)}
print("pixels:", *truth)
for name, (counts, iou) in seen.items():
    print(f"{name}: pixels", *counts, "IoU of ground and buildings", *iou)
assert seen["tiles"] == (truth, [0.85, 0.47])
assert seen["whole"] == ([2**24, *truth[1:]], [0.78, 0.47])
PYTHON
