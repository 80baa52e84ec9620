#!/usr/bin/env bash
# momepy says that houses at 45 degrees to each other, and to their street, are aligned.
#
# Guess before the run: alignment is the mean difference of the directions of a house and its
# neighbours, and street_alignment that of a house and its street: 0 for parallel or square, 45 at
# most, and 45 for a house turned by 22.5 degrees beside one turned by -22.5 degrees.
# Seen: 0 for these two, and 0 for the house on the street turned the other way; turned by 40 and
# by 50 degrees, 10 apart, they are aligned perfectly, too. orientation is how far a direction is
# from the nearest of north, east, south and west, without its sign, and alignment takes differences
# of those.
# Versions: momepy 0.11.0, libpysal 4.14.1, geopandas 1.2.0, shapely 2.2.0. Source:
# momepy/functional/_distribution.py: orientation ends in abs((angle + 45) % 90 - 45); alignment
# and street_alignment subtract its values.
# Hurt: who finds planned quarters or tells grown from drawn ones by alignment: the greatest
# disorder that there is, 45 degrees, can count as perfect order.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check momepy==0.11.0 libpysal==4.14.1 \
  geopandas==1.2.0 shapely==2.2.0 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import geopandas
import momepy
import pandas
from libpysal.graph import Graph
from shapely import LineString, affinity, box

seen = {}
for first, second in ((22.5, 22.5), (22.5, -22.5), (40, 50), (0, 45)):
    houses = geopandas.GeoDataFrame(
        geometry=[affinity.rotate(box(x, 0, x + 10, 10), angle)
                  for x, angle in ((0, first), (20, second))], crs=32633)
    line = affinity.rotate(LineString([(0, 30), (30, 30)]), second)
    street = geopandas.GeoDataFrame(geometry=[line], crs=32633)
    directions = momepy.orientation(houses)
    neighbours = Graph.build_knn(houses.centroid, k=1)
    nearest = pandas.Series([0, 0])
    difference = abs((first - second + 45) % 90 - 45)
    found = (
        momepy.alignment(directions, neighbours)[0],
        momepy.street_alignment(directions, momepy.orientation(street), nearest)[0],
    )
    seen[first, second] = difference, *(abs(round(float(value), 6)) for value in found)
    print("houses turned by", first, "and", second, "difference, alignment, street_alignment:",
          seen[first, second])
assert seen == {
    (22.5, 22.5): (0, 0, 0), (22.5, -22.5): (45, 0, 0), (40, 50): (10, 0, 0), (0, 45): (45, 45, 45),
}
PYTHON
