#!/usr/bin/env bash
# pointpats' quadrat test by hexagons finds houses clustered that are spread at random.
#
# Guess before the run: the chi-squared test of houses at random, 300 in a square of a kilometre,
# has a p-value below 0.05 in one town of twenty, with squares and with hexagons as cells.
# Seen: by squares in 1 town of 100, by hexagons of 150 m in all 100, with a p-value below 0.00001
# in each. Each hexagon is expected to hold the same number of houses, but those at the edge lie in
# the town by a half or less: the statistic counts the edge. There is no message.
# Versions: pointpats 2.5.5, libpysal 4.14.1, numpy 2.4.6. Source: pointpats/quadrat_statistics.py,
# HexagonM.point_location_sta counts cells that stick out of the rectangle, and QStatistic gives all
# counts to scipy's chisquare; its documentation of shape "hexagon" names no limit.
# Hurt: who tests whether buildings are clustered: by hexagons each town is, however it is built.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pointpats==2.5.5 libpysal==4.14.1 \
  numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from pointpats.quadrat_statistics import QStatistic

west, south = 500_000, 5_500_000
values = {"rectangle": [], "hexagon": []}
for seed in range(100):
    houses = np.random.default_rng(seed).uniform(0, 1000, (300, 2)) + (west, south)
    for shape, size in (("rectangle", {"nx": 5, "ny": 5}), ("hexagon", {"lh": 150})):
        test = QStatistic(houses, shape=shape, **size)
        values[shape].append(test.chi2_pvalue)
        assert sum(test.mr.point_location_sta().values()) == 300
for shape, found in values.items():
    clustered = sum(value < 0.05 for value in found)
    print(f"{shape:9} towns called clustered: {clustered} of 100, largest p: {max(found):.2g}")
assert sum(value < 0.05 for value in values["rectangle"]) < 12
assert max(values["hexagon"]) < 0.00001
PYTHON
