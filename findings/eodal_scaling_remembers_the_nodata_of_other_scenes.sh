#!/usr/bin/env bash
# eodal leaves pixels unscaled that have the nodata value of any scene that was scaled before.
#
# Guess before the run: scale_data gives the same reflectances for a scene each time, and leaves out
# the nodata value of that scene.
# Seen: a scene of uint16 with a scale of 0.0001 and nodata 0 has 0.0255, 0.1 and 0.3. After
# scale_data of a mask whose nodata is 255 the same call gives 255, 0.1 and 0.3, ten thousand times
# too bright where the roof is dark. RasterCollection.scale does it with bands of its own. There is
# no message.
# Versions: eodal 0.2.4 (the latest), rasterio 1.4.4. Source: eodal/core/band.py, Band.scale_data
# appends nodata to pixel_values_to_ignore, a list that is the default of all calls.
# Hurt: who scales scenes one after another: single dark or bright pixels are outliers of thousands,
# indices and means of them follow, and a script gives other values than a run for one scene.
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

import numpy as np
import rasterio
from eodal.core.band import Band
from eodal.core.raster import RasterCollection


def scene(name, values, nodata, scale):
    with rasterio.open(name, "w", driver="GTiff", height=1, width=3, count=1, dtype="uint16",
                       crs="EPSG:25833", nodata=nodata,
                       transform=rasterio.Affine(10, 0, 390_000, 0, -10, 5_820_000)) as file:
        file.write(np.array([values], np.uint16), 1)
        file.scales = [scale]
    return Band.from_rasterio(Path(name), band_name_dst=Path(name).stem)


roofs = scene("roofs.tif", [255, 1000, 3000], 0, 0.0001)
mask = scene("mask.tif", [0, 1, 255], 255, 1)
before = roofs.scale_data().values[0].round(4).tolist()
mask.scale_data()
after = roofs.scale_data().values[0].round(4).tolist()
print("before", before, "and after another scene", after)
assert before == [0.0255, 0.1, 0.3]
assert after == [255, 0.1, 0.3]
darker = scene("darker.tif", [2000, 1000, 3000], 1000, 0.0001)
bands = RasterCollection()
bands.add_band(darker)
bands.add_band(roofs)
bands.scale(inplace=True)
print("of a collection", bands["roofs"].values[0].round(4).tolist())
assert bands["roofs"].values[0].round(4).tolist() == [255, 1000, 0.3]
PYTHON
