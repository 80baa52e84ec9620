#!/usr/bin/env bash
# geojson_utils measures no distance from west to east, and crosses facades in another country.
#
# Guess before the run: the distance on the ellipsoid differs from that on the sphere by less than
# a percent, two lines cross where both are, and a building of two parts is within a radius if both
# are, like each of them alone.
# Seen: in Berlin, houses a kilometre apart from west to east are at 0.0 m on the ellipsoid; from
# north to south it is right. The walls of 52.52 north and 13.40 east cross at 52.52 east and 13.40
# north, in the Arabian Sea; the example in the README crosses at (5, 5), where it does not show.
# A building of several parts is within 1 m of any point on earth. There is no message.
# Versions: geojson_utils 0.0.3 (the latest). Source: geojson_utils/geojson_utils.py,
# point_distance_ellipsode: lon2 = point1['coordinates'][0]; linestrings_intersect: x is
# coordinates[1] on the way in and is written first; geometry_within_radius knows Point, LineString
# and Polygon, and ends with True. The README names the three kinds, and no error for others.
# Hurt: who looks for the nearest house or for those around a point in GeoJSON from the web.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geojson_utils==0.0.3 requests==2.32.5
venv/bin/python - <<'PYTHON'
from geojson_utils import (
    geometry_within_radius,
    linestrings_intersect,
    point_distance,
    point_distance_ellipsode,
)

EAST, NORTH, METRE = 13.40, 52.52, 1 / 111_195


def point(east, north):
    """Return a place so many metres from one in Berlin."""
    coordinates = [EAST + east * METRE / 0.6085, NORTH + north * METRE]
    return {"type": "Point", "coordinates": coordinates}


centre = point(0, 0)
for name, other in [("east", point(1000, 0)), ("north", point(0, 1000)),
                    ("north-east", point(1000, 1000))]:
    sphere, ellipsoid = point_distance(centre, other), point_distance_ellipsode(centre, other)
    print(name, "sphere", round(sphere, 1), "ellipsoid", round(ellipsoid, 1))
    expected = {"east": (1000, 0), "north": (1000, 1000), "north-east": (1414, 1000)}[name]
    assert abs(sphere - expected[0]) < 5 and abs(ellipsoid - expected[1]) < 5

walls = [[point(-20, 0), point(20, 0)], [point(0, -20), point(0, 20)]]
lines = [{"type": "LineString", "coordinates": [end["coordinates"] for end in wall]}
         for wall in walls]
(crossing,) = linestrings_intersect(*lines)
print("walls cross at", crossing["coordinates"])
assert abs(crossing["coordinates"][0] - NORTH) < 1e-6
assert abs(crossing["coordinates"][1] - EAST) < 1e-6

corners = [(0, 0), (10, 0), (10, 10), (0, 10), (0, 0)]
ring = [point(*corner)["coordinates"] for corner in corners]
house = {"type": "Polygon", "coordinates": [ring]}
building = {"type": "MultiPolygon", "coordinates": [[ring]]}
sydney = {"type": "Point", "coordinates": [151.2, -33.9]}
seen = [geometry_within_radius(shape, sydney, 1) for shape in (house, building)]
print("within 1 m of Sydney: house", seen[0], "building of parts", seen[1])
assert seen == [False, True]
PYTHON
