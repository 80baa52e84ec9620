#!/usr/bin/env bash
# pyproj's geodesic area of a house adds its courtyard where both rings run in one direction.
#
# Guess before the run: Geod.geometry_area_perimeter subtracts the holes of a polygon, as its
# documentation says and as shapely's area does, whichever way the rings run.
# Seen: areas of rings are signed by their direction and added up. With the hole in the direction of
# the exterior, 111 x 111 m with a yard of 67 x 67 m are 16,740 square metres in place of 7,878.
# shapely.area and is_valid do not care about directions. Rings drawn by hand, and many GeoJSON
# files, have them at random; shapely.orient_polygons first gives the right area.
# Versions: pyproj 3.7.2, shapely 2.1.2. Source: pyproj/geod.py, geometry_area_perimeter.
# Hurt: who measures roof areas in degrees: block perimeters with yards are counted up to double.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyproj==3.7.2 shapely==2.1.2
venv/bin/python -W error - <<'PYTHON'
import shapely
from pyproj import Geod

geod = Geod(ellps="WGS84")
block = shapely.box(0, 0, 0.001, 0.001).exterior.coords[:]
yard = shapely.box(0.0002, 0.0002, 0.0008, 0.0008).exterior.coords[:]
if not shapely.LinearRing(block).is_ccw:
    block = block[::-1]


def area(house):
    assert house.is_valid
    return geod.geometry_area_perimeter(house)[0]


whole, hole = area(shapely.Polygon(block)), abs(area(shapely.Polygon(yard)))
same = shapely.Polygon(block, [yard if shapely.LinearRing(yard).is_ccw else yard[::-1]])
other = shapely.Polygon(block, [same.interiors[0].coords[::-1]])
print("shapely:", same.area == other.area, "pyproj:", round(area(same)), round(area(other)))
assert same.area == other.area
assert abs(area(other) - (whole - hole)) < 0.01
assert abs(area(same) - (whole + hole)) < 0.01
oriented = shapely.orient_polygons(same)
assert abs(area(oriented) - (whole - hole)) < 0.01
PYTHON
