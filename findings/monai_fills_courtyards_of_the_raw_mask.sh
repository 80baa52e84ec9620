#!/usr/bin/env bash
# MONAI's FillHoles and KeepLargestConnectedComponent change the mask that they were given.
#
# Guess before the run: a transform returns a new mask and leaves its input alone, as
# RemoveSmallObjects of the same module does; so that a prediction can be rated before and after it.
# Seen: the mask of a block of 20 x 20 pixels with a yard of 10 x 10 and a house of 16 x 16 has 556
# pixels. After FillHoles()(mask) mask itself has 656, and after KeepLargestConnectedComponent 300;
# the result is the same memory. So it is with NumPy arrays and with tensors. The Dice of the raw
# prediction, taken afterwards, is that of the cleaned one: 0.92 in place of 1.0. No message.
# Versions: monai 1.6.1, torch 2.13.0, scikit-image 0.26.0, scipy 1.17.1. Source: monai/transforms/
# post/array.py: both convert their input, which copies nothing where the type is right, and write
# into it; the docstrings describe what is returned.
# Hurt: who compares models with and without cleaning: the gain is always 0; and whose courtyards are
# gone from masks that were kept for the map.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 \
  scikit-image==0.26.0 scipy==1.17.1 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import torch
from monai.metrics import DiceMetric
from monai.transforms import FillHoles, KeepLargestConnectedComponent, RemoveSmallObjects

truth = np.zeros((1, 64, 64), np.float32)
truth[0, 4:24, 4:24] = 1
truth[0, 9:19, 9:19] = 0
truth[0, 40:56, 30:46] = 1


def dice(mask):
    """Return the Dice coefficient of a mask and the truth."""
    masks = (torch.as_tensor(np.asarray(each))[None] for each in (mask, truth))
    return round(float(DiceMetric()(*masks)), 2)


seen = {}
for kind in (np.copy, lambda mask: torch.from_numpy(mask.copy())):
    for transform in (FillHoles(), KeepLargestConnectedComponent(), RemoveSmallObjects(min_size=8)):
        raw = kind(truth)
        cleaned = transform(raw)
        name = type(raw).__name__, type(transform).__name__
        seen[name] = int(raw.sum()), int(cleaned.sum()), dice(raw)
        print(*name, "pixels of the raw and the cleaned mask, Dice of the raw one:", seen[name])
for kind in ("ndarray", "Tensor"):
    assert seen[kind, "FillHoles"] == (656, 656, 0.92)
    assert seen[kind, "KeepLargestConnectedComponent"] == (300, 300, 0.7)
    assert seen[kind, "RemoveSmallObjects"] == (556, 556, 1)
PYTHON
