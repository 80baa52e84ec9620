#!/usr/bin/env bash
# buteo's merge method "mad" puts the scores of houses into the band of the ground.
#
# Guess before the run: predict_array with merge_method="mad" merges the scores of overlapping tiles
# by distance from their median, band by band; where the tiles agree, it is the same as "median".
# Seen: a network returns scores for ground and for house, which all tiles agree on. With "median"
# and "mean" a house has 0.1 and 0.9. With "mad" the ground's band has 0.9 there and 0.1 around, and
# the band of houses is NaN in the whole map: the merged value of each band is written into the
# first where the deviation is 0. argmax, for which NaN is the largest, finds one building as large
# as the map, and the first band read as ground is a map of houses. Where tiles differ in part of
# a scene, bands are right there and swapped in the rest. With one band all is well. There is no
# message.
# Versions: buteo 0.9.64, numba 0.61.2, numpy 2.2.6. Source: buteo/array/patches.py,
# _merge_weighted_mad: ret_arr[idx_y, idx_x, 0] = median, for idx_band.
# Hurt: who maps buildings with a network of two classes or more, most where it is sure: its scores
# are 0 and 1 there, and the tiles agree.
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

scene = np.full((128, 128, 1), 0.1, np.float32)
scene[30:60, 30:70] = 0.9


def network(tiles):
    """Return scores of ground and of house for each pixel."""
    return np.concatenate([1 - tiles, tiles], axis=-1)


def unsure(tiles):
    """Return such scores with a doubt that grows over the lower half of each tile."""
    rows = np.arange(tiles.shape[1], dtype=np.float32)[:, np.newaxis, np.newaxis]
    houses = tiles - np.clip(rows / tiles.shape[1] - 0.5, 0, 1) * 0.1
    return np.concatenate([1 - houses, houses], axis=-1)


seen = {}
for method in ("median", "mean", "mad"):
    scores = predict_array(scene, network, tile_size=64, n_offsets=3, merge_method=method)
    seen[method] = [
        [round(score, 2) for score in scores[row, column].tolist()]
        for row, column in ((45, 50), (90, 90))
    ]
    houses = int((scores.argmax(-1) == 1).sum())
    print(f"{method}: ground and house {seen[method][0]} in a house, {seen[method][1]} around it; "
          f"{houses} pixels of houses")
    seen[method].append(houses)
nan = seen["mad"][0].pop(), seen["mad"][1].pop()
assert np.isnan(nan).all()
assert seen == {"median": [[0.1, 0.9], [0.9, 0.1], 1200], "mean": [[0.1, 0.9], [0.9, 0.1], 1200],
                "mad": [[0.9], [0.1], 128 * 128]}
one = predict_array(scene, lambda tiles: tiles, tile_size=64, n_offsets=3, merge_method="mad")
assert np.allclose(one, scene)
scores = predict_array(scene, unsure, tile_size=64, n_offsets=3, merge_method="mad")
lost = float(np.isnan(scores[..., 1]).mean())
print(f"with doubts in half of each tile: {lost:.0%} of the band of houses is NaN")
assert 0 < lost < 1
PYTHON
