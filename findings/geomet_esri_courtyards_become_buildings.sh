#!/usr/bin/env bash
# geomet reads the courtyard of an Esri polygon as a second building.
#
# Guess before the run: of the rings of an Esri JSON polygon, those that run counter-clockwise are
# holes, as the format says; two that run clockwise are two parts.
# Seen: each ring becomes a polygon of its own, whichever way it runs: a house of 10 x 10 with a
# yard of 2 x 2 is a MultiPolygon that is not valid, with an area of 104 in place of 96. There is no
# message. dumps keeps the direction of GeoJSON rings, which RFC 7946 wants counter-clockwise: in
# the Esri JSON of two houses both are holes. arcgis2geojson 3.1.3 gives 96.
# Versions: geomet 1.1.0, arcgis2geojson 3.1.3, shapely 2.1.2. Source: geomet/esri.py,
# _to_gj_polygon and _dump_geojson_polygon.
# Hurt: who takes footprints from an ArcGIS feature service: built-up areas grow by twice the
# courtyards, and labels that are drawn from them have roofs on the yards.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geomet==1.1.0 arcgis2geojson==3.1.3 shapely==2.1.2
venv/bin/python - <<'PYTHON'
import json
import shapely
from arcgis2geojson import arcgis2geojson
from geomet import esri

house = [[0, 0], [0, 10], [10, 10], [10, 0], [0, 0]]
yard = [[2, 2], [4, 2], [4, 4], [2, 4], [2, 2]]
barn = [[20, 0], [20, 10], [30, 10], [30, 0], [20, 0]]


def read(reader, *rings):
    found = shapely.from_geojson(json.dumps(reader({"rings": rings})))
    print(reader.__name__, found.geom_type, found.area, found.is_valid)
    return found.geom_type, found.area, found.is_valid


def by_geomet(polygon):
    return esri.loads(json.dumps(polygon | {"spatialReference": {"wkid": 4326}}))


assert not shapely.is_ccw(shapely.LinearRing(house)) and shapely.is_ccw(shapely.LinearRing(yard))
assert read(arcgis2geojson, house, yard) == ("Polygon", 96, True)
assert read(by_geomet, house, yard) == ("MultiPolygon", 104, False)
assert read(by_geomet, house, barn) == read(arcgis2geojson, house, barn) == ("MultiPolygon", 200, True)

pair = {"type": "MultiPolygon", "coordinates": [[house[::-1]], [barn[::-1]]]}
rings = json.loads(json.dumps(esri.dumps(pair)))["rings"]
print("written counter-clockwise:", [bool(shapely.is_ccw(shapely.LinearRing(ring))) for ring in rings])
assert all(shapely.is_ccw(shapely.LinearRing(ring)) for ring in rings)
PYTHON
