#!/usr/bin/env bash
# eodal reads the band before the one that is asked for by name.
#
# Guess before the run: from_rasterio with band_name_src reads the band with this description.
# Seen: of a scene with blue, red and near infrared of 400, 900 and 4000, "red" gives 400 and "nir"
# 900, each under the name that was asked for, and the index of vegetation of a lawn is 0.38 in
# place of 0.63. "blue" is refused, as band 0. read_pixels finds the right ones. No message comes
# for the two others.
# Versions: eodal 0.2.4 (the latest), rasterio 1.4.4. Source: eodal/core/band.py, from_rasterio
# takes band_names.index(band_name_src), counted from 0, for the number of the band, which counts
# from 1; read_pixels adds 1.
# Hurt: who reads bands by name, the safe way: colours and indices are those of other bands.
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
from shapely import Point

names, values = ["blue", "red", "nir"], [400, 900, 4000]
with rasterio.open("scene.tif", "w", driver="GTiff", height=4, width=4, count=3, dtype="uint16",
                   crs="EPSG:25833", nodata=0,
                   transform=rasterio.Affine(10, 0, 390_000, 0, -10, 5_820_000)) as file:
    for number, (name, value) in enumerate(zip(names, values), 1):
        file.write(np.full((4, 4), value, np.uint16), number)
        file.set_band_description(number, name)
lawn = geopandas.GeoDataFrame(geometry=[Point(390_015, 5_819_985)], crs="EPSG:25833")
pixels = [int(Band.read_pixels(Path("scene.tif"), lawn, band_name_src=name)["B1"].iloc[0])
          for name in names]
read = {}
for name in names:
    try:
        band = Band.from_rasterio(Path("scene.tif"), band_name_src=name, band_name_dst=name)
    except IndexError as error:
        print(name, error)
    else:
        read[band.band_name] = int(band.values.mean())
red, nir = float(read["red"]), float(read["nir"])
print(read, "of", dict(zip(names, values)), "with an index of", round((nir - red) / (nir + red), 2))
print("read_pixels", pixels, "with an index of", round((4000 - 900) / (4000 + 900), 2))
assert read == {"red": 400, "nir": 900}
assert pixels == values
PYTHON
