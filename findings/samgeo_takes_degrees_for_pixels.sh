#!/usr/bin/env bash
# samgeo takes boxes in the coordinate system of the image for pixels.
#
# Guess before the run: bbox_to_xy turns boxes in any coordinate system into pixels; where the
# system is that of the image there is nothing to transform but the grid of the image.
# Seen: they are returned as they are. With an image and boxes in EPSG:4326, a house at 13.4 degrees
# east and 52.6 north becomes the "pixels" 13.4 and 52.6, the same for each house in the town. In
# UTM all boxes are called out of the image, which is printed. The same houses in another system
# than that of the image are right, and coords_to_xy converts points in either.
# Versions: segment-geospatial 1.4.2, rasterio 1.4.4, geopandas 1.2.0. Source: samgeo/common.py,
# bbox_to_xy: the grid is used only if coord_crs is not the CRS of the image; the documentation says
# "converts a list of coordinates to pixel coordinates".
# Hurt: who prompts a model with boxes of buildings from a file of the same system as the image:
# masks of the upper left corner, or none, in place of the houses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps segment-geospatial==1.4.2
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.2.0 \
  rasterio==1.4.4 shapely==2.1.2 numpy==2.4.6 opencv-python-headless==5.0.0.93 tqdm==4.67.1
venv/bin/python -W ignore - <<'PYTHON'
import importlib.util
import sys
import sysconfig
import types

import geopandas
import numpy as np
import rasterio
import shapely

# The module by itself, without the models and PyTorch, which coordinates do not need.
sys.modules["torch"] = types.SimpleNamespace(device=None)
path = sysconfig.get_paths()["purelib"] + "/samgeo/common.py"
spec = importlib.util.spec_from_file_location("common", path)
common = importlib.util.module_from_spec(spec)
spec.loader.exec_module(common)

pixel = 1e-5
transform = rasterio.transform.from_origin(13.4, 52.6, pixel, pixel)
with rasterio.open("town.tif", "w", driver="GTiff", height=300, width=300, count=1, dtype="uint8",
                   crs=4326, transform=transform) as file:
    file.write(np.ones((1, 300, 300), "uint8"))
corners = [(20, 30, 60, 50), (200, 100, 220, 140)]
boxes = [shapely.box(13.4 + west * pixel, 52.6 - south * pixel, 13.4 + east * pixel,
                     52.6 - north * pixel) for west, north, east, south in corners]
houses = geopandas.GeoDataFrame(geometry=boxes, crs=4326)
seen = {}
for crs in (4326, 3857):
    houses.to_crs(crs).to_file(f"{crs}.geojson", driver="GeoJSON")
    found = common.bbox_to_xy("town.tif", f"{crs}.geojson")
    seen[crs] = np.round(np.array(found, float), 2).tolist()
    print(f"EPSG:{crs} as pixels:", seen[crs], "expected:", corners)
assert np.allclose(seen[3857], corners, atol=1)
assert np.allclose(seen[4326], [[13.4, 52.6, 13.4, 52.6]] * 2, atol=0.01)
points = [[box.centroid.x, box.centroid.y] for box in boxes]
placed = common.coords_to_xy("town.tif", points, coord_crs="epsg:4326").tolist()
print("their centres as pixels:", placed)
assert np.allclose(placed, [(40, 40), (210, 120)], atol=1)
PYTHON
