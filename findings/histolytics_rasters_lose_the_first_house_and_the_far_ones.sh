#!/usr/bin/env bash
# histolytics' label image of three houses holds one of them.
#
# Guess before the run: gdf2inst gives each polygon a number of its own above 0, and infers the
# size, if none is given, from the bounds of the polygons, so that all lie in it.
# Seen: of three houses between 20 and 100 pixels to the east and 10 and 60 to the south, the label
# image of 80 x 50 pixels holds the second: the polygons are not moved to the corner that the size
# begins at, so that what lies beyond 80 x 50 is cut off, and the first polygon has its number from
# the index, 0, that of the ground. With width, height and reset_index=True all three are there;
# with width and height alone the first is ground. gdf2sem cuts off the same. There is no message.
# Versions: histolytics 0.3.0, geopandas 1.1.1, rasterio 1.4.4, numpy 1.26.4. Source:
# histolytics/utils/raster.py, gdf2inst: xoff - xmin, then translate(xoff=-xmin - xoff).
# Hurt: who turns polygons into instance masks for training or rating: one house is missing in each
# tile, and without a size all those to the south and east.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.1.1 rasterio==1.4.4 \
  scipy==1.15.3 pandas==2.3.3 numpy==1.26.4
venv/bin/pip install --quiet --disable-pip-version-check --no-deps histolytics==0.3.0
venv/bin/python -W ignore - <<'PYTHON'
import geopandas as gpd
from histolytics.utils.raster import gdf2inst, gdf2sem
from shapely.geometry import box

houses = gpd.GeoDataFrame(
    {"class_name": [1, 2, 3]},
    geometry=[box(20, 10, 30, 20), box(50, 10, 60, 20), box(80, 40, 100, 60)])
print("pixels of the houses:", *(int(area) for area in houses.area))


def seen(raster, **options):
    """Return the size of the raster and the pixels of each house in it, wherever the house is."""
    found = raster(houses, **options)
    inside = [found[int(south):int(north), int(west):int(east)]
              for west, south, east, north in houses.bounds.to_numpy()]
    return found.shape, [int((part > 0).sum()) for part in inside]


SIZE = {"width": 120, "height": 80}
results = {
    "gdf2inst": seen(gdf2inst),
    "gdf2inst with reset_index": seen(gdf2inst, reset_index=True),
    "gdf2inst with a size": seen(gdf2inst, **SIZE),
    "gdf2inst with both": seen(gdf2inst, **SIZE, reset_index=True),
    "gdf2sem": seen(gdf2sem),
    "gdf2sem with a size": seen(gdf2sem, **SIZE),
}
for name, (shape, pixels) in results.items():
    print(f"{name}: height and width", *shape, "pixels of the houses", *pixels)
assert results["gdf2inst"] == ((50, 80), [0, 100, 0])
assert results["gdf2inst with reset_index"] == results["gdf2sem"] == ((50, 80), [100, 100, 0])
assert results["gdf2inst with a size"] == ((80, 120), [0, 100, 400])
for name in ("gdf2inst with both", "gdf2sem with a size"):
    assert results[name] == ((80, 120), [100, 100, 400])
PYTHON
