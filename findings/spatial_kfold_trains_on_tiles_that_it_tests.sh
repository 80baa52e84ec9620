#!/usr/bin/env bash
# spatial-kfold's blocks put tiles of a regular grid into up to four folds at once.
#
# Guess before the run: blocks of 200 m about the centres of tiles of 100 m, joined to the tiles as
# the README shows, give each tile one fold.
# Seen: the grid of blocks begins at the first centre, so that others lie on the lines between
# blocks and belong to both sides: 100 tiles become 196 rows, and 56 tiles are in two or more folds.
# With each fold left out in turn, those are trained on and tested. Centres at random places are
# right, and so is a grid of blocks that begins elsewhere. There is no message.
# Versions: spatial-kfold 0.0.4, geopandas 1.2.0, shapely 2.2.0, scikit-learn 1.9.1. Source:
# spatialkfold/blocks.py, spatial_blocks: the grid begins at total_bounds of the data; the README
# joins with geopandas.overlay.
# Hurt: who splits the tiles of an orthophoto by blocks so as not to test next to training data: the
# scores are of tiles that the model has seen.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check spatial-kfold==0.0.4 geopandas==1.2.0 \
  shapely==2.2.0 numpy==2.4.6 scikit-learn==1.9.1
venv/bin/python -W ignore - <<'PYTHON'
import geopandas
import numpy as np
from sklearn.model_selection import LeaveOneGroupOut
from spatialkfold.blocks import spatial_blocks


def rows_and_shared(east, north):
    """Return how many rows the joined tiles have, and how many tiles are in several folds."""
    places = geopandas.points_from_xy(500_000 + east, 5_500_000 + north)
    tiles = geopandas.GeoDataFrame({"tile": range(len(places))}, geometry=places, crs=32633)
    blocks = spatial_blocks(gdf=tiles, width=200, height=200, method="random", nfolds=5,
                            orientation="tb-lr", grid_type="rect", random_state=1)
    joined = geopandas.overlay(tiles, blocks)
    seen = set()
    for training, testing in LeaveOneGroupOut().split(joined, groups=joined["folds"]):
        seen |= set(joined["tile"].iloc[training]) & set(joined["tile"].iloc[testing])
    return len(joined), len(seen)


steps = np.arange(10) * 100.0 + 50
regular = rows_and_shared(np.tile(steps, 10), np.repeat(steps, 10))
random = rows_and_shared(*np.random.default_rng(0).uniform(0, 1000, (2, 100)))
print("rows of 100 tiles, and tiles in training and test, on a grid:", regular, "at random:", random)
assert random == (100, 0)
assert regular == (196, 56)
PYTHON
