#!/usr/bin/env bash
# raster-tools says that flat roofs face north.
#
# Guess before the run: northing and easting of a surface are the cosine and sine of its aspect: 1
# for a roof that faces north, -1 for one that faces south, and 0 or nodata where the roof is flat
# and has no aspect.
# Seen: northing of a flat roof is 0.99985 and easting -0.01745, as of a steep roof that faces
# north: aspect marks flat cells with -1, which is then taken for an angle of -1 degree. A roof that
# faces north has 1.0, one that faces south -1.0. There is no message.
# Versions: raster-tools 0.13.2, rioxarray 0.19.0, xarray 2025.12.0. Source:
# raster_tools/surface.py: _aspect writes -1 for flat cells, _northing_easting takes np.cos of it.
# Hurt: who maps the solar potential of roofs or trains on northness, its common form for models:
# of a surface model of a town, all flat roofs, streets and squares are the shady side.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check raster-tools==0.13.2 rioxarray==0.19.0 \
  rasterio==1.4.4 xarray==2025.12.0 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
import raster_tools
import rioxarray  # noqa: F401
import xarray

rows = np.arange(12.0)[:, None] + np.zeros(12)
seen = {}
for name, heights in (("flat", 0 * rows), ("south", -rows), ("north", rows)):
    roof = xarray.DataArray(
        heights[None], dims=("band", "y", "x"),
        coords={"band": [1], "y": 5_500_000 - np.arange(12), "x": 500_000 + np.arange(12)},
    ).rio.write_crs(32633)
    raster = raster_tools.Raster(roof)
    surface = raster_tools.surface
    seen[name] = [
        round(float(tool(raster).to_numpy()[0, 6, 6]), 5)
        for tool in (surface.slope, surface.aspect, surface.northing, surface.easting)
    ]
    print(name, "slope, aspect, northing, easting:", seen[name])
assert seen == {
    "flat": [0, -1, 0.99985, -0.01745],
    "south": [45, 180, -1, 0],
    "north": [45, 0, 1, 0],
}
PYTHON
