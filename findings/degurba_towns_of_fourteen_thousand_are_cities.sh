#!/usr/bin/env bash
# degurba makes a city of a town of 14,400 inhabitants, against the limit of 50,000.
#
# Guess before the run: classify_grid_cells_l1 follows the Degree of Urbanisation: groups of cells of
# 1,500 inhabitants with fewer than 50,000 in all are no urban centre, but an urban cluster; gaps in
# a centre below 15 cells are filled.
# Seen: of a town of 3 x 3 km with 1,600 per cell, 14,400 in all, five cells are urban centre and its
# four corners are urban cluster; of one of 5 x 5 km with 40,000 inhabitants 21 cells of 25. One of
# 2 x 2 km is a cluster, as it should be. In a city of 10 x 10 km a gap of 3 x 3 cells is filled but
# for five cells. There is no message.
# Versions: degurba 0.2 (the latest), numpy 1.26.4, scipy 1.15.3, rasterio 1.4.4. Source:
# degurba/main.py, _get_urban_centres: step four smooths the labels of step two, those of the groups
# too that step three removed, and sets each of their cells with five neighbours again; from its
# second turn on it looks at the cells that it has just set alone.
# The package imports osgeo without naming it as a requirement; an empty module stands for it here,
# as nothing of it is called.
# Hurt: who counts the people of cities from a population grid, as made of buildings: each town with
# a dense core is a city.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==1.26.4 scipy==1.15.3 \
  rasterio==1.4.4 2> pip.log
venv/bin/pip install --quiet --disable-pip-version-check --no-deps degurba==0.2 2>> pip.log
mkdir osgeo
echo "gdal = ogr = None" > osgeo/__init__.py
cat > towns.py <<'PYTHON'
import numpy as np
from affine import Affine
from degurba import DEGURBA
from rasterio.crs import CRS


def classify(side, inhabitants, gap=0):
    """Return the population, and the cells of urban centre and of urban cluster, of a town."""
    people = np.zeros((30, 30))
    people[8 : 8 + side, 8 : 8 + side] = inhabitants
    people[10 : 10 + gap, 10 : 10 + gap] = 0
    grid = DEGURBA(people.copy(), affine=Affine(1000, 0, 4_000_000, 0, -1000, 3_000_000),
                   crs=CRS.from_epsg(3035), nodata=-1).classify_grid_cells_l1()
    kinds = np.ma.getdata(grid.array)
    return int(people.sum()), int((kinds == 1).sum()), int((kinds == 2).sum())


for side, inhabitants, gap, expected in (
    (2, 1600, 0, (6400, 0, 4)),
    (3, 1600, 0, (14_400, 5, 4)),
    (5, 1600, 0, (40_000, 21, 4)),
    (5, 2100, 0, (52_500, 25, 0)),
    (10, 1600, 3, (145_600, 95, 0)),
):
    seen = classify(side, inhabitants, gap)
    print(f"{side} x {side} km, gap {gap}: {seen[0]} inhabitants,",
          f"{seen[1]} cells of urban centre, {seen[2]} of urban cluster")
    assert seen == expected
PYTHON
PYTHONPATH=. venv/bin/python -W ignore towns.py
