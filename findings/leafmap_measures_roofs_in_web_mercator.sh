#!/usr/bin/env bash
# leafmap says that a roof of 100 square metres in UTM has 239, and averages the nodata it is told of.
#
# Guess before the run: vector_area(layer, unit="m2") is the area on the ground, and that of the
# layer's own CRS where this one is in metres; zonal_stats(nodata=0) leaves zeros out, since "this
# value overrides any NODATA value specified in the file's metadata".
# Seen: a roof of 10 x 10 m in UTM has 100.8 "m2" on the equator, 238.5 at 49.6 N and 876.7 at 70 N, in
# acres and hectares alike: each layer is taken to Web Mercator. With nodata=0 a zone that is half
# void, half 10 m high has a mean height of 5, as without the argument, and 10 in rasterstats, which
# leafmap calls. There is no message of the first, and of the second a warning that asks for nodata.
# Versions: leafmap 0.63.1, rasterstats 0.21.0, geopandas 1.2.0, rasterio 1.4.4. Source:
# leafmap/common.py, vector_area (crs="epsg:3857") and zonal_stats (nodata = src.nodata).
# Hurt: who sums roof area or solar potential in a notebook: Munich has more than twice its roofs,
# Oslo four times, and roofs at the edge of the height map are too low.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check geopandas==1.2.0 shapely==2.1.2 \
  rasterio==1.4.4 rasterstats==0.21.0 xarray==2025.12.0 pyproj==3.7.2 pandas==2.3.3 numpy==2.3.5 \
  requests==2.32.5
venv/bin/pip install --quiet --disable-pip-version-check --no-deps leafmap==0.63.1
venv/bin/python -W ignore - <<'PYTHON'
import sys
import sysconfig
import types
from pathlib import Path
from unittest.mock import MagicMock

# The package imports its maps; the module of tools is imported without them.
package = types.ModuleType("leafmap")
package.__path__ = [str(Path(sysconfig.get_path("purelib"), "leafmap"))]
sys.modules |= {"leafmap": package, "leafmap.stac": types.ModuleType("leafmap.stac")}
sys.modules |= {
    name: MagicMock() for name in ("folium", "ipyleaflet", "ipywidgets", "whitebox", "xyzservices")}

import geopandas
import numpy as np
import rasterio
import rasterstats
from leafmap.common import vector_area, zonal_stats
from rasterio.transform import from_origin
from shapely import box

areas = {}
for north in (0, 5_500_000, 7_800_000):
    roof = geopandas.GeoDataFrame(geometry=[box(500_000, north, 500_010, north + 10)], crs=32633)
    square, hectares = vector_area(roof), vector_area(roof, unit="ha")
    areas[north] = round(float(square), 1)
    print(f"{north} m north: {areas[north]} m2, {hectares:.5f} ha, in UTM {roof.area[0]:.1f}")
    assert abs(square - 10_000 * hectares) < 1e-6 and round(vector_area(roof, crs=32633), 6) == 100
assert areas == {0: 100.8, 5_500_000: 238.5, 7_800_000: 876.7}, areas
heights = np.zeros((10, 10), dtype="float32")
heights[:, :5] = 10
with rasterio.open(
    "heights.tif", "w", driver="GTiff", width=10, height=10, count=1, dtype="float32",
    crs="EPSG:32633", transform=from_origin(500_000, 10, 1, 1),
) as dataset:
    dataset.write(heights, 1)
zone = geopandas.GeoDataFrame(geometry=[box(500_000, 0, 500_010, 10)], crs=32633)
means = {
    name: function(zone, "heights.tif", stats="mean", **options)[0]["mean"]
    for name, function, options in (
        ("leafmap", zonal_stats, {}), ("leafmap, nodata=0", zonal_stats, {"nodata": 0}),
        ("rasterstats, nodata=0", rasterstats.zonal_stats, {"nodata": 0}))}
print("mean heights:", means)
assert means == {"leafmap": 5, "leafmap, nodata=0": 5, "rasterstats, nodata=0": 10}
PYTHON
