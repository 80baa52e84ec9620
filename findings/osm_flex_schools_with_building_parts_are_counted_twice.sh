#!/usr/bin/env bash
# osm-flex keeps buildings that lie in a larger area as soon as something lies in them.
#
# Guess before the run: remove_contained_polys leaves of each heap of polygons within polygons the
# outermost one, and one of several that are the same, as its docstring says.
# Seen: of the grounds of a school of 100 x 100 m, its building of 40 x 40 m and a part of it of
# 20 x 20 m the grounds and the building are left, 11,600 m2 of 10,000; without the part the
# building is dropped, as it should be. Of four in one another the three outer ones are left. Of two
# that are the same both are left; run again, it drops one more level each time. No message.
# Versions: osm-flex 1.1.1 (the latest), geopandas 1.1.2, shapely 2.1.2. Source: osm_flex/simplify.py,
# remove_contained_polys: rows to drop are those within another, less those that contain one.
# Hurt: who counts schools or hospitals, or their built area, of OpenStreetMap, where grounds,
# buildings and building parts have the same tags: those mapped best count most.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME="$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.1.2 shapely==2.1.2 \
  pandas==2.3.3 numpy==2.2.6 2> pip.log
venv/bin/pip install --quiet --disable-pip-version-check --no-deps osm-flex==1.1.1 2>> pip.log
venv/bin/python -W ignore - <<'PYTHON'
import geopandas as gpd
import shapely
from osm_flex.simplify import remove_contained_polys


def squares(*sides):
    """Return squares in one another."""
    shapes = [shapely.box(-side / 2, -side / 2, side / 2, side / 2) for side in sides]
    return gpd.GeoDataFrame({"side": sides}, geometry=shapes, crs=25832)


for name, town, expected in (
    ("grounds and building", squares(100, 40), [100]),
    ("grounds, building and part", squares(100, 40, 20), [100, 40]),
    ("four in one another", squares(100, 40, 20, 10), [100, 40, 20]),
    ("the same twice", squares(100, 100), [100, 100]),
):
    left = remove_contained_polys(town)
    again = remove_contained_polys(left)
    print(f"{name}: {town['side'].tolist()} becomes {left['side'].tolist()},",
          f"{left.area.sum():.0f} m2, run again {again['side'].tolist()}")
    assert left["side"].tolist() == expected
PYTHON
