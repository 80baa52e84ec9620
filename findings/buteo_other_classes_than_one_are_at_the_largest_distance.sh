#!/usr/bin/env bash
# buteo's distance to buildings is the largest everywhere unless buildings have the value 1.
#
# Guess before the run: convolve_distance(array, target=2) is the distance of each pixel to the
# nearest one of class 2, 0 on it.
# Seen: it is the diagonal of the tile in each pixel, also in those of class 2, and so it is for a
# mask of 0 and 255 with target=255. With the same pixels as 1 the distances are right. The array is
# compared with the target first and then, as 0 and 1, with the target again. With target=0 the
# distances are those to the house, not to the ground around it: 0 on it, 6 beside it. There is no
# message. The raster function raster_get_proximity passes its target_value to the same function.
# Versions: buteo 0.9.64, numba 0.61.2, numpy 2.2.6. Source: buteo/array/distance.py,
# convolve_distance: binary_array, then == target.
# Hurt: who measures how far places are from buildings in a map of classes or a mask of 255, or
# weights labels by the distance to their edge: all is equally far.
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
from buteo.array.distance import convolve_distance

classes = np.zeros((30, 40, 1), np.uint8)
classes[10:14, 10:16] = 2
house = classes[..., 0] == 2
seen = {}
for name, array, target in (("class 1", house, 1), ("class 2", classes[..., 0], 2),
                            ("mask of 255", house * np.uint8(255), 255),
                            ("all but the house", house, 0)):
    distances = convolve_distance(array.astype(np.uint8)[..., None], target=target)[..., 0]
    seen[name] = [round(float(value), 1) for value in (distances[house].max(), distances[12, 21])]
    print(f"target {target}, {name}: on the house, 6 pixels east of it", seen[name])
diagonal = round(float(np.hypot(30, 40)), 1)
assert seen == {"class 1": [0, 6], "class 2": [diagonal, diagonal],
                "mask of 255": [diagonal, diagonal], "all but the house": [0, 6]}
PYTHON
