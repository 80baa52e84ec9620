#!/usr/bin/env bash
# pylandstats cuts core areas at the edge of the scene, also where it is asked not to.
#
# Guess before the run: count_boundary=True makes what its documentation says, "cells that only
# neighbour the landscape boundary should be considered as core": of a hall that the scene cuts at
# two sides, only the two sides within the scene are edges.
# Seen: core_area, number_of_core_areas and core_area_index are the same with True and False. A hall
# of 8 x 8 cells in the corner has 36 cells of core instead of 49, the ground around it 201 instead
# of 260, and a hall that fills a tile of 20 x 20 but for one cell 319 instead of 395. total_edge
# does heed the argument. There is no message.
# Versions: pylandstats 3.1.0, scipy 1.17.1, numpy 2.4.6. Source: pylandstats/landscape.py,
# compute_core_label_arr: False adds a frame of zeros before binary_erosion, which takes what is
# outside of an array for zero anyway; True needs its border_value=1.
# Hurt: who measures built-up areas tile by tile: cores shrink by a ring in each tile, and the more
# the smaller the tiles are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export MPLCONFIGDIR=$folder
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 pandas==3.1.1 \
  rasterio==1.4.4 matplotlib==3.11.2 scikit-learn==1.9.1
venv/bin/pip install --quiet --disable-pip-version-check --no-deps pylandstats==3.1.0
venv/bin/python -W ignore - <<'PYTHON'
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
from scipy import ndimage

# The package imports much for zones and clusters; measuring a scene needs none of it.
package = sys.modules["pylandstats"] = ModuleType("pylandstats")
package.__path__ = [str(Path(path) / "pylandstats") for path in sys.path]
from pylandstats.landscape import Landscape

town = np.ones((20, 20), np.uint8)
town[:8, :8] = 2  # a hall that the scene cuts at two sides
town[12:18, 12:18] = 2  # a hall within it


def cores(scene, kind, count_boundary):
    """Return cells of core for each patch of a kind."""
    landscape = Landscape(scene, res=(1, 1), nodata=255)
    found = landscape.core_area(class_val=kind, count_boundary=count_boundary, hectares=False)
    return found.tolist()


def right(scene, kind):
    """Return cells of core in all patches of a kind if the scene's edge is none."""
    return int(ndimage.binary_erosion(scene == kind, border_value=1).sum())


full = np.full((20, 20), 2, np.uint8)
full[10, 10] = 1
for name, scene, kind in (("halls", town, 2), ("ground", town, 1), ("a full tile", full, 2)):
    seen = [cores(scene, kind, counted) for counted in (False, True)]
    print(f"{name}: {seen[0]} without, {seen[1]} with the boundary; right {right(scene, kind)}")
    assert seen[0] == seen[1] and sum(seen[1]) < right(scene, kind)
assert cores(town, 2, True) == [36, 16] and right(town, 2) == 49 + 16
landscape = Landscape(town, res=(1, 1), nodata=255)
edges = [landscape.total_edge(class_val=2, count_boundary=counted) for counted in (False, True)]
print("edges of the halls without and with the boundary:", *map(float, edges))
assert edges == [40, 56]
PYTHON
