#!/usr/bin/env bash
# cityImage makes a house of 9 m as high as a skyscraper where the terrain has four void pixels.
#
# Guess before the run: buildings_height_from_dem_dtm leaves out nodata and what is below
# min_valid_elev, -50, which it masks: a house of 10 x 10 m on ground at 100 m has base 100 and
# height 9, also if 4 of its 100 pixels of terrain are void.
# Seen: with nodata -9999 its base is -303.96 and its height 412.96; with -32767 the height is
# 1323.68, with 9999 -386.96, and with 0 it is 13. buildings_base_from_dtm and
# assign_elevations_from_rasters have the same bases. All that warns of it is "Setting nodata to
# -999".
# Versions: cityImage 2.1.1, rasterstats 0.21.0, rasterio 1.4.4, geopandas 1.2.0. Source:
# cityImage/height.py gives a masked array to rasterstats.zonal_stats with nodata=None, which copies
# its values without the mask (rasterstats/io.py, boundless_array).
# Hurt: who takes heights from surface and terrain models: terrain is void under buildings most of
# all, and such houses win as landmarks and block all sight lines.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cityImage==2.1.1 rasterstats==0.21.0 \
  rasterio==1.4.4 geopandas==1.2.0 shapely==2.2.0 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import cityImage
import geopandas
import numpy as np
import rasterio
from rasterio.transform import from_origin
from shapely import box

WEST, SOUTH = 500_000, 5_500_000
houses = geopandas.GeoDataFrame(
    {"buildingID": [0, 1]}, crs=32633,
    geometry=[box(x, SOUTH + 10, x + 10, SOUTH + 20) for x in (WEST + 10, WEST + 30)])
surface, ground = np.full((2, 50, 50), 100, "float32")
surface[30:40, 10:20] = surface[30:40, 30:40] = 109
seen = {}
for nodata in (None, -9999, -32767, 9999, 0):
    terrain = ground.copy()
    if nodata is not None:
        terrain[34:36, 14:16] = nodata
    for name, values in (("surface", surface), ("terrain", terrain)):
        with rasterio.open(
            f"{name}.tif", "w", driver="GTiff", width=50, height=50, count=1, dtype="float32",
            crs="EPSG:32633", transform=from_origin(WEST, SOUTH + 50, 1, 1), nodata=nodata,
        ) as file:
            file.write(values, 1)
    heights = cityImage.buildings_height_from_dem_dtm(houses, "surface.tif", "terrain.tif")
    seen[nodata] = heights[["base", "height"]].round(2).values.tolist()
    print(nodata, "base and height of the house above the void, and of the other:", *seen[nodata])
    bases = cityImage.buildings_base_from_dtm(houses, "terrain.tif")["base"].round(2).tolist()
    assert bases == [base for base, _ in seen[nodata]]
    assert seen[nodata][1] == [100, 9]
assert [values[0] for values in seen.values()] == [
    [100, 9], [-303.96, 412.96], [-1214.68, 1323.68], [495.96, -386.96], [96, 13],
]
PYTHON
