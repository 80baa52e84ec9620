#!/usr/bin/env bash
# eo-learn's FractionSamplingTask takes the share of its creation, not the one given with execute.
#
# Guess before the run: execute(patch, fraction=0.5) of a task that was made with 0.1 takes half of
# the pixels of houses, as the docstring says: "Override the sampling fraction of the task".
# Seen: it takes a tenth. With fraction={1: 0.5}, a fraction by value, it takes half, and of a task
# made with a fraction by value a number cannot be given at all (TypeError). A number is checked for
# its range and then the one of the task is used. There is no message.
# Versions: eo-learn 1.5.7, sentinelhub 3.12.0, numpy 1.26.4. Source: eolearn/ml_tools/sampling.py,
# FractionSamplingTask._calculate_amount_per_value: round(n * self.fraction).
# Hurt: who takes more pixels from patches with few houses to balance a data set: each patch gives
# the same share, and the numbers of samples look plausible.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check eo-learn==1.5.7 sentinelhub==3.12.0 \
  opencv-python-headless==4.11.0.86 numpy==1.26.4
HOME=$folder venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from eolearn.core import EOPatch, FeatureType
from eolearn.ml_tools import FractionSamplingTask
from sentinelhub import CRS, BBox

HOUSES = (FeatureType.MASK_TIMELESS, "houses")
mask = np.zeros((100, 100, 1), np.uint8)
mask[20:60, 20:70] = 1


def sample(of_task, of_call):
    """Return how many of 2000 pixels of houses are sampled, or the name of the error."""
    patch = EOPatch(bbox=BBox((500000, 5400000, 500100, 5400100), CRS.UTM_33N))
    patch[HOUSES] = mask
    task = FractionSamplingTask([(*HOUSES, "sampled")], HOUSES, of_task, exclude_values=[0])
    try:
        return task(patch, seed=0, fraction=of_call).mask_timeless["sampled"].size
    except Exception as error:
        return type(error.__cause__ or error).__name__


asked = [(0.1, None), (0.1, 0.5), (0.5, 0.1), (0.1, {1: 0.5}), ({1: 0.1}, 0.5)]
seen = [sample(*fractions) for fractions in asked]
for (of_task, of_call), number in zip(asked, seen):
    print("made with", of_task, "called with", of_call, "samples", number)
assert "Override the sampling fraction of the task" in FractionSamplingTask.execute.__doc__
assert seen == [200, 200, 1000, 1000, "TypeError"]
PYTHON
