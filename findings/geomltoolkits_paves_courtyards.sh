#!/usr/bin/env bash
# geomltoolkits paves the courtyards of a mask, and in Oslo its square metres are a quarter.
#
# Guess before the run: vectorize_raster returns polygons with the holes that the mask has, as
# rasterio's shapes gives them; min_area in square metres is measured in a projection for areas.
# Seen: a block of 30 x 30 m around a yard of 10 x 10 m has 900 square metres in place of 800, and a
# pavilion in the yard is a second polygon on top of it. Of sheds of 2, 3, 5, 8 and 12 square metres
# near Oslo, filter_gdf_by_area with 10 keeps those of 3 to 12, if the table is in degrees or in Web
# Mercator as map tiles are: areas are taken there, where they are four times too large. In UTM it
# keeps the one of 12. Neither the log nor a warning tells.
# Versions: geomltoolkits 2.1.2, geopandas 1.1.1, rasterio 1.4.4. Source: vectorize_raster in
# geomltoolkits/raster/vectorize.py (coordinates[0]) and filter_gdf_by_area in
# geomltoolkits/geometry/validate.py (EPSG:3857).
# Hurt: who maps a town from tiles with the tools of fAIr: built-up areas grow by the yards, and the
# smallest building is another one in each latitude.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.1.1 pandas==2.3.3 pyogrio==0.12.1 rasterio==1.4.4 mercantile==1.2.1 rich==14.2.0 \
  scipy==1.17.1 rio-cogeo==7.0.4 numpy==2.2.6
venv/bin/pip install --quiet --disable-pip-version-check --no-deps geomltoolkits==2.1.2
venv/bin/python -W ignore - <<'PYTHON'
import geopandas
import numpy as np
import rasterio
import shapely
from geomltoolkits.geometry.validate import filter_gdf_by_area
from geomltoolkits.raster.vectorize import vectorize_raster
from rasterio.transform import from_origin

WEST, NORTH = 600_000, 6_650_000
mask = np.zeros((40, 40), np.uint8)
mask[5:35, 5:35] = 1
mask[15:25, 15:25] = 0
mask[18:21, 18:21] = 1
with rasterio.open(
    "mask.tif", "w", driver="GTiff", count=1, height=40, width=40, dtype="uint8",
    crs=32632, transform=from_origin(WEST, NORTH, 1, 1),
) as file:
    file.write(mask, 1)
polygons = vectorize_raster("mask.tif")
print("pixels:", mask.sum(), "polygons:", sorted(polygons.area))
assert mask.sum() == 809 and sorted(polygons.area) == [9, 900]
assert polygons.geometry.iloc[0].intersects(polygons.geometry.iloc[1])

sheds = geopandas.GeoDataFrame(
    geometry=[shapely.box(WEST, NORTH, WEST + width, NORTH + 1) for width in (2, 3, 5, 8, 12)],
    crs=32632,
)
for crs, kept in ((32632, [12]), (3857, [3, 5, 8, 12]), (4326, [3, 5, 8, 12])):
    found = filter_gdf_by_area(sheds.to_crs(crs), 10).to_crs(32632).area.round().tolist()
    print("EPSG:", crs, "kept of at least 10 square metres:", found)
    assert found == kept
PYTHON
