#!/usr/bin/env bash
# torchmetrics' generalised Dice score of the same masks is 0.98 or 0.55, by the size of the batch.
#
# Guess before the run: the score of a validation set is a mean over its images, so batches of one,
# two or four give the same, as those of MeanIoU and DiceScore do; a perfect prediction has 1.0.
# Seen: of four tiles, of which two have no building and a false one each, GeneralizedDiceScore is
# 0.984 image by image and 0.552 in one batch: a class that is not in a tile gets the largest weight
# of the other tiles of its batch. Without the background, a tile without buildings counts as 0,
# also if the prediction is empty as well: a perfect prediction has 0.5, and so has the one with
# false buildings. There is no warning. Both other scores are 1.0 for the perfect one.
# Versions: torchmetrics 1.9.0, torch 2.13.0. Source: _generalized_dice_update in
# torchmetrics/functional/segmentation/generalized_dice.py, w_max.
# Hurt: who validates on tiles, of which many have no building, or compares two runs that were
# evaluated on cards of different memory.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 torchmetrics==1.9.0 numpy==2.2.6
venv/bin/python -W error::UserWarning - <<'PYTHON'
import torch
from torchmetrics.segmentation import DiceScore, GeneralizedDiceScore, MeanIoU

labels = torch.zeros(4, 32, 32, dtype=torch.long)
labels[:2, 4:12, 4:12] = 1
false = labels.clone()
false[2:, :8, :8] = 1


def score(metric, prediction, batch, **options):
    measure = metric(2, input_format="index", **options)
    for start in range(0, 4, batch):
        measure.update(prediction[start : start + batch], labels[start : start + batch])
    found = round(float(measure.compute()), 3)
    print(metric.__name__, options, "batches of", batch, "->", found)
    return found


def scores(metric, prediction, **options):
    return [score(metric, prediction, batch, **options) for batch in (1, 2, 4)]


buildings = {"include_background": False}
for metric, options in ((MeanIoU, buildings), (DiceScore, buildings | {"average": "macro"})):
    assert scores(metric, labels, **options) == [1, 1, 1]
    assert scores(metric, false, **options) == [0.5, 0.5, 0.5]
assert scores(GeneralizedDiceScore, false) == [0.984, 0.976, 0.552]
assert scores(GeneralizedDiceScore, labels, **buildings) == [0.5, 0.5, 0.5]
assert scores(GeneralizedDiceScore, false, **buildings) == [0.5, 0.5, 0.5]
PYTHON
