#!/usr/bin/env bash
# buteo's predict_array keeps no score of a byte image but 1: all others become 0.
#
# Guess before the run: predict_array cuts a scene into tiles, calls a network for each, and returns
# the merged scores as the network gave them, whatever type the image has.
# Seen: for an image of uint8 the scores are uint8 as well. A network that is sure of one house by
# 1.0 and of another by 0.78 gives a map of 1 and 0: the second house is gone, and with a network
# that is never quite sure the map is empty. Of the same values as float32 both are there. The
# arrays for the predictions take the type of the image, whatever the network returns. There is no
# message, and the result looks like a mask.
# Versions: buteo 0.9.64, numba 0.61.2, numpy 2.2.6. Source: buteo/array/patches.py, predict_array:
# predictions and offset_predictions, dtype=arr.dtype.
# Hurt: who maps buildings in aerial images, which are nearly all of 8 bits, with a network that
# scales its input itself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numba==0.61.2 numpy==2.2.6
venv/bin/pip install --quiet --disable-pip-version-check --no-deps buteo==0.9.64
venv/bin/python -W ignore - <<'PYTHON'
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

# The package imports GDAL; these modules of it need only numba.
for name in ("buteo", "buteo.array", "buteo.utils"):
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(Path(path, *name.split("."))) for path in sys.path]
from buteo.array.patches import predict_array

scene = np.zeros((128, 128, 3), np.uint8)
houses = {"sure": np.s_[80:110, 60:90], "fairly sure": np.s_[20:50, 30:70]}
scene[houses["sure"]] = 255
scene[houses["fairly sure"]] = 200


def network(tiles):
    """Return the brightness of pixels as scores of 0 to 1."""
    return tiles[..., :1].astype(np.float32) / 255


seen = {}
for image in (scene, scene.astype(np.float32)):
    for method in ("median", "mean"):
        scores = predict_array(image, network, tile_size=64, merge_method=method)
        seen[image.dtype.name, method] = [round(float(scores[part].mean()), 2)
                                          for part in houses.values()]
        print(image.dtype, method, scores.dtype, dict(zip(houses, seen[image.dtype.name, method])))
assert seen == {("uint8", "median"): [1, 0], ("uint8", "mean"): [1, 0],
                ("float32", "median"): [1, 0.78], ("float32", "mean"): [1, 0.78]}
assert predict_array(scene, lambda tiles: network(tiles) * 0.99, tile_size=64).max() == 0
PYTHON
