#!/usr/bin/env bash
# solaris' contact mask of close houses is empty once their table is sorted.
#
# Guess before the run: contact_mask marks the ground between two houses that are 4 m apart, in
# whichever order a table has them.
# Seen: with four houses, two of them 4 m apart, in the order of their index it marks 120 pixels
# between the two. Of the same table backwards, as sort_values gives it, it marks none. With
# reset_index the 120 are back. No message; footprints and boundaries are right in each order.
# Versions: solaris 0.4.0, geopandas 0.12.2, shapely 1.8.5.post1. Source: solaris/utils/geo.py,
# geometries_internal_intersection: the spatial index answers with positions, and they are
# looked up as, and compared with, labels of the index of a GeoSeries.
# Hurt: who trains networks with the contact channel of solaris on tables sorted by area or by
# height: ground between houses is taught as no contact, and houses grow together.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==1.26.4 pandas==1.5.3 \
  shapely==1.8.5.post1 fiona==1.9.6 geopandas==0.12.2 pyproj==3.6.1 rasterio==1.3.11 \
  rtree==1.3.0 scikit-image==0.24.0 tqdm==4.67.1
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
for name in ("torch", "tensorflow", "osr"):
    sys.modules[name] = ModuleType(name)
sys.modules["gdal"] = MagicMock(Dataset=type("Dataset", (), {}))
sys.modules["osgeo"] = MagicMock(gdal=sys.modules["gdal"])
sys.modules["solaris.utils.tile"] = MagicMock()
mask = importlib.import_module("solaris.vector.mask")

profile = dict(driver="GTiff", width=200, height=100, count=1, dtype="uint8",
               crs="EPSG:32631", transform=rasterio.Affine(1, 0, 500_000, 0, -1, 5_000_000))
with rasterio.open("tile.tif", "w", **profile) as file:
    file.write(np.zeros((1, 100, 200), "uint8"))
houses = [box(500_000 + x, 4_999_960, 500_020 + x, 4_999_980) for x in (10, 34, 100, 150)]
town = geopandas.GeoDataFrame({"storeys": [1, 2, 3, 4]}, geometry=houses, crs=32631)
falling = town.sort_values("storeys", ascending=False)
seen = {}
for name, table in (
    ("as read", town), ("sorted", falling), ("numbered anew", falling.reset_index(drop=True)),
):
    contact = mask.contact_mask(table.copy(), 10, meters=True, reference_im="tile.tif")
    roofs = mask.footprint_mask(table.copy(), reference_im="tile.tif")
    seen[name] = int((contact > 0).sum()), int((roofs > 0).sum())
    print(name, seen[name][0], "pixels of contact,", seen[name][1], "of roofs")
assert seen == {"as read": (120, 1600), "sorted": (0, 1600), "numbered anew": (120, 1600)}
PYTHON
