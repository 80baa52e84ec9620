#!/usr/bin/env bash
# EVER's IoU of buildings is 1.0 for a map that misses three of four of them.
#
# Guess before the run: th_intersection_over_union_per_class of labels and predictions is the IoU
# of each class: 0.25 for buildings of which a quarter was found, and 0.5 for as many false ones as
# true.
# Seen: 1.0 and 0.33, and a mean of 0.89 for the first map, which is 0.56. Both sums of the
# confusion matrix go along the same axis, that of the labels: in place of what is labelled, what
# is predicted counts twice. What was missed costs nothing, what is false twice as much. The
# confusion matrix of the same package's PixelMetric gives 0.25 and 0.5. There is no message.
# Versions: ever-beta 0.6.1, torch 2.13.0, scipy 1.17.1, numpy 2.4.6. Source:
# ever/metric/function.py, intersection_over_union_per_class, sum_over_col = cm_th.sum(dim=0).
# Hurt: who chooses a model of buildings by this IoU, in training on the GPU, for which the
# functions are there: the most cautious model always wins.
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

import torch
from confusion_matrix import ConfusionMatrix
from function import th_intersection_over_union_per_class, th_mean_intersection_over_union

labels = torch.zeros(100, 100, dtype=torch.long)
labels[10:50, 10:50] = 1
quarter, double = labels.clone(), labels.clone()
quarter[10:50, 20:50] = 0
double[10:50, 10:90] = 1


def rate(predicted):
    """Return the IoU of ground and buildings, their mean, and the true IoU of both."""
    flat = labels.flatten(), predicted.flatten()
    of_classes = th_intersection_over_union_per_class(*flat, num_classes=2)
    mean = th_mean_intersection_over_union(*flat, num_classes=2)
    matrix = ConfusionMatrix(2)
    matrix.forward(labels, predicted)
    counts = matrix.dense_cm
    truth = counts.diagonal() / (counts.sum(axis=0) + counts.sum(axis=1) - counts.diagonal())
    return [round(float(each), 2) for each in (*of_classes, mean, *truth)]


seen = {"all found": rate(labels), "a quarter found": rate(quarter), "as many false": rate(double)}
for name, (ground, buildings, mean, *truth) in seen.items():
    print(f"{name}: IoU of ground", ground, "of buildings", buildings, "mean", mean, "true", *truth)
assert seen["all found"] == [1] * 5
assert seen["a quarter found"] == [0.78, 1, 0.89, 0.88, 0.25]
assert seen["as many false"] == [1, 0.33, 0.67, 0.81, 0.5]
PYTHON
