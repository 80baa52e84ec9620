#!/usr/bin/env bash
# momepy gives houses the corner distances of other houses if their index is not sorted.
#
# Guess before the run: centroid_corner_distance gives each building the mean distance of its own
# corners from its centroid, whatever the order of the table or the kind of its index, as corners
# and squareness do.
# Seen: three squares of 10, 20 and 40 m have 7.07, 14.14 and 28.28 m. Sorted by area from large to
# small, the largest has 7.07 and the smallest 28.28 m, four times too little and too much, and the
# order of the rows is kept, so that nothing looks wrong; with names as index they change places
# too. corners and form_factor of the same table are right. There is no message.
# Versions: momepy 0.11.0 (the latest for Python 3.11; the lines are the same in 1.0.0), geopandas
# 1.2.0, shapely 2.2.0, pandas 2.3.3. Source:
# momepy/functional/_shape.py, centroid_corner_distance: groupby(level=0) sorts by the index, and
# the index of the table is put on the sorted rows; only a MultiIndex is replaced by numbers first.
# Hurt: who measures buildings with a cadastral id as index, or after sort_values, sample or concat.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check momepy==0.11.0 libpysal==4.14.1 \
  geopandas==1.2.0 shapely==2.2.0 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import geopandas as gpd
import momepy
import numpy as np
import shapely

SIDES = [10, 20, 40]
town = gpd.GeoDataFrame(
    {"side": SIDES},
    geometry=[shapely.box(500_000 + 100 * i, 5_800_000, 500_000 + 100 * i + side, 5_800_000 + side)
              for i, side in enumerate(SIDES)],
    crs=25832,
)
for name, table, factors in (
    ("in the order of the index", town, [1, 1, 1]),
    ("sorted by side", town.sort_values("side", ascending=False), [0.25, 1, 4]),
    ("named north, east, south", town.set_index(np.array(["north", "east", "south"])), [2, 0.5, 1]),
    ("sorted, then numbered anew",
     town.sort_values("side", ascending=False).reset_index(drop=True), [1, 1, 1]),
):
    measured = momepy.centroid_corner_distance(table)
    assert measured.index.equals(table.index)
    right = table["side"] / np.sqrt(2)
    print(name, dict(zip(table["side"], measured["mean"].round(2))))
    assert np.allclose(measured["mean"] / right, factors)
    assert np.allclose(measured["std"], 0, atol=1e-6)
    assert momepy.corners(table).tolist() == [4, 4, 4]
PYTHON
