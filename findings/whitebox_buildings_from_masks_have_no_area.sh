#!/usr/bin/env bash
# whitebox-workflows turns a mask into buildings that have themselves as courtyards, of no area.
#
# Guess before the run: raster_to_vector_polygons makes a polygon of each region of a raster: of a
# house of 10 x 10 pixels of 0.5 m one of 25 m2, and of an L of 64 pixels one of 16 m2.
# Seen: each polygon has its outline twice, as exterior and as a hole: its area is 0 and it is not
# valid, in GeoPackage, Shapefile and GeoJSON alike. polygon_area of the same library, which forgets
# holes, gives 25 and 16, so that a check within the library finds nothing; there is no message.
# Versions: whitebox-workflows 2.0.6, rasterio 1.4.4, geopandas 1.2.0, shapely 2.2.0. Source: its
# help, whitebox_workflows/help/raster_to_vector_polygons.html, names no holes; it is compiled.
# Hurt: who vectorises a segmented mask: maps show outlines without fill, a point in a house is in
# no house, and sums of areas by any other program are 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check whitebox-workflows==2.0.6 \
  rasterio==1.4.4 geopandas==1.2.0 shapely==2.2.0 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import geopandas
import numpy as np
import rasterio
import whitebox_workflows
from shapely import Polygon

mask = np.zeros((40, 40), "uint8")
mask[20:30, 20:30] = 1
mask[2:12, 2:6] = mask[2:6, 2:12] = 2
with rasterio.open(
    "mask.tif", "w", driver="GTiff", width=40, height=40, count=1, dtype="uint8", crs=32633,
    transform=rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_500_000),
) as dataset:
    dataset.write(mask, 1)
tools = whitebox_workflows.WbEnvironment()
polygons = tools.conversion.raster_to_vector_polygons(input=tools.read_raster("mask.tif"))
tools.write_vector(tools.vector.polygon_area(input=polygons), "area.gpkg")
for suffix in ("gpkg", "shp", "geojson"):
    tools.write_vector(polygons, f"buildings.{suffix}")
    found = geopandas.read_file(f"buildings.{suffix}").sort_values("VALUE")
    seen = found.area.tolist(), found.is_valid.tolist()
    print(suffix, "areas and validity:", seen)
    assert seen == ([0, 0], [False, False])
    for outline in found.geometry:
        assert Polygon(outline.exterior).equals(Polygon(outline.interiors[0]))
areas = sorted(geopandas.read_file("area.gpkg")["AREA"])
pixels = sorted(float((mask == value).sum()) / 4 for value in (1, 2))
print("polygon_area:", areas, "pixels:", pixels)
assert areas == pixels == [16, 25]
PYTHON
