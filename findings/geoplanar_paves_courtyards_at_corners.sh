#!/usr/bin/env bash
# geoplanar fills the courtyard of a block where the corner of another house touches its wall.
#
# Guess before the run: fix_npe_edges inserts the missing vertex into the wall of the block, as its
# documentation has it, and no polygon changes its shape.
# Seen: a block of 1,200 square metres with a courtyard of 400 has 1,600 after it, because a kiosk
# touches its outer wall with a corner. Where the neighbour shares a piece of the wall, the
# courtyard stays. Both are valid, and is_planar_enforced approves of the result. No message.
# Versions: geoplanar 0.6.0, geopandas 1.2.0, libpysal 4.14.1, shapely 2.2.0. Source:
# geoplanar/planar.py, insert_intersections: for a common point it makes Polygon(exterior) of the
# split outline, without interiors.
# Hurt: who cleans footprints or parcels before counting neighbours or simplifying them: built area
# grows by the courtyards of just those blocks that others touch in a corner.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geoplanar==0.6.0 geopandas==1.2.0 \
  libpysal==4.14.1 esda==2.9.0 shapely==2.2.0 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import geopandas
import geoplanar
from shapely import Polygon, box

block = box(0, 0, 40, 40) - box(10, 10, 30, 30)
neighbours = {
    "corner": Polygon([(40, 20), (45, 15), (50, 20), (45, 25)]),
    "wall": box(40, 10, 50, 30),
}
seen = {}
for name, neighbour in neighbours.items():
    town = geopandas.GeoDataFrame(geometry=[block, neighbour], crs=32633)
    fixed = geoplanar.fix_npe_edges(town)
    assert town.is_valid.all() and fixed.is_valid.all()
    assert not geoplanar.is_planar_enforced(town, allow_gaps=True)
    assert geoplanar.is_planar_enforced(fixed, allow_gaps=True)
    seen[name] = town.area.tolist(), fixed.area.tolist()
    print(name, "areas before and after:", *seen[name])
assert seen == {
    "corner": ([1200, 50], [1600, 50]),
    "wall": ([1200, 200], [1200, 200]),
}
PYTHON
