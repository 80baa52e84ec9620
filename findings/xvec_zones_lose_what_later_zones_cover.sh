#!/usr/bin/env bash
# xvec leaves a town without the pixels of its old quarter, where both are zones.
#
# Guess before the run: zonal_stats measures each zone by itself, with each of its methods, up to
# the pixels at the boundary; of "rasterize" its documentation says that small polygons suffer.
# Seen: of a town of 400 pixels, of which its old quarter of 100 is built up, the built-up share is
# 0.25 with method="exactextract" and "iterate", and 0.0 of 300 pixels with "rasterize": zones are
# drawn into one raster, and a later zone takes the pixels of an earlier one. In the other order the
# quarter has no value at all. There is no message. Without the package exactextract, "rasterize" is
# what a call without a method takes, so the same code gives 0.25 on one machine and 0.0 on another.
# Versions: xvec 0.5.2, rioxarray 0.19.0, rasterio 1.4.4. Source: xvec/zonal.py,
# _zonal_stats_rasterize.
# Hurt: who takes built-up shares of districts of two levels, or of circles around stations.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check xvec==0.5.2 rioxarray==0.19.0 rasterio==1.4.4 xarray==2025.12.0 \
  geopandas==1.1.1 pandas==2.3.3 shapely==2.1.2 joblib==1.5.2 tqdm==4.67.1 numpy==2.2.6
venv/bin/python -W error::UserWarning - <<'PYTHON'
import geopandas
import numpy as np
import rioxarray
import shapely
import xarray
import xvec

built_up = np.zeros((30, 30))
built_up[:10, :10] = 1
mask = xarray.DataArray(
    built_up, dims=("y", "x"),
    coords={"y": 5_000_019.5 - np.arange(30), "x": 500_000.5 + np.arange(30)},
).rio.write_crs(32633)
town = shapely.box(500_000, 5_000_000, 500_020, 5_000_020)
quarter = shapely.box(500_000, 5_000_010, 500_010, 5_000_020)


def shares(*zones, **method):
    places = geopandas.GeoSeries(list(zones), crs=32633)
    options = {"x_coords": "x", "y_coords": "y"} | method
    found = [
        mask.xvec.zonal_stats(places, stats=name, **options).values.tolist()
        for name in ("mean", "count")
    ]
    print(method, "shares:", found[0], "pixels:", found[1])
    return found


assert shares(town, quarter, method="iterate") == [[0.25, 1], [400, 100]]
assert shares(town, quarter, method="rasterize") == [[0, 1], [300, 100]]
assert shares(town, quarter) == [[0, 1], [300, 100]]
share, pixels = shares(quarter, town, method="rasterize")
assert np.isnan(share[0]) and share[1] == 0.25 and pixels[1] == 400
PYTHON
