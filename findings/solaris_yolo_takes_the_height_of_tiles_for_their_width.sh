#!/usr/bin/env bash
# solaris' YOLO boxes of tiles that are not square are at wrong places, and houses are left out.
#
# Guess before the run: gdf_to_yolo writes a line for each house of a GeoTIFF, with its centre and
# size as shares of the width and height of the image.
# Seen: of a tile of 640 x 320 pixels with three houses one is written: that whose place is within
# 320 x 640. Its centre of (120, 110) is (0.375, 0.172) in place of (0.188, 0.344), and its box of
# 40 x 20 pixels is read as 80 x 10. The table that it returns has one house as well. Of a square
# tile all three are right. There is no message.
# Versions: solaris 0.4.0, rasterio 1.3.11, geopandas 0.12.2, shapely 1.8.5.post1. Source:
# solaris/vector/polygon.py, gdf_to_yolo: im_size is (rows, columns), as rasterio reads, and its
# first value is taken for x; "im_size: a tuple specifying the x and y heighth", says its docstring.
# Hurt: who trains detectors on tiles at the edge of a scene, or on frames of drones: boxes lie on
# other ground, and houses in half of the tile are taught as background.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==1.26.4 pandas==1.5.3 \
  shapely==1.8.5.post1 fiona==1.9.6 geopandas==0.12.2 pyproj==3.6.1 rasterio==1.3.11 rtree==1.3.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps solaris==0.4.0
venv/bin/python -W ignore - <<'PYTHON'
import importlib
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import geopandas
import numpy as np
import rasterio
from shapely.geometry import box

# The package imports PyTorch, TensorFlow and GDAL's bindings; nothing of them runs here.
for name in ("solaris", "solaris.utils", "solaris.raster", "solaris.vector"):
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [str(Path(path, *name.split("."))) for path in sys.path]
for name in ("torch", "tensorflow", "skimage", "osr"):
    sys.modules[name] = ModuleType(name)
sys.modules["gdal"] = MagicMock(Dataset=type("Dataset", (), {}))
sys.modules["osgeo"] = MagicMock(gdal=sys.modules["gdal"])
gdf_to_yolo = importlib.import_module("solaris.vector.polygon").gdf_to_yolo


def written(width, height):
    """The lines of three houses of 40 x 20 pixels, and those that their places give."""
    name = f"tile{width}x{height}.tif"
    profile = dict(driver="GTiff", width=width, height=height, count=1, dtype="uint8",
                   crs="EPSG:32631", transform=rasterio.Affine(1, 0, 500_000, 0, -1, 5_000_000))
    with rasterio.open(name, "w", **profile) as file:
        file.write(np.zeros((1, height, width), "uint8"))
    corners = ((100, 100), (300, 250), (500, 100))
    houses = [box(500_000 + x, 5_000_000 - y - 20, 500_040 + x, 5_000_000 - y) for x, y in corners]
    table = geopandas.GeoDataFrame({"single_id": 0}, geometry=houses, index=range(3), crs=32631)
    table.to_file("houses.geojson", driver="GeoJSON")
    gdf_to_yolo("houses.geojson", name, "labels", remove_no_labels=0)
    rows = [line.split() for line in Path("labels", f"{name}.txt").read_text().splitlines()]
    found = sorted([round(float(value), 3) for value in row[1:]] for row in rows)
    return found, sorted(
        [round((x + 20) / width, 3), round((y + 10) / height, 3), 40 / width, 20 / height]
        for x, y in corners
    )


square, expected = written(640, 640)
print("640 x 640:", square)
assert np.allclose(square, expected, atol=1e-3)
wide, expected = written(640, 320)
print("640 x 320:", wide, "in place of", expected)
assert wide == [[0.375, 0.172, 0.125, 0.031]]
assert expected[0] == [0.188, 0.344, 0.0625, 0.0625]
PYTHON
