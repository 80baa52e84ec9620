#!/usr/bin/env bash
# raster-tools counts 33 building pixels in a window that has 289, if the mask is uint8.
#
# Guess before the run: focal(mask, "sum", 17, 17) is the number of building pixels in 17 x 17
# pixels, whatever the type of the mask, as sums of numpy, xarray and GIS programs widen it.
# Seen: in a mask that is 1 everywhere it is 289 as int16 or float32 and 33 as uint8: sums have the
# type of the mask and wrap at 256. A window of 15 x 15 is right, with 225. Of a mask of 0 and 255,
# each sum of two pixels wraps. zonal_stats and aggregate of the same library have right sums of
# the same mask. There is no message.
# Versions: raster-tools 0.13.2, rioxarray 0.19.0, xarray 2025.12.0, dask-image 2026.5.0. Source:
# raster_tools/focal.py, _focal: sums without nodata are ndfilters.correlate in the type of
# the data.
# Hurt: who maps the density of buildings from a mask: dense blocks are holes in the map, from 256
# pixels on.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check raster-tools==0.13.2 rioxarray==0.19.0 \
  rasterio==1.4.4 xarray==2025.12.0 dask-image==2026.5.0 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import raster_tools
import rioxarray  # noqa: F401
import xarray


def mask(value, dtype):
    grid = {"band": [1], "y": 5_500_000 - np.arange(40), "x": 500_000 + np.arange(40)}
    pixels = xarray.DataArray(np.full((1, 40, 40), value, dtype), dims=tuple(grid), coords=grid)
    return raster_tools.Raster(pixels.rio.write_crs(32633))


seen = {}
for value, dtype in ((1, "uint8"), (1, "int16"), (1, "float32"), (255, "uint8")):
    for width in (15, 17):
        count = raster_tools.focal.focal(mask(value, dtype), "sum", width, width)
        seen[value, dtype, width] = int(count.to_numpy()[0, 20, 20])
        print(value, dtype, "sum of a window of", width, "pixels:", seen[value, dtype, width])
assert seen == {
    (1, "uint8", 15): 225, (1, "uint8", 17): 33, (1, "int16", 15): 225, (1, "int16", 17): 289,
    (1, "float32", 15): 225, (1, "float32", 17): 289,
    (255, "uint8", 15): 255 * 225 % 256, (255, "uint8", 17): 255 * 289 % 256,
}
houses = mask(255, "uint8")
town = raster_tools.general.aggregate(houses, (40, 40), "sum").to_numpy().item()
zone = raster_tools.zonal.zonal_stats(mask(1, "int16"), houses, "sum").compute().iloc[0, 0]
print("sum by aggregate and by zonal_stats:", int(town), int(zone))
assert int(town) == int(zone) == 255 * 1600
PYTHON
