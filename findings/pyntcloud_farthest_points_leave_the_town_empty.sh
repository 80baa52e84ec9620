#!/usr/bin/env bash
# pyntcloud's farthest points of a scan are its two ends, and the town between has none.
#
# Guess before the run: points_farthest thins a scan of 200 x 100 m to 20 points that cover it, as
# farthest point sampling does: each new point is that whose nearest sample is farthest.
# Seen: of 200 points in a grid of 10 m, 19 of the 20 are within 30 m of the western or eastern end,
# whichever point is drawn first, mostly side by side; the largest distance of a point of the scan
# to its nearest sample is 67 to 89 m in three draws, in place of 28 to 30 m. No message.
# Versions: pyntcloud 0.3.1, numpy 1.26.4. Source: pyntcloud/samplers/points.py,
# FarthestPointsSampler.compute takes the point of the largest sum of squared distances to all
# samples, not of the largest distance to the nearest ("incremental farthest search"). Pull request
# 253, which added it, means the algorithm of PointNet++.
# Hurt: who thins scans for a network or for matching with it: what is kept are the edges of a tile,
# and the houses in its middle are never seen.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyntcloud==0.3.1 numpy==1.26.4 \
  pandas==2.2.3 scipy==1.15.3
venv/bin/python - <<'PYTHON'
import numpy as np
import pandas as pd
from pyntcloud import PyntCloud
from scipy.spatial.distance import cdist

east, north = np.meshgrid(np.arange(0.0, 200, 10), np.arange(0.0, 100, 10))
scan = pd.DataFrame({"x": east.ravel(), "y": north.ravel(), "z": 3.0})
distances = cdist(scan, scan)
for first in (5, 110, 199):
    chosen = [first]
    while len(chosen) < 20:
        chosen.append(int(distances[chosen].min(axis=0).argmax()))
    rule = distances[chosen].min(axis=0).max()
    np.random.seed(first)
    sample = PyntCloud(scan.copy()).get_sample("points_farthest", n=20)
    gap = cdist(scan, sample[["x", "y", "z"]]).min(axis=1).max()
    ends = int(((sample.x < 30) | (sample.x > 160)).sum())
    print("at the ends:", ends, "of 20; largest gap:", round(gap), "m in place of", round(rule))
    assert ends >= 19 and gap > 65 and rule < 31
PYTHON
