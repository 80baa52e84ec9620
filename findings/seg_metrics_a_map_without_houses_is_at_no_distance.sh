#!/usr/bin/env bash
# seg-metrics says that a prediction without a single house is 0 pixels from the houses.
#
# Guess before the run: the Hausdorff distance to an empty mask is infinite or NaN, as in MONAI and
# surface-distance, or it raises, as in medpy; the mean over tiles says so.
# Seen: hd, hd95, msd and mdsd are 0, as for a perfect prediction. The houses moved by 5 pixels have
# a hd95 of 5, and a prediction without any house has 0. The same goes for houses that are predicted
# where there are none. If only distances are asked for, there is no message; with Dice there is a
# warning that does not speak of distances.
# Versions: seg-metrics 1.2.8, SimpleITK 2.5.5, numpy 2.4.6. Source: seg_metrics/seg_metrics.py,
# computeQualityMeasures, which takes the empty mask itself for its map of distances.
# Hurt: who compares models by distances of boundaries over many tiles: a model that predicts nothing
# where it is unsure has the best mean.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check seg-metrics==1.2.8 SimpleITK==2.5.5 \
  numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import logging

import numpy as np
from seg_metrics.seg_metrics import write_metrics

said = []
logging.getLogger().addHandler(type("Keep", (logging.Handler,), {"emit": lambda _, one: said.append(one)})())
NAMES = ["hd", "hd95", "msd", "mdsd"]
houses = np.zeros((60, 60), np.uint8)
houses[10:20, 10:20] = houses[40:50, 30:50] = 1
ground = np.zeros_like(houses)


def distances(truth, prediction):
    found = write_metrics(labels=[1], gdth_img=truth, pred_img=prediction, metrics=NAMES)
    found = found[0] if isinstance(found, list) else found
    return {name: round(float(found[name][0]), 2) for name in NAMES}


seen = {
    "perfect": distances(houses, houses),
    "moved by 5 pixels": distances(houses, np.roll(houses, 5, 1)),
    "nothing found": distances(houses, ground),
    "houses where there are none": distances(ground, houses),
}
for name, figures in seen.items():
    print(f"{name}:", figures)
print("messages:", len(said))
best = dict.fromkeys(NAMES, 0)
assert seen["nothing found"] == seen["houses where there are none"] == seen["perfect"] == best
assert seen["moved by 5 pixels"] == {"hd": 5, "hd95": 5, "msd": 1.96, "mdsd": 1} and not said
PYTHON
