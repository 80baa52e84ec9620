#!/usr/bin/env bash
# pybdshadow forgets the walls round courtyards: yards lie in the sun that are half in the shade.
#
# Guess before the run: each wall throws its shadow, that of a courtyard too, so that a block with a
# yard shades the ground in it, and the ground beyond it as a solid block does.
# Seen: the shadow begins at the outer walls. At noon in June in Germany a block of 40 x 40 m that
# is 10 m high shades the same strip to its north whether it is solid or has a yard of 20 x 20 m,
# and nothing of the yard, of which 25 % are dark. At the equinox 9 % are shaded in place of 60 %.
# The same walls as a block of two parts give 25 and 60 %. There is no message, and bd_preprocess
# keeps the hole.
# Versions: pybdshadow 0.3.5, suncalc 0.1.3, geopandas 1.1.1, shapely 2.1.2. Source:
# bdshadow_sunlight in pybdshadow/pybdshadow.py, which takes walls from exterior.coords.
# Hurt: who counts hours of sun or heat in a town of perimeter blocks from footprints with heights:
# the yards, most of the open ground there, are the sunniest places of the map.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pybdshadow==0.3.5 suncalc==0.1.3 \
  geopandas==1.1.1 pandas==2.3.3 shapely==2.1.2 numpy==2.2.6
cat > shade.py <<'PYTHON'
import geopandas
import numpy as np
import pandas as pd
import pybdshadow
import shapely

block = shapely.box(0, 0, 40, 40)
yard = shapely.box(10, 10, 30, 30)
# the same walls as a ring in two parts, which meet in the middle of the northern and southern wings
west, east = shapely.box(0, 0, 20, 40), shapely.box(20, 0, 40, 40)
towns = {
    "solid block": [block],
    "block with a yard": [block - yard],
    "the same in two parts": [west - yard, east - yard],
}
metre = np.array([1 / np.cos(np.radians(50)), 1]) * 360 / 40_000_000


def in_degrees(geometry):
    return shapely.transform(geometry, lambda corners: corners * metre + [10, 50])


def shares(outlines, hour):
    """Shaded parts of the yard and of the ground beyond the block, in per cent of the yard."""
    buildings = geopandas.GeoDataFrame(
        {"height": [10.0] * len(outlines)}, geometry=[in_degrees(one) for one in outlines], crs=4326
    )
    buildings = pybdshadow.bd_preprocess(buildings)
    shade = pybdshadow.bdshadow_sunlight(buildings, pd.Timestamp(hour, tz="UTC")).union_all()
    places = in_degrees(yard), in_degrees(shapely.box(-99, -99, 139, 199) - block)
    return [round(100 * shade.intersection(one).area / places[0].area) for one in places]


yards = {}
for hour in ("2026-06-21 11:20", "2026-03-21 11:20"):
    found = {name: shares(outlines, hour) for name, outlines in towns.items()}
    print(hour, "shaded in the yard and beyond the block, % of the yard:", found)
    solid, ring, parts = found.values()
    assert ring[1] == solid[1] == parts[1] > 40
    yards[hour[5:7]] = ring[0], parts[0]
assert yards == {"06": (0, 25), "03": (9, 60)}
PYTHON
venv/bin/python -W ignore shade.py
