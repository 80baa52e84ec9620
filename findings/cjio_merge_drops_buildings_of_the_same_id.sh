#!/usr/bin/env bash
# cjio merges two city models and drops buildings whose id, such as "1", is in both.
#
# Guess before the run: merge keeps all buildings and renames those with an id that is taken, or it
# refuses; and it refuses files of two coordinate systems.
# Seen: of two quarters whose buildings are numbered 1 and 2, the result has the two of the first, and
# cjio says "Merging files" and nothing else: it takes equal ids for one building, whose shape of this
# LoD it has. With other ids in the second file there are four. Where the second file is in another
# UTM zone, its coordinates are taken as they are, and the result has the system of the first.
# Versions: cjio 0.10.1. Source: cjio/cityjson.py, merge.
# Hurt: who joins LoD1 blocks of neighbouring scenes that number their buildings each from 1: a part of
# the town is missing, and a viewer shows a hole like a park.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cjio==0.10.1
venv/bin/python - <<'PYTHON'
import json
import subprocess
from itertools import product

SIDES = ((0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5))


def quarter(name, left, names, epsg=32632):
    corners, houses = [], {}
    for place, house in enumerate(names):
        first = len(corners)
        corners += [[left + 20 * place + x, y, z] for z, y, x in product((0, 6), (0, 8), (0, 10))]
        shell = [[[first + corner for corner in side]] for side in SIDES]
        solid = {"type": "Solid", "lod": "1", "boundaries": [shell]}
        houses[house] = {"type": "Building", "geometry": [solid]}
    model = {"type": "CityJSON", "version": "2.0", "CityObjects": houses, "vertices": corners,
             "transform": {"scale": [1, 1, 1], "translate": [500_000, 5_000_000, 0]},
             "metadata": {"referenceSystem": f"https://www.opengis.net/def/crs/EPSG/0/{epsg}"}}
    with open(name, "w") as file:
        json.dump(model, file)


def merged(second):
    done = subprocess.run(
        ["venv/bin/cjio", "west.json", "merge", second, "save", "town.json"],
        check=True, capture_output=True, text=True,
    )
    with open("town.json") as file:
        town = json.load(file)
    system = town["metadata"]["referenceSystem"].rsplit("/", 1)[1]
    print(second, sorted(town["CityObjects"]), system, (done.stdout + done.stderr).split("\n"))
    assert "warning" not in (done.stdout + done.stderr).lower()
    return sorted(town["CityObjects"]), system


quarter("west.json", 0, ("1", "2"))
quarter("east.json", 100, ("1", "2"))
quarter("named.json", 100, ("3", "4"))
quarter("zone.json", 100, ("3", "4"), epsg=32633)
assert merged("east.json") == (["1", "2"], "32632")
assert merged("named.json") == (["1", "2", "3", "4"], "32632")
assert merged("zone.json") == (["1", "2", "3", "4"], "32632")
PYTHON
