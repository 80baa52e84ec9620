#!/usr/bin/env bash
# MMEval's MeanIoU of a map with 19 classes against itself is 0.59, and its buildings have 0.5.
#
# Guess before the run: a prediction that equals the labels has an IoU of 1 for every class, whatever
# the integers of the arrays are.
# Seen: it is so with 64 bits. With 8 bits, in which masks are stored and in which imageio, PIL and
# OpenCV read them, the numbers of the cells of the confusion matrix, class of the label times the
# count of classes plus class of the prediction, wrap at 256: from 17 classes on, pixels of the last
# ones count as confusions of the first. Of a map in which 19 classes, as those of FLAIR, have equal
# shares, the mean is 0.59 and that of buildings 0.5. Torch's uint8 does the same. No message.
# Versions: mmeval 0.2.1, numpy 2.4.6, torch 2.13.0. Source: metrics/mean_iou.py,
# compute_confusion_matrix, num_classes * label + prediction.
# Hurt: who rates land cover with buildings as one of many classes: the worse, the more the last
# classes cover, and no model can be better than that.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mmeval==0.2.1 numpy==2.4.6 torch==2.13.0
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import torch
from mmeval import MeanIoU

BUILDING = 1


def rate(classes, kind):
    """Return mean IoU and the IoU of buildings of a map with equal shares against itself."""
    labels = kind(np.repeat(np.arange(classes), 100).reshape(1, -1, 10))
    found = MeanIoU(num_classes=classes, classwise_results=True)(labels, labels)
    return [round(float(each), 3) for each in (found["mIoU"], found["classwise_results"]["IoU"][BUILDING])]


kinds = {"int64": np.int64, "uint8": np.uint8, "torch.uint8": lambda one: torch.tensor(one).byte()}
seen = {(classes, name): rate(classes, kind) for classes in (2, 16, 17, 19) for name, kind in kinds.items()}
for (classes, name), found in seen.items():
    print(classes, "classes", name, "mean IoU:", found[0], "of buildings:", found[1])
for (classes, name), found in seen.items():
    if classes < 17 or name == "int64":
        assert found == [1, 1]
assert seen[19, "uint8"] == seen[19, "torch.uint8"] == [0.59, 0.5]
PYTHON
