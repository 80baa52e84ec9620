#!/usr/bin/env bash
# h3pandas gives each wing of a building the cells of its other wings, and takes metres for degrees.
#
# Guess before the run: polyfill(resolution, explode=True) has a row for each cell of each row of a
# GeoDataFrame; a CRS of metres is taken to degrees, or refused.
# Seen: two wings of 23 and 12 cells, with the index 0 and 1, have 35 rows. With the index that
# explode() of geopandas leaves, 0 and 0, they have 70: each wing has the cells of both, also in
# polyfill_resample. So have houses of two tiles that were put together with pandas.concat. In UTM,
# geo_to_h3_aggregate puts a house in Berlin into Antarctica, with EPSG:4326 as the CRS of the
# result. There is no message.
# Versions: h3pandas 0.3.0, h3 4.5.0, geopandas 1.2.0, shapely 2.1.2. Source: h3pandas/h3pandas.py,
# polyfill, which joins the cells to the rows by the index, and geo_to_h3, which takes x and y as
# longitude and latitude.
# Hurt: who counts roofs or floor area by hexagon: buildings with wings, and towns read from several
# tiles, count several times, and some of it in the hexagons of other houses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check h3pandas==0.3.0 h3==4.5.0 \
  geopandas==1.2.0 shapely==2.1.2 pyproj==3.7.2 pandas==2.3.3 numpy==2.3.5
venv/bin/python -W error::UserWarning - <<'PYTHON'
import geopandas
import h3
import h3pandas
from shapely import MultiPolygon, Point, box

parts = [box(13, 52, 13.0004, 52.0003), box(13.001, 52, 13.0012, 52.0003)]
building = geopandas.GeoDataFrame({"floors": [1]}, geometry=[MultiPolygon(parts)], crs=4326)
wings = building.explode()
assert wings.index.tolist() == [0, 0]
assert wings.h3.polyfill(13)["h3_polyfill"].map(len).tolist() == [23, 12]
seen = {}
for name, rows in {"index 0 1": wings.reset_index(drop=True), "index 0 0": wings}.items():
    cells = rows.h3.polyfill(13, explode=True)
    foreign = sum(
        not Point(*h3.cell_to_latlng(cell)[::-1]).within(wing)
        for wing, cell in zip(cells.geometry, cells["h3_polyfill"]))
    resampled = len(rows.h3.polyfill_resample(13, return_geometry=False))
    seen[name] = len(cells), foreign, resampled
    print(f"{name}: {len(cells)} rows, {foreign} with a cell outside the wing, {resampled} resampled")
assert seen == {"index 0 1": (35, 0, 35), "index 0 0": (70, 35, 70)}
house = geopandas.GeoDataFrame({"floors": [1]}, geometry=[Point(13.4, 52.5)], crs=4326)
for name, layer in {"degrees": house, "metres": house.to_crs(32633)}.items():
    hexagons = layer.h3.geo_to_h3_aggregate(9)
    seen[name] = *(round(angle) for angle in h3.cell_to_latlng(hexagons.index[0])), hexagons.crs
    print(name, "latitude, longitude, CRS:", *seen[name])
assert seen["degrees"] == (53, 13, "epsg:4326") and seen["metres"] == (-75, -109, "epsg:4326")
PYTHON
