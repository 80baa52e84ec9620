#!/usr/bin/env bash
# xbatcher leaves out the right and lower edge of a scene, and more of it with overlap.
#
# Guess before the run: the windows of BatchGenerator cover the array: the last ones are smaller, or
# moved inward; or it raises where sizes do not fit, as xarray's coarsen does.
# Seen: a window that reaches beyond the array is dropped, without a message. Of a scene of 250 x
# 250 pixels windows of 100 hold 64 %, with an overlap of 20, which should help at the edges, 52 %,
# and of 199 x 199 pixels 25 %. A scene of 99 pixels raises.
# Versions: xbatcher 0.4.0, xarray 2026.9.0. Source: _gen_slices in xbatcher/generators.py; the
# docstring of BatchGenerator says nothing of it, issues 5 and 123 of xarray-contrib/xbatcher do.
# Hurt: who predicts a scene window by window, or cuts labels for a test: buildings at two of the
# four edges are in no window, and neither counts nor scores tell.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check xbatcher==0.4.0 xarray==2026.9.0 numpy==2.2.6
venv/bin/python -W error - <<'PYTHON'
import numpy as np
import xarray
import xbatcher


def covered(size, overlap=0):
    """Number of windows, their share of the pixels, and the last row and column that they reach."""
    numbers = np.arange(size * size).reshape(size, size)
    scene = xarray.DataArray(numbers, dims=("y", "x"))
    window = {"y": 100, "x": 100}
    windows = xbatcher.BatchGenerator(scene, window, input_overlap=dict.fromkeys(window, overlap))
    seen = np.zeros((size, size), bool)
    for one in windows:
        seen.ravel()[one.values.ravel()] = True
    rows, columns = np.nonzero(seen)
    found = len(windows), round(float(seen.mean()), 2), int(rows.max()), int(columns.max())
    print(size, "overlap", overlap, "windows, share, last row and column:", found)
    return found


assert covered(200) == (4, 1.0, 199, 199)
assert covered(250) == (4, 0.64, 199, 199)
assert covered(250, 20) == (4, 0.52, 179, 179)
assert covered(199) == (1, 0.25, 99, 99)
try:
    covered(99)
except ValueError as error:
    print("99:", error)
else:
    raise AssertionError("a scene smaller than a window is read")
PYTHON
