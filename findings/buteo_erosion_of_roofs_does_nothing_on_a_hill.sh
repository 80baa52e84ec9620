#!/usr/bin/env bash
# buteo's erosion and dilation of heights do nothing in a town at 500 m above the sea.
#
# Guess before the run: morph_erode, documented as the local minimum, takes a pixel off each side of
# a roof; the same house on a hill loses the same pixels, as a minimum does not depend on where
# heights begin.
# Seen: of a roof of 5 x 5 pixels, 10 m above the ground, 9 pixels are left at sea level and all 25
# at 500 m, where not one pixel changes; morph_dilate makes 49, 45 at 50 m, and 25 at 500 m. The
# kernel is a circle whose edge has weights below 1, 0.9 beside the centre and 0.5 at corners, and
# each height is divided by its weight (multiplied for the maximum) before it is compared: ground at
# 500 m counts as 555 m and is no longer the lowest. morph_open with a radius of 3, which removes
# what is narrower than 7 pixels and so gives the ground, leaves no pixel of the roof at 0 and 50 m
# and all at 500 m, where the height above the ground becomes 0. Masks of 0 and 1 are eroded and
# dilated as by a square, though spherical=True asks for a circle. There is no message.
# Versions: buteo 0.9.64, numpy 2.2.6, and numba 0.61.2 with NUMBA_DISABLE_JIT=1, as it fails to
# compile the kernel of this release. Source: buteo/array/convolution_funcs.py, _hood_min and
# _hood_max; buteo/array/morphology.py, which passes the weights of the circle.
# Hurt: who finds buildings as what stands above the opened surface model: that works in a town on
# the coast and fails in one on a plateau, for the same houses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numba==0.61.2 numpy==2.2.6
venv/bin/pip install --quiet --disable-pip-version-check --no-deps buteo==0.9.64
NUMBA_DISABLE_JIT=1 venv/bin/python -W ignore - <<'PYTHON'
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

# The package imports GDAL; these modules of it need only numba.
for name in ("buteo", "buteo.array", "buteo.utils"):
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(Path(path, *name.split("."))) for path in sys.path]
from buteo.array.morphology import morph_dilate, morph_erode, morph_open

roof = np.zeros((15, 15, 1), np.float32)
roof[5:10, 5:10] = 10
mask = roof > 0
seen = {}
for altitude in (0, 50, 500):
    surface = roof + altitude
    opened = morph_open(surface, radius=3)
    seen[altitude] = [int((heights - altitude > 5).sum())
                      for heights in (morph_erode(surface), morph_dilate(surface), opened)]
    print(f"{altitude} m: pixels of a roof of {mask.sum()} eroded, dilated, opened", seen[altitude])
assert seen == {0: [9, 49, 0], 50: [9, 45, 0], 500: [25, 25, 25]}
assert np.array_equal(morph_erode(roof + 500), roof + 500)
assert np.array_equal(morph_dilate(roof + 500), roof + 500)
PYTHON
