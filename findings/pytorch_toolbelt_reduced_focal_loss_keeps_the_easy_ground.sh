#!/usr/bin/env bash
# pytorch-toolbelt's reduced focal loss for classes gives easy ground its full weight.
#
# Guess before the run: reduced_threshold makes the reduced focal loss of arXiv 1903.01347: what is
# predicted with less than the threshold keeps the weight 1, and the weight of the rest falls to 0;
# for two classes BinaryFocalLoss and CrossEntropyFocalLoss weigh the same pixel the same.
# Seen: with 0.5, a pixel that has 0.98 of its right class has a weight of 0.0016 in
# BinaryFocalLoss, as the paper has, and of 1 in CrossEntropyFocalLoss; one that has 0.02 has a
# weight of 1 in the first and of 3.84 in the second. Without the threshold both agree. In a tile
# of 10,000 easy pixels of ground and 100 hard ones of buildings the ground makes less than 1 % of
# the first loss and 63 % of the second, which without the threshold has less than 1 %, too. There
# is no message.
# Versions: pytorch-toolbelt 0.8.0, torch 2.13.0. Source: softmax_focal_loss_with_logits in
# pytorch_toolbelt/losses/functional.py, whose pt is the error, and which sets the weight to 1 below
# the threshold, as focal_loss_with_logits does, whose pt is the probability. Pull request 102
# mended the second and calls the first right.
# Hurt: who trains on buildings among much ground with it, for which the loss was made: easy ground
# is not quietened at all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.2.6
venv/bin/pip install --quiet --disable-pip-version-check --no-deps pytorch-toolbelt==0.8.0
venv/bin/python -W ignore - <<'PYTHON'
import sys
import sysconfig
import types
from pathlib import Path

import torch

# The package itself imports torchvision; its focal losses need only torch.
for name in ("pytorch_toolbelt", "pytorch_toolbelt.utils", "pytorch_toolbelt.losses"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(Path(sysconfig.get_path("purelib"), *name.split(".")))]
from pytorch_toolbelt.utils.support import pytorch_toolbelt_deprecated

sys.modules["pytorch_toolbelt.utils"].pytorch_toolbelt_deprecated = pytorch_toolbelt_deprecated
from pytorch_toolbelt.losses.focal import BinaryFocalLoss, CrossEntropyFocalLoss


def losses(right, gamma, threshold):
    """Return the loss of pixels that have this probability of their class, by both classes."""
    logit = torch.logit(right)
    asked = {"gamma": gamma, "reduced_threshold": threshold, "reduction": "none"}
    binary = BinaryFocalLoss(alpha=None, **asked)(logit, torch.ones_like(logit))
    pair = torch.stack([-logit / 2, logit / 2])[None]
    classes = CrossEntropyFocalLoss(**asked)(pair, torch.ones(1, len(logit), dtype=torch.long))
    return binary, classes[0]


right = torch.tensor([0.02, 0.3, 0.7, 0.98])
paper = torch.where(right < 0.5, 1.0, ((1 - right) / 0.5) ** 2)
seen = {}
for threshold in (None, 0.5):
    seen[threshold] = [
        [round(float(each), 4) for each in weighted / plain]
        for weighted, plain in zip(losses(right, 2, threshold), losses(right, 0, None))]
    print("threshold", threshold, "weights of both classes:", *seen[threshold])
print("weights of the paper:", [round(float(each), 4) for each in paper])
assert seen[None][0] == seen[None][1]
assert seen[0.5][0] == [round(float(each), 4) for each in paper]
assert seen[0.5][1] == [3.8416, 1.96, 1, 1]

tile = torch.cat([torch.full((10_000,), 0.98), torch.full((100,), 0.02)])
shares = {
    threshold: [round(float(each[:10_000].sum() / each.sum()), 2)
                for each in losses(tile, 2, threshold)]
    for threshold in (None, 0.5)}
print("share of easy ground in the loss of a tile, by both classes:", shares)
assert shares == {None: [0, 0], 0.5: [0, 0.63]}
PYTHON
