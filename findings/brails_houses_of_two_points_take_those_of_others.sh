#!/usr/bin/env bash
# BRAILS++ gives each building of two points the data of another building.
#
# Guess before the run: match_points_to_polygons "finds Shapely points that fall within given
# polygons. If multiple points exist within a polygon, it selects the point closest to the
# polygon's centroid."
# Seen: of forty houses in a row, each with a point, the four that have a second point (two
# addresses) all get the point of the first or the second house of the file, up to 780 m away. A
# house in the form of an L, which has no point, gets that of the shed in its corner, and a block
# with a courtyard that of the tree in its yard: the box of a house is asked, not the house. Where
# each house has one point all are right. There is no message.
# Versions: brails 4.3.1, shapely 2.1.2, matplotlib 3.10.3. Source: match_points_to_polygons in
# brails/utils/geo_tools.py: the index of the nearest among the points that were found is taken for
# one among all points, and STRtree.query is called without a predicate. GetPointsInPolygons in
# brails/utils/spatial_join_methods/get_points_in_polygons.py has the same lines.
# Hurt: who joins footprints with the National Structure Inventory, addresses or permits to estimate
# losses: the larger houses, which have several points, take the year, value and structure of the
# houses that stand first in the file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check shapely==2.1.2 numpy==2.2.6 \
  matplotlib==3.10.3
venv/bin/pip install --quiet --disable-pip-version-check --no-deps brails==4.3.1
venv/bin/python -W ignore - <<'PYTHON'
import sys
import sysconfig
import types
from pathlib import Path

from shapely import Point, Polygon, box

# The package imports what its networks need; the module of geometry is imported without it.
for name in ("brails", "brails.utils"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(Path(sysconfig.get_path("purelib"), *name.split(".")))]
from brails.utils.geo_tools import GeoTools

TWO = (10, 17, 24, 39)
houses = [box(20 * n, 0, 20 * n + 15, 10) for n in range(40)]
points = [Point(20 * n + 7, 5) for n in range(40)]
points += [Point(20 * n + 12, 5) for n in TWO]
angle = Polygon([(0, 100), (20, 100), (20, 105), (5, 105), (5, 120), (0, 120)])
block = box(50, 100, 90, 140).difference(box(60, 110, 80, 130))
shed, tree = Point(15, 115), Point(70, 120)


def match(buildings, known):
    """Return the point of each building by BRAILS++ and by the words of its documentation."""
    found = GeoTools.match_points_to_polygons(known, buildings)[1]
    within = [[point for point in known if building.contains(point)] for building in buildings]
    right = [min(inside, key=building.centroid.distance, default=None)
             for building, inside in zip(buildings, within)]
    return [found.get(str(building)) for building in buildings], right


found, right = match(houses, points)
wrong = [n for n in range(40) if found[n] != right[n]]
metres = [round(found[n].distance(right[n])) for n in wrong]
print("houses with the point of another:", wrong, "metres to that point:", metres)
assert wrong == list(TWO) and all(found[n] in points[:2] for n in TWO)
assert metres == [200, 340, 480, 780]
assert match(houses, points[:40])[0] == points[:40]

found, right = match([angle, block], [shed, tree])
print("points of the L and of the block:", found, "right:", right)
assert found == [shed, tree] and right == [None, None]
PYTHON
