#!/usr/bin/env bash
# pyquadkey2 gives a map tile at 60 degrees north four times the ground that it covers.
#
# Guess before the run: area() and side() of a quadkey are those of its tile on the ground: of level
# 16 they are 0.37 km2 at the equator, half of it at 45 degrees and a quarter at 60 degrees.
# Seen: 373 928 m2 at each of them. A geodesic measure of the same tiles gives 0.37, 0.19 and 0.09
# km2. The key knows its latitude, and to_geo returns it; side() asks for the resolution on the
# ground at latitude 0. Its documentation names no latitude, and there is no message.
# Versions: pyquadkey2 0.3.2, pyproj 3.7.2. Source: pyquadkey2/quadkey/__init__.py, side:
# tilesystem.ground_resolution(0, self.level).
# Hurt: who takes the density of buildings or people by quadkey, as the tiles of Facebook and Ookla
# are published: in Germany it is 2.5 times too small, in Finland four times, and a map of Europe
# shows the south as dense.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyquadkey2==0.3.2 pyproj==3.7.2
venv/bin/python -W ignore - <<'PYTHON'
from pyproj import Geod
from pyquadkey2 import quadkey
from pyquadkey2.quadkey import TileAnchor

seen = {}
for latitude in (0.001, 45, 60):
    key = quadkey.from_geo((latitude, 10), 16)
    north, west = key.to_geo(TileAnchor.ANCHOR_NW)
    south, east = key.to_geo(TileAnchor.ANCHOR_SE)
    ground, _ = Geod(ellps="WGS84").polygon_area_perimeter(
        [west, east, east, west], [south, south, north, north])
    seen[latitude] = round(key.area()), round(abs(ground) / 1e6, 2)
    print("latitude", latitude, "area in m2 and on the ground in km2:", seen[latitude])
assert seen == {0.001: (373_928, 0.37), 45: (373_928, 0.19), 60: (373_928, 0.09)}
PYTHON
