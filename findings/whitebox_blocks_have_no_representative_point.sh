#!/usr/bin/env bash
# whitebox-workflows gives no representative point to blocks around a courtyard.
#
# Guess before the run: representative_point_vector makes an "interior point guaranteed to lie
# within or on each geometry", as its summary says: of a block with a courtyard it lies in a wing.
# Seen: houses shaped as an L and a U, and a block whose courtyard is at its edge, have one. A block
# of 40 x 40 m around a courtyard of 20 x 20 m, and one that is a ring of 2 m, have none: null in
# place of the geometry, in GeoPackage and GeoJSON alike. There is no message.
# Versions: whitebox-workflows 2.0.6, geopandas 1.2.0, shapely 2.2.0. Source: the summary that
# describe_tool("representative_point_vector") returns; the tool is compiled.
# Hurt: who makes points of buildings for labels, geocoding or to join parcels, districts or heights
# to them: the centres of old towns, which are perimeter blocks, are empty.
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
from shapely import affinity, box

square = box(0, 0, 40, 40)
shapes = {
    "L": square - box(10, 10, 40, 40),
    "U": square - box(10, 10, 30, 40),
    "courtyard at the edge": square - box(5, 5, 15, 15),
    "courtyard in the middle": square - box(10, 10, 30, 30),
    "ring": square - box(2, 2, 38, 38),
}
blocks = geopandas.GeoDataFrame(
    {"name": list(shapes)}, crs=32633,
    geometry=[affinity.translate(shape, 500_000, 5_500_000) for shape in shapes.values()])
blocks.to_file("blocks.gpkg")
assert blocks.is_valid.all()
tools = whitebox_workflows.WbEnvironment()
print(tools.describe_tool("representative_point_vector")["summary"])
found = tools.vector.representative_point_vector(input=tools.read_vector("blocks.gpkg"))
for file in ("points.gpkg", "points.geojson"):
    tools.write_vector(found, file)
    points = geopandas.read_file(file)
    without = points["name"][points.geometry.isna() | points.is_empty].tolist()
    print(file, "no point:", without)
    assert len(points) == len(blocks)
    assert without == ["courtyard in the middle", "ring"]
    rest = ~points["name"].isin(without)
    assert blocks[rest].covers(points.to_crs(32633).geometry[rest]).all()
PYTHON
