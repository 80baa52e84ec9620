#!/usr/bin/env bash
# tiler's window "overlap-tile" merges tiles without overlap along one axis to an empty map.
#
# Guess before the run: "overlap-tile" keeps the middle of each tile, "for the non-overlapping,
# middle part of tile", as the documentation says; along an axis where tiles do not overlap that is
# the whole tile. So a stack of three dates, tiled by date with overlap=(0, 64, 64), comes back.
# Seen: the merged scores are 0 everywhere, with the padding that calculate_padding() asks for, and
# so is a map of one date tiled with overlap 0 or 1. With (2, 64, 64) and tiles of all dates, with
# dates as channel_dimension, and with other windows the houses are there. The part that is kept
# is cut by [0:-0], which is empty; all weights are 0, and 0 / 0 becomes 0. There is no message.
# Versions: tiler 0.6.0, numpy 2.4.6. Source: tiler/merger.py, _generate_window:
# win[axis_overlap:-axis_overlap] = 1, and merge: nan_to_num.
# Hurt: who maps buildings in stacks of dates, or compares margins down to none: a map without
# houses looks like a network that finds none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 tqdm==4.70.1
venv/bin/pip install --quiet --disable-pip-version-check --no-deps tiler==0.6.0
venv/bin/python -W error - <<'PYTHON'
import numpy as np
from tiler import Merger, Tiler

scores = np.zeros((3, 256, 256), np.float32)
scores[:, 60:120, 70:200] = 0.9


def merged(data, tile, overlap, window, channels=None):
    """Return the pixels of houses after tiling and merging without change."""
    tiler = Tiler(data.shape, tile, overlap, channel_dimension=channels)
    shape, padding = tiler.calculate_padding()
    tiler.recalculate(data_shape=shape)
    merger = Merger(tiler, window=window)
    for number, part in tiler(np.pad(data, padding, mode="reflect")):
        merger.add(number, part)
    return int((merger.merge(extra_padding=padding) > 0.5).sum())


right = int((scores > 0.5).sum())
cases = {
    "dates one by one": (scores, (1, 128, 128), (0, 64, 64)),
    "dates together": (scores, (3, 128, 128), (2, 64, 64)),
    "dates as channels": (scores, (3, 128, 128), (0, 64, 64), 0),
    "one date, margin 2": (scores[0], (128, 128), 2),
    "one date, margin 1": (scores[0], (128, 128), 1),
    "one date, no margin": (scores[0], (128, 128), 0),
}
seen = {}
for name, (data, tile, overlap, *channels) in cases.items():
    seen[name], boxcar = (merged(data, tile, overlap, window, *channels)
                          for window in ("overlap-tile", "boxcar"))
    print(f"{name}: {seen[name]} pixels of houses, boxcar {boxcar}")
    assert boxcar == (data > 0.5).sum()
assert right == 3 * 60 * 130
assert seen == {"dates one by one": 0, "dates together": right, "dates as channels": right,
                "one date, margin 2": right // 3, "one date, margin 1": 0,
                "one date, no margin": 0}
PYTHON
