#!/usr/bin/env bash
# geoai's region_groups writes houses with the areas of other houses, or with none.
#
# Guess before the run: out_vector holds a polygon for each region of a mask, with its label and the
# properties that the table of the same call has: of six houses the smallest has 100 pixels and the
# largest 300, as their polygons of 1 m pixels say.
# Seen: the table and the label image are right. In the GeoPackage labels 1 to 6 are 1, 4, 9, 16,
# 25 and 36: the second house, of 120 m2, has the area and axes of the fourth, 200, and the last
# four have none. Of 100 houses 90 have no area and 8 a wrong one. There is no message.
# Versions: geoai-py 0.40.1, scikit-image 0.25.2, rasterio 1.4.4. Source: geoai/utils/geometry.py,
# region_groups, vectorises with unique_attribute_value=True, by which raster_to_vector
# (geoai/utils/raster.py) multiplies the value of a polygon by its number, and joins by the product.
# Hurt: who filters a predicted mask by area, length or shape of its houses: large houses pass for
# small ones, and most drop out of each comparison as empty.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
$pip rasterio==1.4.4 rioxarray==0.19.0 geopandas==1.1.1 shapely==2.1.2 numpy==2.2.6 \
  scikit-image==0.25.2 matplotlib==3.10.8 tqdm==4.67.1
# Without torch and maps, which these modules do not need.
$pip --no-deps geoai-py==0.40.1
venv/bin/python -W ignore - <<'PYTHON'
import importlib.util
import sys
import types
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from rasterio.transform import from_origin

home = Path(importlib.util.find_spec("geoai").origin).parent
for name, place in (("geoai", home), ("geoai.utils", home / "utils")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [str(place)]
sys.modules["leafmap"] = types.ModuleType("leafmap")
raster = importlib.import_module("geoai.utils.raster")
sys.modules["geoai.utils"].raster_to_vector = raster.raster_to_vector
geometry = importlib.import_module("geoai.utils.geometry")


def houses(mask):
    """Write the polygons of a mask at 1 m; return their labels and areas."""
    profile = dict(driver="GTiff", height=mask.shape[0], width=mask.shape[1], count=1,
                   dtype="uint8", crs="EPSG:32633", transform=from_origin(500_000, 5_000_000, 1, 1))
    with rasterio.open("mask.tif", "w", **profile) as file:
        file.write(mask, 1)
    _, table = geometry.region_groups(
        "mask.tif", properties=["label", "area", "axis_major_length", "axis_minor_length"],
        out_csv="table.csv", out_vector="houses.gpkg")
    written = geopandas.read_file("houses.gpkg").sort_values("label")
    return written.label.tolist(), written.geometry.area.tolist()


street = np.zeros((50, 200), np.uint8)
for number, depth in enumerate((10, 12, 15, 20, 25, 30)):
    street[5:5 + depth, 5 + 30 * number:15 + 30 * number] = 1
labels, true = houses(street)
written = geopandas.read_file("houses.gpkg").sort_values("label")["area"].tolist()
print("labels", labels, "areas as written", written, "of the polygons", true)
assert np.loadtxt("table.csv", delimiter=",", skiprows=1)[:, 1].tolist() == true
assert labels == [1, 4, 9, 16, 25, 36] and true == [100, 120, 150, 200, 250, 300]
assert written[:2] == [100, 200] and np.isnan(written[2:]).all()

town = np.zeros((300, 300), np.uint8)
for number in range(100):
    row, column = 5 + 29 * (number // 10), 5 + 29 * (number % 10)
    town[row:row + 5 + number // 10, column:column + 5 + number % 10] = 1
houses(town)
table = geopandas.read_file("houses.gpkg")
empty = int(table["area"].isna().sum())
wrong = int((table["area"].notna() & (table["area"] != table.geometry.area)).sum())
print(f"of {len(table)} houses {empty} have no area and {wrong} a wrong one")
assert (len(table), empty, wrong) == (100, 90, 8)
PYTHON
