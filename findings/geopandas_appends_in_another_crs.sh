#!/usr/bin/env bash
# geopandas appends buildings to a file of another coordinate system without a word.
#
# Guess before the run: to_file(mode="a") compares the systems, and transforms or raises, as pd.concat
# of the same two tables and to_postgis do.
# Seen: coordinates of the second table are written as they are, and the file keeps the system of the
# first. Of one town on the border of two UTM zones, the second half lies 430 km away in GeoPackage,
# Shapefile and GeoJSON alike; degrees appended to metres lie at its origin. pyogrio's
# write_dataframe(append=True), which it calls, does the same. A column of other numbers does warn.
# Versions: geopandas 1.2.0, pyogrio 0.13.0 with the GDAL of its wheel. Source: pyogrio's ogr_write
# gives the CRS to GDAL only where it creates the layer.
# Hurt: who writes scenes of a district into one file, scene by scene, where zones change.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pyogrio==0.13.0 geopandas==1.2.0
venv/bin/python -W error - <<'PYTHON'
import geopandas
import pandas as pd
import pyogrio
from shapely import box

print("GDAL", pyogrio.__gdal_version__)
west = geopandas.GeoSeries([box(11.998, 50, 11.9985, 50.0005)], crs=4326).to_crs(32632)
east = geopandas.GeoSeries([box(12.001, 50, 12.0015, 50.0005)], crs=4326).to_crs(32633)
west, east = (geopandas.GeoDataFrame({"floors": [2]}, geometry=part) for part in (west, east))
right = west.distance(east.to_crs(32632))[0]
try:
    pd.concat([west, east])
    raise SystemExit("pd.concat no longer refuses")
except ValueError as error:
    print("pd.concat:", error)
for name in ("town.gpkg", "town.shp", "town.geojson"):
    west.to_file(name)
    east.to_file(name, mode="a")
    town = geopandas.read_file(name)
    apart = town.geometry[0].distance(town.geometry[1])
    print(name, town.crs.to_epsg(), "apart:", round(apart / 1000), "km in place of", round(right), "m")
    assert town.crs == west.crs
    assert right < 300
    assert 400_000 < apart < 440_000
PYTHON
