#!/usr/bin/env bash
# building-footprint-segmentation measures its models at the probability 0.55 in place of 0.20.
#
# Guess before the run: BinaryMetric takes the sigmoid of logits and its threshold of 0.20, as the
# pictures do that the same library saves while it trains; a roof with 0.3 everywhere is found.
# Seen: the sigmoid is computed and thrown away, and 0.20 cuts the logits, which is a probability of
# 0.55. Of four houses that the model gives 0.3, 0.4, 0.5 and 0.9, recall and IoU are 0.25 in place of
# 1.0. A roof of 0.5 at which BCEWithLogitsLoss, its own loss, is undecided counts as missed. Besides,
# the tensor of predictions holds 0 and 1 afterwards. There is no message.
# Versions: building-footprint-segmentation 0.2.4, torch 2.13.0. Source: building_footprint_
# segmentation/helpers/metrics.py, BinaryMetric.metric_activation: sigmoid() without its result;
# helpers/callbacks.py, BinaryTestCallback, assigns it and cuts the pictures at 0.20.
# Hurt: who reads recall, F1 and IoU of a training or compares with another library: the values
# belong to other masks than those that are saved and drawn.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps \
  building-footprint-segmentation==0.2.4
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.2.6 \
  opencv-python-headless==5.0.0.93
venv/bin/python -W ignore - <<'PYTHON'
import torch
from building_footprint_segmentation.helpers.metrics import BinaryMetric
from building_footprint_segmentation.seg.binary.metrics import get_metrics

truth = torch.zeros(1, 1, 40, 40)
probability = torch.full((1, 1, 40, 40), 0.01)
for place, roof in enumerate((0.3, 0.4, 0.5, 0.9)):
    rows, columns = slice(5, 15), slice(place * 10, place * 10 + 8)
    truth[..., rows, columns] = 1
    probability[..., rows, columns] = roof
logits = torch.logit(probability)
metrics = BinaryMetric(get_metrics())
metrics.get_metrics(truth, logits)
seen = {name: round(float(value), 2) for name, value in metrics.compute_mean().items()}
found = (probability >= 0.2).float()
print("seen:", seen, "recall at 0.2:", float((found * truth).sum() / truth.sum()))
assert seen["recall"] == seen["iou"] == 0.25 and seen["precision"] == 1
assert torch.equal(found, truth)
assert sorted(logits.unique().tolist()) == [0, 1]
PYTHON
