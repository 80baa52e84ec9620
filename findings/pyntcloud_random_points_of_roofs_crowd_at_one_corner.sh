#!/usr/bin/env bash
# pyntcloud's random points of a roof crowd at one corner of each of its triangles.
#
# Guess before the run: mesh_random draws triangles by their area and points evenly in them, so that
# a flat roof of 20 x 10 m has a quarter of its points in each quarter, whatever its triangles are.
# Seen: of 100,000 points on a roof of two triangles that begin at its south-west corner, 36 % lie
# in the western fifth and 11 % in the eastern: the mean point is (7.5, 3.7) in place of (10, 5).
# Triangles that begin at the north-east corner turn this round. The square metre at the corner has
# 13 times the points of a mean one. No message.
# Versions: pyntcloud 0.3.1, numpy 1.26.4. Source: pyntcloud/samplers/mesh.py, RandomMeshSampler: u
# is even in 0 to 1, and v even in 0 to 1 - u, so that half of each point is the first corner;
# "Sample points adjusting probabilities according to triangle area", says its docstring.
# Hurt: who makes points of block models to train on, to compare a scan with, or to take mean
# heights of: the density, centres and distances depend on the order of the corners in the file.
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

corners = pd.DataFrame({"x": [0.0, 20, 20, 0], "y": [0.0, 0, 10, 10], "z": 6.0})


def sampled(triangles):
    """Mean point, percentage in each strip of 4 m, and how dense the south-western metre is."""
    np.random.seed(0)
    roof = PyntCloud(corners, mesh=pd.DataFrame(triangles, columns=["v1", "v2", "v3"]))
    points = roof.get_sample("mesh_random", n=100_000)
    strips = np.histogram(points.x, bins=5, range=(0, 20))[0] / 1000
    corner = ((points.x < 1) & (points.y < 1)).mean() * 200
    return points.x.mean().round(1), points.y.mean().round(1), strips.round(), corner


x, y, strips, corner = sampled([(0, 1, 2), (0, 2, 3)])
print("from the south-west:", x, y, strips, "corner", round(corner, 1), "times as dense")
assert (round(float(x), 1), round(float(y), 1)) == (7.5, 3.7) and corner > 10
assert abs(strips[0] - 36) <= 1 and abs(strips[4] - 11) <= 1
x, y, strips, corner = sampled([(2, 0, 1), (2, 3, 0)])
print("from the north-east:", x, y, strips, "corner", round(corner, 1), "times as dense")
assert abs(strips[4] - 36) <= 1 and round(float(x), 1) == 12.5
PYTHON
