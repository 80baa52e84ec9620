#!/usr/bin/env bash
# momepy gives each building of a GeoPackage a courtyard of minus its own area, if one has two parts.
#
# Guess before the run: a MultiPolygon of one part has the measures of its polygon, as elongation and
# convexity of momepy have; a part without holes adds no courtyard.
# Seen: of a block of 1,100 square metres around a yard of 100, and of a house of 200, courtyard_area
# is 100 and 0; with MultiPolygons it is -1,100 and -200, and courtyard_index is -1 for every
# building, without a message. One building of two parts is enough: a GeoPackage or FlatGeobuf that
# geopandas writes then holds MultiPolygons only. explode() before is right.
# Versions: momepy 0.11.0, geopandas 1.2.0, pyogrio 0.13.0. Source: courtyard_area in
# momepy/functional/_dimension.py, whose shapely.get_exterior_ring is None for a MultiPolygon.
# Hurt: who describes the form of a town by predicted or official footprints: sums and densities of
# courtyards are negative, and clusters by such measures mean nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check momepy==0.11.0 geopandas==1.2.0 pyogrio==0.13.0 shapely==2.1.2
venv/bin/python -W error::UserWarning - <<'PYTHON'
import geopandas
import momepy
import shapely

block = shapely.box(0, 0, 30, 40).difference(shapely.box(10, 10, 20, 20))
house = shapely.box(100, 0, 120, 10)
pair = shapely.union_all([shapely.box(200, 0, 210, 10), shapely.box(215, 0, 225, 10)])


def measures(name, *outlines):
    number = range(len(outlines))
    geopandas.GeoDataFrame({"number": number}, geometry=list(outlines), crs=32633).to_file(name)
    town = geopandas.read_file(name).set_index("number").sort_index()
    first = town.loc[[0, 1]]
    found = momepy.courtyard_area(first).tolist()
    print(name, sorted(set(town.geom_type)), "courtyards:", found,
          "share:", momepy.courtyard_index(first).round(2).tolist(),
          "elongation:", momepy.elongation(first).round(2).tolist())
    assert momepy.elongation(first).round(2).tolist() == [0.75, 0.5]
    assert momepy.courtyard_area(first.explode()).tolist() == [100, 0]
    return found


assert measures("parts.gpkg", block, house) == [100, 0]
for name in ("town.gpkg", "town.fgb"):
    assert measures(name, block, house, pair) == [-1100, -200]
PYTHON
