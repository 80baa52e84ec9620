#!/usr/bin/env bash
# dsm2dtm makes halls wider than 24 m part of the ground, if the raster is in feet.
#
# Guess before the run: kernel_radius_meters, 40 by default, is a radius in metres in every
# projection: halls up to 80 m wide leave the terrain. Rasters in degrees are warped to metres.
# Seen: in UTM halls of 20, 40 and 60 m keep their 10 m above the terrain. In EPSG:2263, feet of
# New York, the same town with the same pixels of a metre keeps them for the hall of 20 m; those
# of 40 and 60 m are terrain, and their height is 0: 40 feet are 12 m. With kernel_radius_meters at
# 131.2, which is 40 m in feet, it is right again. There is no message.
# Versions: dsm2dtm 0.4.0, rasterio 1.4.4. Source: dsm2dtm/core.py, _create_context_from_src
# (src.res as it is, unless the CRS is in degrees); algorithm.py, _process_standard_dsm (divides
# kernel_radius_meters by it). The README says "kernel radius in meters" and names no other unit.
# Hurt: who takes heights of buildings as surface less terrain from American data in feet: blocks,
# schools and halls are flat, houses are right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check dsm2dtm==0.4.0 rasterio==1.4.4 \
  numpy==2.2.6 scipy==1.16.3 pyproj==3.7.2
cat > heights.py <<'PYTHON'
import numpy as np
import rasterio
from dsm2dtm import generate_dtm
from rasterio.transform import from_origin

FOOT = rasterio.crs.CRS.from_epsg(2263).linear_units_factor[1]
HALLS = {20: 90, 40: 170, 60: 290}  # width in metres, first column
surface = np.full((200, 420), 100, np.float64)
for width, column in HALLS.items():
    surface[100 - width // 2 : 100 + width // 2, column : column + width] = 110


def heights(crs, unit, **options):
    """Return the height of each hall in metres, from the surface in units of so many metres."""
    with rasterio.open(
        "surface.tif", "w", driver="GTiff", width=surface.shape[1], height=surface.shape[0],
        count=1, dtype="float32", crs=crs, nodata=-9999,
        transform=from_origin(300_000 / unit, 60_000 / unit, 1 / unit, 1 / unit),
    ) as file:
        file.write((surface / unit).astype("float32"), 1)
    terrain, _ = generate_dtm("surface.tif", **options)
    above = surface - terrain * unit
    found = [round(float(above[100, column + width // 2])) for width, column in HALLS.items()]
    print(crs, options, "halls of", *HALLS, "m are", *found, "m high")
    return found


assert abs(FOOT - 0.3048) < 1e-6
assert heights("EPSG:32618", 1) == [10, 10, 10]
assert heights("EPSG:2263", FOOT) == [10, 0, 0]
assert heights("EPSG:2263", FOOT, kernel_radius_meters=40 / FOOT) == [10, 10, 10]
PYTHON
venv/bin/python -W ignore heights.py
