#!/usr/bin/env bash
# mapclassify puts a whole town into one class if a single cell has no value.
#
# Guess before the run: cells that are NaN, such as those without imagery, are left out of the limits
# of classes and belong to no class, as in a map of geopandas; or a NaN raises.
# Seen: of 200 densities and one NaN, FisherJenks has all 201 in the first class, where the 200 alone
# have 74, 65, 28, 25 and 8; so have HeadTailBreaks and StdMean. Of five Quantiles the first holds 81
# and the last none. EqualInterval has the right limits. In each the NaN is of the lowest class.
# Versions: mapclassify 2.10.0, numpy 2.4.6. Source: mapclassify/classifiers.py: limits are taken of
# all values, and MapClassifier.find_bin and bin1d put what is below no limit into class 0. Its
# documentation asks for an array of numbers and names no NaN.
# Hurt: who draws building density or heights by class: one cell beside the imagery makes the map a
# single colour, or shifts each class, and empty ground is shown as the least built up.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mapclassify==2.10.0 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import mapclassify
import numpy as np

density = np.random.default_rng(0).exponential(20, 200)
seen = {}
for name in ("FisherJenks", "HeadTailBreaks", "StdMean", "Quantiles", "EqualInterval"):
    classes = [getattr(mapclassify, name)(values) for values in (density, np.r_[density, np.nan])]
    seen[name] = [[int(count) for count in each.counts] for each in classes]
    print(f"{name:14} cells by class without and with one NaN:", *seen[name])
    assert classes[1].yb[-1] == 0
for name in ("FisherJenks", "HeadTailBreaks", "StdMean"):
    assert seen[name][1][0] == 201 and max(seen[name][0]) < 201
assert seen["FisherJenks"][0] == [74, 65, 28, 25, 8]
assert seen["Quantiles"] == [[40] * 5, [81, 40, 40, 40, 0]]
PYTHON
