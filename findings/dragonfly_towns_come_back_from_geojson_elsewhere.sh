#!/usr/bin/env bash
# dragonfly reads the GeoJSON that it wrote with longitude and latitude swapped, and larger houses.
#
# Guess before the run: Model.from_geojson of a file that Model.to_geojson wrote gives the same
# houses at the same place; the file has the latitude and longitude of the origin under "project".
# Seen: a house of 20 x 10 m in Berlin comes back with 320.8 square metres in place of 200, its
# corner 4,233 km to the west and 4,352 km to the north of the origin, and the location is 13.4
# north, 52.5 east. With the location as an argument, or without "project" in the file, it is right.
# There is no message.
# Versions: dragonfly-core 1.77.27, honeybee-core 1.64.79, ladybug-core 0.44.62. Source:
# dragonfly/model.py, Model.from_geojson: point_lon_lat = (latitude, longitude), and degrees become
# metres by the cosine of the longitude.
# Hurt: who passes districts on as GeoJSON, as URBANopt does: floor areas, loads and distances of
# all buildings are wrong by one factor, which depends on the longitude.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check dragonfly-core==1.77.27 \
  honeybee-core==1.64.79 ladybug-core==0.44.62 ladybug-geometry==1.35.6
HOME="$folder" venv/bin/python -W ignore - <<'PYTHON'
import json
from pathlib import Path

from dragonfly.building import Building
from dragonfly.model import Model
from ladybug.location import Location
from ladybug_geometry.geometry3d import Face3D, Point3D

corners = [Point3D(0, 0, 0), Point3D(20, 0, 0), Point3D(20, 10, 0), Point3D(0, 10, 0)]
house = Building.from_footprint("house", [Face3D(corners)], [3, 3, 3])
berlin = Location("Berlin", latitude=52.5, longitude=13.4)
file = Path(Model("town", [house]).to_geojson(berlin, folder="."))
bare = Path("bare.geojson")
content = json.loads(file.read_text())
del content["project"]
bare.write_text(json.dumps(content))
seen = {}
for name, path, location in (
    ("as written", file, None), ("with location", file, berlin), ("without project", bare, None),
):
    model, place = Model.from_geojson(str(path), location=location)
    building = model.buildings[0]
    corner = building.footprint()[0].min
    seen[name] = (
        round(building.footprint_area, 1), round(corner.x / 1000), round(corner.y / 1000),
        round(place.latitude, 1), round(place.longitude, 1),
    )
    print(name, "(square metres, km east, km north, latitude, longitude):", seen[name])
assert seen == {
    "as written": (320.8, -4233, 4352, 13.4, 52.5),
    "with location": (200.0, 0, 0, 52.5, 13.4),
    "without project": (200.0, 0, 0, 52.5, 13.4),
}
PYTHON
