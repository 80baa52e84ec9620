#!/usr/bin/env bash
# whitebox-workflows moves the centroid of a house to the wall that has the most vertices.
#
# Guess before the run: centroid_vector gives the centre of mass of each polygon ("mean coordinate
# of mass", says its summary), 5 m from each wall of a house of 10 x 10 m, however it is drawn.
# Seen: if one wall has a vertex each metre, as outlines from rasters have, it is 1.54 m from that
# wall. Of a house of 10 x 10 m and its annex of 2 x 2 m, 10 m to the east, it is in the
# garden between them, 13 m from the western wall in place of 5.62: it is the mean of all vertices.
# add_geometry_attributes of the same library has the right ones. There is no message.
# Versions: whitebox-workflows 2.0.6, geopandas 1.2.0, shapely 2.2.0. Source: the summary that
# describe_tool("centroid_vector") returns; the tool is compiled.
# Hurt: who makes points of buildings, to count them by cell or to measure how far a map is off:
# two outlines of the same house, by hand and from a mask, have centroids metres apart.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check whitebox-workflows==2.0.6 \
  geopandas==1.2.0 shapely==2.2.0 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import geopandas
import whitebox_workflows
from shapely import MultiPolygon, Polygon, affinity, box

west, south = 500_000, 5_500_000
wall = [(x, 0) for x in range(11)]
houses = {
    "house": box(0, 0, 10, 10),
    "vertices in one wall": Polygon([*wall, (10, 10), (0, 10)]),
    "house and annex": MultiPolygon([box(0, 0, 10, 10), box(20, 0, 22, 2)]),
}
frame = geopandas.GeoDataFrame(
    {"name": list(houses)},
    geometry=[affinity.translate(house, west, south) for house in houses.values()], crs=32633)
frame.to_file("houses.gpkg")
tools = whitebox_workflows.WbEnvironment()
layer = tools.read_vector("houses.gpkg")
tools.write_vector(tools.vector.centroid_vector(input=layer), "points.gpkg")
tools.write_vector(tools.vector.add_geometry_attributes(input=layer), "attributes.gpkg")
points = geopandas.read_file("points.gpkg").geometry
columns = geopandas.read_file("attributes.gpkg")
seen = {}
for place, name in enumerate(houses):
    seen[name] = [
        (round(float(x) - west, 2), round(float(y) - south, 2))
        for x, y in ((points[place].x, points[place].y),
                     (columns["CENTROID_X"][place], columns["CENTROID_Y"][place]))
    ]
    print(name, "centroid_vector, add_geometry_attributes:", seen[name])
assert seen == {
    "house": [(5, 5), (5, 5)], "vertices in one wall": [(5, 1.54), (5, 5)],
    "house and annex": [(13, 3), (5.62, 4.85)],
}
PYTHON
