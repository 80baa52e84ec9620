#!/usr/bin/env bash
# tobler's hexagons leave parts of a town bare if its CRS is in feet.
#
# Guess before the run: h3fy(town, buffer=True), which should "completely fill the interior", does
# so in any CRS that it accepts; it refuses units other than metres and US survey feet.
# Seen: in UTM and in degrees 48 hexagons cover a town of 6 x 4 km. In the state plane CRS of
# New York in feet (EPSG:2263) there are 38, and 2.3 % of the town have none: the radius of a
# hexagon in metres is taken for feet.
# Versions: tobler 0.13.0, h3 4.5.0, geopandas 1.2.0, shapely 2.2.0, pyproj 3.7.2. Source:
# tobler/util/util.py, h3fy: units are checked for "us-ft" and converted for "ft-us", which no CRS
# has.
# Hurt: who counts buildings or sums roofs by hexagon in the United States: those at the edge of the
# town belong to no cell and are missing from all sums.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check tobler==0.13.0 h3==4.5.0 \
  geopandas==1.2.0 shapely==2.2.0 pyproj==3.7.2 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import geopandas
from shapely import box
from tobler.util import h3fy

town = geopandas.GeoDataFrame(
    geometry=[box(583_000, 4_507_000, 589_000, 4_511_000)], crs=32618)
seen = {}
for crs in (32618, 4326, 2263):
    cells = h3fy(town.to_crs(crs), resolution=8, buffer=True)
    bare = town.difference(cells.to_crs(32618).union_all()).area.sum() / town.area.sum()
    seen[crs] = len(cells), round(100 * float(bare), 1)
    print("EPSG", crs, "hexagons and percent of the town without:", seen[crs])
assert seen == {32618: (48, 0), 4326: (48, 0), 2263: (38, 2.3)}
PYTHON
