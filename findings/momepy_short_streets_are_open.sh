#!/usr/bin/env bash
# momepy says that a street with walls on both sides is two thirds open, if it is 20 m long.
#
# Guess before the run: openness is the share of a street without buildings beside it: 0 where a
# wall runs along both sides, and past both ends, of a street of any length.
# Seen: 0.67 for a street of 20 m, 0.4 for 40 m and 0.18 for 100 m, and 1.0 for one of 10 m, which
# has a width of 50 m in place of 16. The ends of a street get ticks of length 0, which reach no
# building and count as openings. The same street as one piece of 100 m and as five pieces between
# crossings of 20 m has 0.18 and 0.67. There is no message.
# Versions: momepy 0.11.0, libpysal 4.14.1, geopandas 1.2.0, shapely 2.2.0. Source:
# momepy/functional/_dimension.py, generate_ticks (if end), and _street_profile, which divides by
# the number of all ticks ("size").
# Hurt: who compares towns by their streets: the closer the crossings, the more open the streets
# seem, so that a dense old quarter is more open than a suburb.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check momepy==0.11.0 libpysal==4.14.1 \
  geopandas==1.2.0 shapely==2.2.0 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import geopandas
import momepy
from shapely import LineString, box

walls = geopandas.GeoDataFrame(
    geometry=[box(-100, 8, 300, 20), box(-100, -20, 300, -8)], crs=32633)


def profiles(*places):
    lines = [LineString([(west, 0), (east, 0)]) for west, east in places]
    streets = geopandas.GeoDataFrame(geometry=lines, crs=32633)
    found = momepy.street_profile(streets, walls)
    return found[["openness", "width"]].round(2).to_numpy().tolist()


seen = {length: profiles((0, length))[0] for length in (10, 20, 40, 100)}
print("length: openness and width:", seen)
assert seen == {10: [1, 50], 20: [0.67, 16], 40: [0.4, 16], 100: [0.18, 16]}
pieces = profiles(*((west, west + 20) for west in range(0, 100, 20)))
print("100 m in five pieces:", pieces)
assert pieces == [[0.67, 16]] * 5
PYTHON
