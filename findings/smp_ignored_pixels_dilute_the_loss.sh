#!/usr/bin/env bash
# Two losses of segmentation_models_pytorch divide by pixels that they were told to ignore.
#
# Guess before the run: with ignore_index the loss is the mean over the pixels that count, as in
# torch's cross_entropy and in the Dice, focal, Tversky and Lovasz losses of the same library.
# Seen: SoftBCEWithLogitsLoss and SoftCrossEntropyLoss set ignored pixels to zero and take the mean
# over all: where half of an image is ignored, the loss and its gradients are half of those of the
# other half alone. In a sum of cross-entropy and Dice the share of each changes from batch to batch.
# Versions: segmentation_models_pytorch 0.6.0, torch 2.13.0. Source: losses/soft_bce.py and the end of
# label_smoothed_nll_loss in losses/_functional.py, loss.mean().
# Hurt: who trains on scenes with nodata or partial labels: the sparser the labels, the less they count.
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

# The package itself imports torchvision; its losses need only torch.
sys.path.append(str(Path(importlib.util.find_spec("segmentation_models_pytorch").origin).parent))
import losses

IGNORED = 255
torch.manual_seed(0)
one, three = torch.randn(1, 1, 8, 8), torch.randn(1, 3, 8, 8)
binary, classes = torch.randint(0, 2, (1, 1, 8, 8)).float(), torch.randint(0, 3, (1, 8, 8))


def ratio(loss, logits, target):
    """Loss of an image whose right half is ignored, as a share of the loss of its left half."""
    partly = target.clone()
    partly[..., 4:] = IGNORED
    made = loss(logits, partly) / loss(logits[..., :4], target[..., :4])
    print(type(loss).__module__, type(loss).__name__, round(float(made), 3))
    return round(float(made), 3)


assert ratio(losses.SoftBCEWithLogitsLoss(ignore_index=IGNORED), one, binary) == 0.5
soft = losses.SoftCrossEntropyLoss(ignore_index=IGNORED, smooth_factor=0.0)
assert ratio(soft, three, classes) == 0.5
assert ratio(torch.nn.CrossEntropyLoss(ignore_index=IGNORED), three, classes) == 1
for kind in ("Dice", "Focal", "Tversky", "Lovasz"):
    loss = getattr(losses, f"{kind}Loss")
    assert ratio(loss("binary", ignore_index=IGNORED), one, binary) == 1
    assert ratio(loss("multiclass", ignore_index=IGNORED), three, classes) == 1
PYTHON
