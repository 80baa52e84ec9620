#!/usr/bin/env bash
# torchange's simulated changes of land cover turn houses of up to 64 pixels into background.
#
# Guess before the run: random_transition(map, 9, p=0.1) gives a tenth of the objects of a map of
# land cover another class; with p=0 the map is returned as it was.
# Seen: with p=0 a house of 10 x 10 pixels stays, and one of 8 x 8 and a shed of 5 x 10 are class 0,
# "background". Objects of up to 64 pixels, which remove_object leaves as they are, are left out of
# the new map, which begins as zeros. At 0.5 m a pixel that is each house of up to 16 square metres,
# at 1 m of up to 64.
# Versions: torchange 0.0.4, scikit-image 0.25.2, numpy 2.2.6. Source: torchange/models/changen2/
# change_event_simulation.py, random_transition.
# Hurt: who trains change detection of buildings on pairs that were simulated: every small house is
# gone in the second map, as a change that no one asked for and that the image does not show.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.2.6 scikit-image==0.25.2
venv/bin/pip install --quiet --disable-pip-version-check --no-deps torchange==0.0.4
venv/bin/python -W ignore - <<'PYTHON'
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np

# The package imports its networks; this module of it needs none of them.
name = "torchange/models/changen2/change_event_simulation.py"
(file,) = [Path(path) / name for path in sys.path if (Path(path) / name).is_file()]
spec = spec_from_file_location("simulation", file)
simulation = module_from_spec(spec)
spec.loader.exec_module(simulation)

BUILDING, GRASS = simulation.LC.Building, simulation.LC.Rangeland
cover = np.full((64, 64), GRASS)
parts = {"house of 10 x 10": np.s_[4:14, 4:14], "house of 8 x 8": np.s_[30:38, 30:38],
         "shed of 5 x 10": np.s_[50:55, 50:60]}
for part in parts.values():
    cover[part] = BUILDING
changed = simulation.random_transition(cover, 9, p=0)
seen = {name: np.unique(changed[part]).tolist() for name, part in parts.items()}
print("classes of", seen, f"where {BUILDING} is building")
assert list(seen.values()) == [[BUILDING], [0], [0]]
assert (changed == GRASS).sum() == (cover == GRASS).sum()
removed = simulation.remove_object((cover == BUILDING).astype(np.uint8), 1)
print("left of 214 pixels if one building is removed:", removed.sum())
assert removed.sum() == 114
PYTHON
