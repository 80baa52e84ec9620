#!/usr/bin/env bash
# dragonfly's GeoJSON has one part of each building, and takes metres for feet on its way back.
#
# Guess before the run: Model.to_geojson writes a building of a hall and a pavilion as a
# MultiPolygon ("either as a Polygon or a MultiPolygon", says its documentation); a model in feet
# comes back from Model.from_geojson with units="Feet" as high as it was.
# Seen: the pavilion is not in the file, whose footprint_area counts it: the outline has 200 square
# metres, the column 300. The model in feet is written in metres and read as if its heights were in
# feet: 30 feet come back as 9.14, and footprints are right. There is no message.
# Versions: dragonfly-core 1.77.27, honeybee-core 1.64.79, ladybug-core 0.44.62. Source:
# dragonfly/model.py: to_geojson_dict writes footprint[0]; _objects_from_geojson multiplies
# maximum_roof_height by scale_to_meters, and the model is converted to feet afterwards.
# Hurt: who simulates energy, heat or solar yield of districts from it: parts of schools, farms and
# works are gone, and a town drawn in feet is a third as high.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check dragonfly-core==1.77.27 \
  honeybee-core==1.64.79 ladybug-core==0.44.62 ladybug-geometry==1.35.6
HOME="$folder" venv/bin/python -W ignore - <<'PYTHON'
import json

from dragonfly.building import Building
from dragonfly.model import Model
from ladybug.location import Location
from ladybug_geometry.geometry3d import Face3D, Point3D

BERLIN = Location("Berlin", latitude=52.5, longitude=13.4)


def face(west, east, north):
    corners = (west, 0), (east, 0), (east, north), (west, north)
    return Face3D([Point3D(x, y, 0) for x, y in corners])


works = Building.from_footprint("works", [face(0, 20, 10), face(30, 40, 10)], [3, 3])
file = Model("metres", [works]).to_geojson(BERLIN, folder=".")
feature = json.load(open(file))["features"][0]
outline = feature["geometry"]
back = Model.from_geojson(file, location=BERLIN)[0].buildings[0]
pavilion = (
    outline["type"], len(outline["coordinates"]), round(back.footprint_area),
    feature["properties"]["footprint_area"],
)
print("type, rings, area of the outline read again, footprint_area:", pavilion)
assert pavilion == ("Polygon", 1, 200, 300)

house = Building.from_footprint("house", [face(0, 60, 30)], [10, 10, 10])
file = Model("feet", [house], units="Feet").to_geojson(BERLIN, folder=".")
written = json.load(open(file))["features"][0]["properties"]["maximum_roof_height"]
back = Model.from_geojson(file, location=BERLIN, units="Feet")[0].buildings[0]
feet = round(written, 2), round(back.height, 2), round(back.footprint_area)
print("height in the file, in the model in feet, and its square feet:", feet)
assert feet == (9.14, 9.14, 1800)
PYTHON
