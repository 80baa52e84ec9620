#!/usr/bin/env bash
# solaris' relaxed F1 score is 0 if a map lies three pixels off to one side, and 1 to the other.
#
# Guess before the run: relaxed_f1 with radius=3 accepts a pixel that is within 3 pixels of one of
# the other mask, as its documentation and the papers that it names say, on each side alike: a
# street that is mapped 3 pixels too far north, south, east or west has an F1 of 1.
# Seen: 3 pixels to the south precision is 1 and recall 0, to the north precision is 0 and recall 1,
# and F1 is 0 for both; to the east and west they change places, too. Moved by 2 pixels all are 1.
# Windows reach 3 pixels up and left, and 2 down and right. Of roofs of 20 x 20 pixels moved by 3 to
# the south-east and to the north-west, precision is 1 and 0.9, recall 0.9 and 1. No message.
# Versions: solaris 0.4.0, numpy 1.26.4. Source: solaris/eval/pixel.py, _get_neighborhood_limits:
# min(h, row + rho) ends a slice, which leaves that row out; the same for columns.
# Hurt: who compares models by it where imagery and labels are shifted, which is what it is for: the
# figure says which way they are shifted, and half of the models that are as good get 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==1.26.4
venv/bin/pip install --quiet --disable-pip-version-check --no-deps solaris==0.4.0
venv/bin/python - <<'PYTHON'
import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

# The package imports TensorFlow and more; this module needs them for plots only.
for name in ("solaris", "solaris.eval"):
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [str(Path(path, *name.split("."))) for path in sys.path]
for name in ("cv2", "matplotlib", "matplotlib.pyplot"):
    sys.modules[name] = ModuleType(name)
relaxed_f1 = importlib.import_module("solaris.eval.pixel").relaxed_f1
assert "within a range of" in relaxed_f1.__doc__

street = np.zeros((64, 64))
street[30, :] = 1
house = np.zeros((64, 64))
house[20:40, 20:40] = 1
seen = {}
for name, mask, rows, columns in (
    ("street, 2 to the south", street, 2, 0),
    ("street, 3 to the south", street, 3, 0),
    ("street, 3 to the north", street, -3, 0),
    ("street, 3 to the east", street.T, 0, 3),
    ("street, 3 to the west", street.T, 0, -3),
    ("house, 3 to the south-east", house, 3, 3),
    ("house, 3 to the north-west", house, -3, -3),
):
    moved = np.roll(mask, (rows, columns), (0, 1))
    seen[name] = [round(float(value), 2) for value in relaxed_f1(mask, moved, radius=3)]
    print(f"{name}: F1, precision, recall {seen[name]}")
assert list(seen.values()) == [
    [1, 1, 1], [0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1], [0.95, 1, 0.9], [0.95, 0.9, 1],
]
PYTHON
