#!/usr/bin/env bash
# pyntcloud's voxels give roofs below sea level the height 0, and its closeness is a distance.
#
# Guess before the run: the feature vector z_max is the height of the highest point of a voxel, and
# TDF is 1 at the surface and falls to 0 at two voxels from it, as its docstring says.
# Seen: a roof at -2 m on a polder at -5 m has z_max 0 in every voxel, as empty ones have; 10 m
# higher it is 8 m, as it should be. z_mean is right in both. TDF is the distance in metres to the
# nearest point: 1.2 in a voxel of the roof, and up to 12 in the air. No message.
# Versions: pyntcloud 0.3.1, numba 0.61.2, numpy 1.26.4. Source: pyntcloud/structures/voxelgrid.py,
# get_feature_vector: groupby_max of utils/numba.py starts at a vector of zeros; the branch TDF
# returns what the k-d tree answers, its truncation being commented out.
# Hurt: who makes surface models or inputs for a network from scans in the Netherlands, in ports, or
# in heights relative to a roof: everything below 0 is a plain at 0. TDF is upside down.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME=$folder
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyntcloud==0.3.1 numpy==1.26.4 \
  pandas==2.2.3 scipy==1.15.3 numba==0.61.2
venv/bin/python -W ignore::RuntimeWarning - <<'PYTHON'
import numpy as np
import pandas as pd
from pyntcloud import PyntCloud

east, north = np.meshgrid(np.arange(0.25, 20), np.arange(0.25, 20))
roof = east < 10


def grid(sea):
    """Voxels of 2 m over a roof 3 m above its yard, and one bird 12 m above the yard."""
    heights = np.where(roof, 3.0, 0.0) + sea
    points = np.column_stack([east.ravel(), north.ravel(), heights.ravel()])
    points = np.vstack([points, [19.25, 19.25, 12 + sea]])
    scan = PyntCloud(pd.DataFrame(points, columns=["x", "y", "z"]))
    return scan.structures[
        scan.add_structure("voxelgrid", size_x=2, size_y=2, size_z=2, regular_bounding_box=False)
    ]


for sea, seen in ((5, 8.0), (-5, 0.0)):
    voxels = grid(sea)
    full = voxels.get_feature_vector("binary").astype(bool)
    column = full[0, 0].argmax()
    highest, mean = (voxels.get_feature_vector(mode)[0, 0, column] for mode in ("z_max", "z_mean"))
    print("roof at", 3 + sea, "m: z_max", highest, "z_mean", mean)
    assert highest == seen and mean == 3 + sea
closeness = voxels.get_feature_vector("TDF").reshape(full.shape)
print("TDF at the roof", closeness[0, 0, column].round(1), "largest", closeness.max().round(1))
assert closeness[full].mean() < 1 and closeness.max() > 8
PYTHON
