#!/usr/bin/env bash
# One option of two terrain meshers of one author means the opposite: pymartini mirrors the town.
#
# Guess before the run: rescale_positions places a mesh into its bounds with north up, by pymartini
# and pydelatin alike, since function, arguments and the words on flip_y are the same.
# Seen: a block in the north-west of a 65 x 65 height map lies in the north-west by pydelatin, and
# in the south-west by pymartini, mirrored at the middle. flip_y=True turns both, so one code cannot
# serve both libraries. Heights and extent are right, which hides it.
# Versions: pymartini 0.6.0, pydelatin 0.4.0. Source: rescale_positions in pymartini/util.py and
# pydelatin/util.py; Delatin.vertices counts y from the lower edge, and Martini from the upper.
# Hurt: who drapes footprints over meshes for Cesium or deck.gl: hills and houses are on the wrong
# side of the town.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pymartini==0.6.0 pydelatin==0.4.0 numpy==2.3.5
venv/bin/python - <<'PYTHON'
import numpy as np
from pydelatin import Delatin
from pydelatin.util import rescale_positions as place_delatin
from pymartini import Martini
from pymartini import rescale_positions as place_martini

heights = np.zeros((65, 65), np.float32)
heights[8:17, 8:17] = 10
bounds = (0, 0, 64, 64)
delatin = Delatin(heights, max_error=0.1).vertices
corners, _ = Martini(65).create_tile(heights).get_mesh(0.1)
seen = {}
for flip in (False, True):
    meshes = {"pydelatin": place_delatin(delatin, bounds, flip_y=flip),
              "pymartini": place_martini(corners, heights, bounds=bounds, flip_y=flip)}
    for name, mesh in meshes.items():
        block = mesh[mesh[:, 2] > 9]
        seen[name, flip] = block[:, 0].mean().round(0).item(), block[:, 1].mean().round(0).item()
        print(name, "flip_y", flip, "middle of the block:", seen[name, flip],
              "extent:", mesh[:, :2].min(0).tolist(), mesh[:, :2].max(0).tolist())
assert seen["pydelatin", False][1] > 48 and seen["pymartini", False][1] < 16
assert seen["pydelatin", True][1] < 16 and seen["pymartini", True][1] > 48
PYTHON
