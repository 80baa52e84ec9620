#!/usr/bin/env bash
# whitebox-workflows measures, filters and buffers buildings as if they had no courtyards.
#
# Guess before the run: of a building of 12 x 10 m with a courtyard of 5 x 4 m, polygon_area, whose
# help says that it "will account for any holes", gives 100 m2; a buffer of 1 m has 161 m2 and a
# courtyard of 3 x 2 m; and a tree in the middle of the courtyard is 2 m away.
# Seen: 120 m2, next to 100 by add_geometry_attributes of the same library; the buffer has 167 m2
# and no courtyard; the tree is 0 m away, although spatial_join finds it outside; and a filter for
# more than 110 m2 keeps the building. The perimeter counts the courtyard. There is no message.
# Versions: whitebox-workflows 2.0.6, geopandas 1.2.0, shapely 2.2.0. Source:
# whitebox_workflows/help/polygon_area.html of the package; the tools are compiled.
# Hurt: who sums built-up ground or floor space, or takes distances to buildings: perimeter blocks,
# the largest buildings of a city, count with their yards.
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
from shapely import Point, box

west, south = 500_000, 5_500_000
block = box(west, south, west + 12, south + 10)
block = block.difference(box(west + 3, south + 3, west + 8, south + 7))
tree = Point(west + 5.5, south + 5)
workflows = whitebox_workflows.WbEnvironment()


def layer(name, geometry):
    geopandas.GeoDataFrame({"name": [name]}, geometry=[geometry], crs=32633).to_file(f"{name}.gpkg")
    return workflows.read_vector(f"{name}.gpkg")


def run(tool, **options):
    workflows.write_vector(getattr(workflows.vector, tool)(**options), f"{tool}.gpkg")
    return geopandas.read_file(f"{tool}.gpkg")


building, point = layer("building", block), layer("tree", tree)
seen = {
    "polygon_area": run("polygon_area", input=building)["AREA"][0],
    "add_geometry_attributes": run("add_geometry_attributes", input=building)["AREA_MAP2"][0],
    "shapely area": block.area,
    "polygon_perimeter": run("polygon_perimeter", input=building)["PERIMETER"][0],
    "buffer_vector": run("buffer_vector", input=building, distance=1.0).area[0],
    "shapely buffer": block.buffer(1).area,
    "near": run("near", input=point, near=building)["NEAR_DIST"][0],
    "shapely distance": tree.distance(block),
    "spatial_join": run("spatial_join", target=point, join=building, predicate="within",
                        strategy="first")["JOIN_COUNT"][0],
    "filter": len(run("filter_vector_features_by_area", input=building, threshold=110.0)),
}
seen = {name: round(float(value)) for name, value in seen.items()}
print(seen)
assert seen == {
    "polygon_area": 120, "add_geometry_attributes": 100, "shapely area": 100,
    "polygon_perimeter": 62, "buffer_vector": 167, "shapely buffer": 161, "near": 0,
    "shapely distance": 2, "spatial_join": 0, "filter": 1,
}
PYTHON
