#!/usr/bin/env bash
# odc-geo writes five houses to GeoJSON as they are, and twenty with half of their area.
#
# Guess before the run: Geometry.geojson() transforms to longitude and latitude and changes no
# outline; if it simplifies large shapes for display, then by less than a house.
# Seen: of one MultiPolygon of 5 houses of 10 x 20 m the area is right. Of 20 it is half: each is a
# triangle, since from 100 coordinates on the outlines are simplified by a hundredth of the extent,
# here 10 m, and of 0.05 degrees at the most. A log or warning does not tell; the documentation
# does. With simplify=0 the area is right.
# Versions: odc-geo 0.5.3, shapely 2.1.2, pyproj 3.7.2. Source: odc/geo/geom.py, Geometry.geojson.
# Hurt: who sends the footprints of a block as GeoJSON: a test with a few houses is right, and the
# town has triangles, whose counts are those of the houses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check odc-geo==0.5.3 shapely==2.1.2 pyproj==3.7.2 numpy==2.2.6
venv/bin/python -W error::UserWarning - <<'PYTHON'
import json
import pyproj
import shapely
from odc.geo.geom import Geometry

EARTH = pyproj.Geod(ellps="WGS84")


def area(count, **options):
    houses = shapely.union_all(
        [shapely.box(500_000 + 50 * n, 5_000_000, 500_020 + 50 * n, 5_000_010) for n in range(count)]
    )
    written = Geometry(houses, "EPSG:32633").geojson(**options)["geometry"]
    found = shapely.from_geojson(json.dumps(written))
    square_metres = round(sum(abs(EARTH.geometry_area_perimeter(part)[0]) for part in found.geoms))
    print(count, "houses of 200 square metres", options, "->", len(found.geoms), "of", square_metres)
    return square_metres


assert abs(area(5) - 1000) < 5
assert abs(area(20) - 2000) < 5
assert abs(area(20, simplify=0) - 4000) < 5
PYTHON
