#!/usr/bin/env bash
# momepy takes the height of a street from the sheds behind its houses.
#
# Guess before the run: street_profile with heights measures the street canyon: the buildings that
# face the street set its width and its height. Where houses of 15 m stand 16 m apart, the height is
# 15 and hw_ratio is 0.94, whatever stands in the gardens.
# Seen: with sheds of 3 m behind the houses the width is 16 still, but the height is 3 and hw_ratio
# is 0.19. The width is that of the nearest building of each tick, the height that of the lowest
# building that the tick crosses anywhere in its 25 m to each side. There is no message.
# Versions: momepy 0.11.0, libpysal 4.14.1, geopandas 1.2.0, shapely 2.2.0. Source:
# momepy/functional/_dimension.py, _street_profile: height.loc[res].groupby(inp).min() takes all
# hits of a tick, where min_distances picks the nearest.
# Hurt: who models heat, noise or exhaust in streets: complete footprints, with garages and sheds,
# make canyons into open country, and a map without small buildings is the better one.
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
import pandas
from shapely import LineString, box

street = geopandas.GeoDataFrame(geometry=[LineString([(0, 0), (100, 0)])], crs=32633)
houses = [box(0, 8, 100, 16), box(0, -16, 100, -8)]
sheds = [box(0, 20, 100, 24), box(0, -24, 100, -20)]
seen = {}
for name, outlines, heights in (
    ("houses", houses, [15.0, 15.0]),
    ("houses and sheds", houses + sheds, [15.0, 15.0, 3.0, 3.0]),
):
    buildings = geopandas.GeoDataFrame(geometry=outlines, crs=32633)
    profile = momepy.street_profile(street, buildings, height=pandas.Series(heights)).iloc[0]
    seen[name] = profile[["width", "height", "hw_ratio"]].round(2).tolist()
    print(name, "width, height, ratio:", seen[name])
assert seen == {"houses": [16, 15, 0.94], "houses and sheds": [16, 3, 0.19]}
PYTHON
