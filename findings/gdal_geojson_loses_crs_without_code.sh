#!/usr/bin/env bash
# GDAL writes GeoJSON in a projected system that has no EPSG code, and says nothing of the system.
#
# Guess before the run: a layer in a city's own projection is transformed to longitude and latitude,
# or written with its definition, as EPSG:32633 gets a member "crs"; or refused.
# Seen: coordinates stay in feet, there is no "crs", and the file is read as EPSG:4326: a point in
# Texas comes back at longitude 3,249,209. GeoPackage, FlatGeobuf and Shapefile of the same table are
# right to the centimetre.
# Versions: pyogrio 0.12.1 with the GDAL 3.11.4 of its wheel, geopandas 1.1.1. Source: GDAL's GeoJSON
# driver writes "crs" for systems with an authority only.
# Hurt: who delivers footprints from a local grid, as surveys and state planes in feet often are: a
# map shows nothing, and a join by place finds nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyogrio==0.12.1 geopandas==1.1.1
venv/bin/python - <<'PYTHON'
import json
import warnings
import geopandas
import pyogrio
from shapely import Point

print("GDAL", pyogrio.__gdal_version__)
FEET = "+proj=tmerc +lat_0=30 +lon_0=-95 +k=1 +x_0=1000000 +y_0=2000000 +datum=NAD83 +units=us-ft"
place = geopandas.GeoSeries([Point(-95.1, 30.1)], crs=4326)
for crs, member in ((32615, True), (FEET, False)):
    table = geopandas.GeoDataFrame(geometry=place.to_crs(crs))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        table.to_file("town.geojson")
    written = json.load(open("town.geojson"))
    back = geopandas.read_file("town.geojson")
    print(crs, "crs" in written, back.crs.to_string(), back.geometry[0], [str(w.message) for w in seen])
    assert ("crs" in written) == member
assert back.crs.to_epsg() == 4326
assert back.geometry[0].x > 3_000_000
assert not seen
for suffix in ("gpkg", "fgb", "shp"):
    table.to_file(f"town.{suffix}")
    degrees = geopandas.read_file(f"town.{suffix}").to_crs(4326).geometry[0]
    print(suffix, degrees)
    assert degrees.distance(Point(-95.1, 30.1)) < 1e-7
PYTHON
