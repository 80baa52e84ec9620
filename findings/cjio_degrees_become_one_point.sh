#!/usr/bin/env bash
# cjio writes a city model in degrees with a scale of 0: all buildings become one point.
#
# Guess before the run: crs_reproject from UTM to EPSG:4979 keeps buildings, with 8 digits as its
# source says for degrees; a command that touches no coordinates returns the model as it was.
# Seen: the file has "scale": [0.000000, 0.000000, 0.000000]. Its vertices are right whole numbers,
# and times 0 they are one point: a house of 80 square metres has no area. It says "Reproject to
# EPSG:4979" and ends well. A model of another tool in degrees whose scale is 1e-7 is lost by any
# command that saves, such as attribute_rename. --digit 6 works, and rounds walls by up to 6 cm.
# Seen besides: once a program imports cjio, its own json.dumps writes each number with six
# decimals, so a footprint as GeoJSON in degrees is rounded to 11 cm and 1e-7 is 0.
# Versions: cjio 0.10.1, pyproj 3.7.2. Source: cjio/floatEncoder.py, format(x, ".6f"), which
# cityjson.py sets as json.encoder.float; pull request 174 brought it, when degrees had 6 digits.
# Hurt: who puts LoD1 blocks on a web globe: nothing is there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cjio==0.10.1 pyproj==3.7.2
PROJ_NETWORK=OFF venv/bin/python - <<'PYTHON'
import json
import subprocess
from itertools import product
from pyproj import Geod

SIDES = ((0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5))
geod = Geod(ellps="WGS84")


def house(name, epsg, origin, scale, step):
    shell = [[list(side)] for side in SIDES]
    solid = {"type": "Solid", "lod": "1", "boundaries": [shell]}
    corners = [[x * step, y * step, z] for z, y, x in product((0, 6000), (0, 8), (0, 10))]
    building = {"type": "Building", "geometry": [solid], "attributes": {"floors": 2}}
    model = {"type": "CityJSON", "version": "2.0", "CityObjects": {"1": building},
             "vertices": corners, "transform": {"scale": scale, "translate": origin},
             "metadata": {"referenceSystem": f"https://www.opengis.net/def/crs/EPSG/0/{epsg}"}}
    with open(name, "w") as file:
        json.dump(model, file)


def ground(name):
    """Scale and ground in square metres of the house, whose vertices are (lat, lon, height)."""
    with open(name) as file:
        model = json.load(file)
    scale, origin = model["transform"]["scale"], model["transform"]["translate"]
    (building,) = model["CityObjects"].values()
    (ring,) = building["geometry"][0]["boundaries"][0][0]
    corners = [model["vertices"][corner] for corner in ring]
    lat, lon, _ = (
        [place + size * corner[axis] for corner in corners]
        for axis, (place, size) in enumerate(zip(origin, scale))
    )
    return scale[0], round(abs(geod.polygon_area_perimeter(lon, lat)[0]), 1)


def after(name, *commands):
    done = subprocess.run(["venv/bin/cjio", name, *commands, "save", "out.json"],
                          check=True, capture_output=True, text=True)
    found = ground("out.json")
    print(name, *commands, "-> scale", found[0], "ground", found[1], "m2", done.stdout.split("\n"))
    assert "warning" not in (done.stdout + done.stderr).lower()
    return found


house("utm.json", 32632, [500_000, 5_000_000, 0], [0.001] * 3, 1000)
assert after("utm.json", "crs_reproject", "4979") == (0, 0)
assert after("utm.json", "crs_reproject", "--digit", "6", "4979")[0] == 1e-6
house("degrees.json", 4979, [45.15, 9.0, 0], [1e-7, 1e-7, 0.001], 100)
before = ground("degrees.json")
print("degrees.json scale", *before)
assert before[0] == 1e-7 and before[1] > 50
assert after("degrees.json", "attribute_rename", "floors", "storeys") == (0, 0)

footprint = {"lon": 9.00012345678, "share": 1e-7}
assert json.loads(json.dumps(footprint)) == footprint
import cjio.cityjson
print("json.dumps after import cjio.cityjson:", json.dumps(footprint))
assert json.loads(json.dumps(footprint)) == {"lon": 9.000123, "share": 0}
PYTHON
