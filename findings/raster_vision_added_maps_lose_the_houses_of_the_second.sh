#!/usr/bin/env bash
# Raster Vision's sum of two maps has no data where only the second map was predicted.
#
# Guess before the run: labels of one scene that two processes predicted, each its half, become the
# map of the whole scene when they are added: the method says that it merges by adding counts.
# Seen: of a scene of 100 x 200 pixels with a house of 1600 pixels in each half, the sum has the
# first half alone: the 10000 pixels of the second are -1, no data, with its house. The scores of
# the sum hold it. Smooth labels, which hold scores, have both houses. There is no message.
# Versions: rastervision-core 0.31.1, numpy 1.26.4. Source:
# rastervision/core/data/label/semantic_segmentation_labels.py, __add__ of
# SemanticSegmentationDiscreteLabels: pixel_counts are added, hit_mask is not.
# Hurt: who predicts a large scene in parts, or adds maps of networks that each cover a part: all
# buildings of the later parts are missing from the map.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check rasterio==1.4.4 shapely==2.0.7 \
  pydantic==2.12.5 numpy==1.26.4
venv/bin/pip install --quiet --disable-pip-version-check --no-deps rastervision-core==0.31.1 \
  rastervision-pipeline==0.31.1
venv/bin/python -W ignore - <<'PYTHON'
import importlib
import sys
import sysconfig
import types
from pathlib import Path

import numpy as np

# The packages import what training needs; these modules of them are imported without.
root = Path(sysconfig.get_path("purelib"), "rastervision")
for part in ("", "core", "core/data", "core/data/label", "core/utils", "pipeline"):
    package = types.ModuleType(".".join(["rastervision", *filter(None, part.split("/"))]))
    package.__path__ = [str(root / part)]
    sys.modules[package.__name__] = package
labels = importlib.import_module("rastervision.core.data.label.labels")
sys.modules["rastervision.core.data.label"].Labels = labels.Labels
from rastervision.core.box import Box
from rastervision.core.data.label import semantic_segmentation_labels as kinds

SCENE = Box(0, 0, 100, 200)
HALVES = Box(0, 0, 100, 100), Box(0, 100, 100, 200)
house = np.zeros((100, 100), np.uint8)
house[20:60, 30:70] = 1


def predicted(kind, *halves):
    """Return the labels of the scene with these halves predicted."""
    found = kind.make_empty(SCENE, num_classes=2)
    smooth = kind is kinds.SemanticSegmentationSmoothLabels
    for half in halves:
        found[half] = np.stack([1 - house, house]) if smooth else house
    return found


def count(found):
    """Return the pixels of houses, of the ground and without data."""
    values = found.get_label_arr(SCENE)
    return [int((values == value).sum()) for value in (1, 0, -1)]


both = [3200, 16800, 0]
for kind in (kinds.SemanticSegmentationDiscreteLabels, kinds.SemanticSegmentationSmoothLabels):
    at_once = predicted(kind, *HALVES)
    added = predicted(kind, HALVES[0]) + predicted(kind, HALVES[1])
    assert np.array_equal(added.get_score_arr(SCENE), at_once.get_score_arr(SCENE))
    print(kind.__name__, "houses, ground, no data at once:", count(at_once), "sum:", count(added))
    assert count(at_once) == both
    smooth = kind is kinds.SemanticSegmentationSmoothLabels
    assert count(added) == (both if smooth else [1600, 8400, 10000])
PYTHON
