#!/usr/bin/env bash
# segmentation-models-pytorch's weighted-imagewise IoU of a perfect map of 8 classes is 0.125.
#
# Guess before the run: "weighted-imagewise" is, as documented, the weighted average over the
# classes of an image, and the average of that over images; 1 for a map that equals the labels, as
# "weighted".
# Seen: it is 0.5 for two classes, 0.25 for four and 0.125 for eight, whatever the weights;
# "weighted" and "macro-imagewise" are 1. The weights, which add up to 1, are followed by a mean
# over the classes in place of a sum. F1, recall and all other metrics of the module have the same.
# There is no message; values of a weak model look possible.
# Versions: segmentation_models_pytorch 0.6.0, torch 2.13.0. Source: segmentation_models_pytorch/
# metrics/functional.py, _compute_metric, (score.mean(0) * class_weights).mean().
# Hurt: who weights buildings over land cover in a mean over tiles: the score is bounded by one
# over the number of classes, and does not compare with one of another number.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.2.6
venv/bin/pip install --quiet --disable-pip-version-check --no-deps segmentation_models_pytorch==0.6.0
venv/bin/python - <<'PYTHON'
import importlib.util
import sys
from pathlib import Path

import torch

# The package itself imports torchvision; its metrics need only torch.
sys.path.append(str(Path(importlib.util.find_spec("segmentation_models_pytorch").origin).parent))
import metrics


def rate(metric, classes, reduction):
    """Return a metric of two tiles with equal shares of the classes against themselves."""
    labels = torch.arange(classes).repeat_interleave(16).reshape(1, classes, 16).repeat(2, 1, 1)
    counts = metrics.get_stats(labels, labels, mode="multiclass", num_classes=classes)
    weights = [2.0] + [1.0] * (classes - 1) if reduction.startswith("weighted") else None
    return round(float(metric(*counts, reduction=reduction, class_weights=weights)), 3)


NAMES = ("macro-imagewise", "weighted", "weighted-imagewise")
METRICS = (metrics.iou_score, metrics.f1_score, metrics.recall)
seen = {(metric.__name__, classes): [rate(metric, classes, name) for name in NAMES]
        for metric in METRICS for classes in (2, 4, 8)}
for (metric, classes), found in seen.items():
    print(metric, "of", classes, "classes:", *NAMES, *found)
for (_, classes), found in seen.items():
    assert found == [1, 1, 1 / classes]
PYTHON
