#!/usr/bin/env bash
# The 95 % Hausdorff distance of one prediction is 0 pixels by medpy and 144 by surface-distance.
#
# Guess before the run: both are the distance that 95 % of the boundaries keep, and differ by
# fractions of a pixel, from how boundary pixels are taken.
# Seen: of a house and a false shed of 6 x 6 pixels, medpy puts the distances of both boundaries
# together before it takes the percentile: the shed has under 5 % of all, and the value is 0.
# surface-distance takes the percentile of each boundary and returns the larger (as MONAI 1.6.1
# does, with 143.7): of the predicted boundary the shed has more than 5 %. A house that is too large
# by two pixels all around has 2 by medpy and is worse than the false shed; by the other it is far
# better. Without a percentile both give 149.9.
# Versions: medpy 0.5.2, surface-distance 0.1. Source: hd95 in medpy/metric/binary.py (hstack);
# compute_robust_hausdorff in surface_distance/metrics.py (max).
# Hurt: who compares a boundary measure with one of a paper, or picks a model by it: the order of
# two models depends on the library.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check medpy==0.5.2 surface-distance==0.1 scipy==1.17.1 numpy==2.2.6
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from medpy.metric.binary import hd, hd95
from surface_distance import compute_robust_hausdorff, compute_surface_distances

house = np.zeros((256, 256), bool)
house[20:100, 20:100] = True
shed, large = house.copy(), house.copy()
shed[200:206, 200:206] = True
large[18:102, 18:102] = True


def both(prediction, percent, pooled):
    distances = compute_surface_distances(house, prediction, (1, 1))
    found = pooled(prediction, house), compute_robust_hausdorff(distances, percent)
    return tuple(round(float(value), 1) for value in found)


seen = {
    (name, percent): both(prediction, percent, pooled)
    for name, prediction in (("shed", shed), ("large", large))
    for percent, pooled in ((95, hd95), (100, hd))
}
for key, values in seen.items():
    print(*key, "medpy, surface-distance:", values)
assert seen["shed", 95] == (0, 143.6)
assert seen["shed", 100] == (149.9, 149.9)
assert seen["large", 95] == (2, 2)
PYTHON
