#!/usr/bin/env bash
# eodal clips a scene to the first of the plots that it is given, and leaves the others out.
#
# Guess before the run: clip of two plots gives the pixels of both, masked between them, in the box
# that holds both, as its docstring says: "the bounding box of one or more geometries", of which
# several are "dissolved into a single one".
# Seen: of two plots of 200 and 1,200 square metres 200 pixels are left, in the box of the first;
# with the plots in the other order it is the 1,200 of the other. RasterCollection.clip_bands does
# the same. from_rasterio with the same plots reads all 1,400. There is no message.
# Versions: eodal 0.2.4 (the latest), rasterio 1.4.4, geopandas 1.1.1. Source: eodal/core/band.py,
# Band.clip takes bounds.values[0] for the box, and masks by the dissolved plots within it.
# Hurt: who clips scenes, masks or heights to plots, districts or houses: all but the first are gone
# from maps and statistics, and which one is kept depends on the order in the file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
$pip numpy==2.2.6 pandas==2.3.3 geopandas==1.1.1 rasterio==1.4.4 shapely==2.1.2 pyproj==3.7.2 \
  opencv-python-headless==4.12.0.88 matplotlib==3.10.7 xarray==2025.6.1 zarr==2.18.7 \
  numcodecs==0.15.1 rasterstats==0.20.0 numba==0.61.2 pydantic-settings==2.16.3 \
  pystac-client==0.9.1 planetary-computer==1.0.0
$pip --no-deps eodal==0.2.4
venv/bin/python -W ignore - <<'PYTHON'
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from eodal.core.band import Band
from eodal.core.raster import RasterCollection
from shapely import box

with rasterio.open("heights.tif", "w", driver="GTiff", height=100, width=100, count=1,
                   dtype="float32", crs="EPSG:25833", nodata=-9999,
                   transform=rasterio.Affine(1, 0, 390_000, 0, -1, 5_820_000)) as file:
    file.write(np.full((100, 100), 35, np.float32), 1)
plots = geopandas.GeoDataFrame(crs="EPSG:25833", geometry=[
    box(390_010, 5_819_970, 390_020, 5_819_990), box(390_050, 5_819_920, 390_080, 5_819_960)])
scene = Band.from_rasterio(Path("heights.tif"))
seen = []
for order in (plots, plots.iloc[::-1]):
    clipped = scene.clip(order)
    seen.append((int(clipped.values.count()), clipped.values.shape))
    print("plots of", order.area.tolist(), "square metres: kept", *seen[-1])
bands = RasterCollection.from_multi_band_raster(Path("heights.tif"))
bands.clip_bands(clipping_bounds=plots, inplace=True)
kept = int(bands[bands.band_names[0]].values.count())
read = int(Band.from_rasterio(Path("heights.tif"), vector_features=plots).values.count())
print("clip_bands keeps", kept, "and from_rasterio reads", read)
assert seen == [(200, (20, 10)), (1200, (40, 30))]
assert (kept, read) == (200, 1400)
PYTHON
