#!/usr/bin/env bash
# mahotas' majority filter takes four of nine pixels for a majority and drops the edges of tiles.
#
# Guess before the run: majority_filter sets a pixel if most of the N x N pixels about it are set,
# five or more of nine, as its documentation says; a straight edge stays and corners are rounded.
# Seen: four are enough. Rectangles keep their corners, in which four of nine are set, and of noise
# of which 46 % are set 61 % are set afterwards, in place of 38 %. Besides, the outermost pixels of
# an image are never set, one at the left and above, two at the right and below: a house of 14 x 14
# in the lower right corner keeps 144 of 196 pixels. There is no message.
# Versions: mahotas 1.4.19, scipy 1.17.1, numpy 2.4.6. Source: mahotas/morph.py, majority_filter,
# and its compiled part _morph: by the results, half of N x N rounded down is enough. A mean filter
# of scipy with a threshold of one half gives the majority.
# Hurt: who cleans uncertain masks of buildings with it: speckle grows where it should vanish, and
# tiles that are cleaned one by one have gaps of three pixels where they meet.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mahotas==1.4.19 scipy==1.17.1 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import mahotas
import numpy as np
from scipy import ndimage

rows, columns = np.mgrid[:64, :64]
masks = {
    "upright": (abs(rows - 30) <= 10) & (abs(columns - 30) <= 5),
    "turned": abs(rows - 30) + abs(columns - 30) <= 12,
    "at the edge": (rows >= 50) & (columns >= 50),
    "noise": np.random.default_rng(0).random((64, 64)) < 0.45,
}
seen = {}
for name, mask in masks.items():
    majority = ndimage.uniform_filter(mask.astype(float), 3, mode="constant") * 9 > 4.5
    found = mahotas.majority_filter(mask, 3)
    seen[name] = [int(each.sum()) for each in (mask, found, majority)]
    print(f"{name:12} pixels of the mask, by mahotas and by the majority:", seen[name])
    four = ndimage.uniform_filter(mask.astype(float), 3, mode="constant") * 9 > 3.5
    assert np.array_equal(found[1:-2, 1:-2], four[1:-2, 1:-2])
    assert not found[[0, -1, -2]].any() and not found[:, [0, -1, -2]].any()
assert seen["upright"] == [231, 231, 227] and seen["turned"] == [313, 313, 309]
assert seen["at the edge"] == [196, 144, 192] and seen["noise"] == [1890, 2502, 1572]
PYTHON
