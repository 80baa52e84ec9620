#!/usr/bin/env bash
# sertit gives all houses the attributes of the first one when it fills their holes.
#
# Guess before the run: geometry.fill_polygon_holes fills holes "for all polygons of a GeoDataFrame"
# that are smaller than the threshold: each row keeps its attributes, and the frame its CRS.
# Seen: of four houses, two of which share a wall, three rows come back, all with the name, the
# number of floors and the index of the first house; the two are one. So it is with a threshold that
# no hole is below. A frame in degrees comes back in UTM, and a pavilion in a courtyard that stays
# open has the name of the block. The areas of the holes are right. There is no message.
# Versions: sertit 1.54.6, geopandas 1.2.0, shapely 2.1.2. Source: sertit/geometry.py,
# fill_polygon_holes, which dissolves all rows and explodes them again, within utm_crs of vectors.py,
# whose change back the new frame does not see.
# Hurt: who cleans predicted roofs of specks with it before heights, scores or classes are looked at:
# each roof has the score of the first, terraces are one house, and degrees are metres.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.2.0 shapely==2.1.2 \
  pyproj==3.7.2 pandas==2.3.3 numpy==2.3.5 tqdm==4.67.1 cloudpathlib==0.23.0 lxml==6.0.2 \
  dill==0.4.0 pyyaml==6.0.3 xarray==2025.12.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps sertit==1.54.6
venv/bin/python -W ignore - 2> problems.txt <<'PYTHON' || { cat problems.txt; exit 1; }
import geopandas
from sertit.geometry import fill_polygon_holes
from shapely import Polygon, box


def ring(outer, inner):
    return Polygon(outer.exterior, [inner.exterior])


def layer(names, shapes):
    frame = geopandas.GeoDataFrame(
        {"name": names, "floors": range(1, len(names) + 1)}, geometry=shapes, crs=32633)
    return frame.set_geometry(frame.translate(500_000, 5_500_000))


def rows(frame):
    return [
        (name, floors, round(area), len(shape.interiors))
        for name, floors, area, shape in zip(
            frame["name"], frame["floors"], frame.to_crs(32633).area, frame.geometry)]


town = layer(["a", "b", "c", "d"], [
    box(0, 0, 10, 10), box(10, 0, 20, 10), ring(box(30, 0, 50, 20), box(38, 8, 42, 12)),
    box(60, 0, 70, 10)])
seen = {threshold: rows(fill_polygon_holes(town.copy(), threshold)) for threshold in (None, 100, 5)}
print("before:", rows(town))
for threshold, found in seen.items():
    print(f"threshold {threshold}:", found)
assert seen[None] == seen[100] == [("a", 1, 200, 0), ("a", 1, 100, 0), ("a", 1, 400, 0)]
assert seen[5] == [("a", 1, 200, 0), ("a", 1, 100, 0), ("a", 1, 384, 1)]
yard = layer(["block", "pavilion"], [
    ring(box(0, 0, 40, 40), box(5, 5, 35, 35)), box(15, 15, 25, 25)])
found = fill_polygon_holes(yard, 50)
print("block and pavilion:", rows(found), "index:", found.index.tolist())
assert rows(found) == [("block", 1, 700, 1), ("block", 1, 100, 0)] and found.index.tolist() == [0, 0]
degrees = fill_polygon_holes(town.to_crs(4326))
print("CRS of a frame in degrees:", degrees.crs.to_epsg(), degrees.total_bounds.round().tolist())
assert degrees.crs.to_epsg() == 32633 and degrees.total_bounds[0] > 499_000
PYTHON
