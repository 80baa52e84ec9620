#!/usr/bin/env bash
# geoai's ignore_index ignores no pixel: a perfect map has an IoU of 0.07 beside unlabelled ground.
#
# Guess before the run: calc_iou(truth, map, ignore_index=255), "useful for ignoring background or
# unlabeled pixels", leaves out pixels whose label is 255: a map that is right on labelled ground
# has an IoU of 1, whatever it shows elsewhere.
# Seen: of a tile whose right half is unlabelled, a map with the one house of the left half has
# 0.07, since 255 counts as building, and one that shows two houses on the unlabelled half, too, has
# 0.22. With num_classes=2 the first has 0.48 for the ground and 1 for buildings, and the second
# 0.52 and 0.33: unlabelled pixels are false positives of each class that the map has there. The
# F1 score does the same. There is no message.
# Versions: geoai-py 0.40.1, numpy 2.2.6. Source: geoai/utils/metrics.py, calc_iou and
# calc_f1_score: without classes ignore_index is not used, and with them it leaves out the score of
# that class, and no pixel.
# Hurt: who rates maps of scenes that are labelled in part, or have nodata: the figures depend on
# what the model finds where nobody looked.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
$pip rasterio==1.4.4 numpy==2.2.6
$pip --no-deps geoai-py==0.40.1
venv/bin/python - <<'PYTHON'
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np

home = Path(importlib.util.find_spec("geoai").origin).parent
for name, place in (("geoai", home), ("geoai.utils", home / "utils")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(place)]
# The module names torch.Tensor only to accept tensors beside arrays.
sys.modules["torch"] = types.SimpleNamespace(Tensor=type("Tensor", (), {}))
metrics = importlib.import_module("geoai.utils.metrics")
assert "unlabeled pixels" in metrics.calc_iou.__doc__

truth = np.zeros((100, 100), np.uint8)
truth[10:30, 10:30] = 1
truth[:, 50:] = 255
right = np.where(truth == 255, 0, truth)
more = right.copy()
more[10:30, 60:80] = more[50:70, 60:80] = 1

seen = {}
for name, mask in (("the house", right), ("two more on unlabelled ground", more)):
    one = metrics.calc_iou(truth, mask, ignore_index=255)
    both = metrics.calc_iou(truth, mask, num_classes=2, ignore_index=255)
    f1 = metrics.calc_f1_score(truth, mask, ignore_index=255)
    seen[name] = [round(float(value), 2) for value in (one, *both, f1)]
    print(f"{name}: IoU, of ground and of building, F1: {seen[name]}")
assert list(seen.values()) == [[0.07, 0.48, 1, 0.14], [0.22, 0.52, 0.33, 0.36]]
PYTHON
