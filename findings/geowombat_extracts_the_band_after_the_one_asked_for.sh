#!/usr/bin/env bash
# geowombat gives buildings the values of the band after the one asked for.
#
# Guess before the run: extract(bands=1) gives the first band of a raster: "Bands should be
# GDAL-indexed (i.e., the first band is 1, not 0)", says its docstring.
# Seen: of a raster with bands of 10, 20 and 30, bands=[1] gives 10, as it should, and bands=1 gives
# 20, in the column of the first band. bands=2 gives 30 and bands=3 is an IndexError. No message
# with the first two.
# Versions: geowombat 2.5.3, xarray 2025.6.1, rasterio 1.4.4. Source: geowombat/core/sops.py,
# extract: 1 is taken from lists and arrays of bands, and not from a single number.
# Hurt: who adds a height, a score or an index to buildings by one band of a raster: they get green
# for red, or the scores of roads for those of buildings, under the right name.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
$pip numpy==2.2.6 rasterio==1.4.4 geopandas==1.1.1 xarray==2025.6.1 \
  "dask[array,dataframe]==2025.7.0" distributed==2025.7.0 scipy==1.16.3 scikit-learn==1.7.2 \
  matplotlib==3.10.7 tqdm==4.67.1 \
  retry==0.9.2 requests==2.32.5 h5netcdf==1.6.4 h5py==3.14.0 cryptography==46.0.3 joblib==1.5.2 \
  threadpoolctl==3.6.0
$pip --no-deps geowombat==2.5.3
cat > extract.py <<'PYTHON'
import geopandas
import geowombat as gw
import numpy as np
import rasterio
from shapely import Point

if __name__ == "__main__":
    with rasterio.open("bands.tif", "w", driver="GTiff", height=8, width=8, count=3, dtype="uint8",
                       crs="EPSG:25833",
                       transform=rasterio.Affine(1, 0, 390_000, 0, -1, 5_820_000)) as file:
        for band in (1, 2, 3):
            file.write(np.full((8, 8), 10 * band, np.uint8), band)
    houses = geopandas.GeoDataFrame(
        {"id": [7]}, geometry=[Point(390_003.5, 5_819_996.5)], crs="EPSG:25833")
    seen = {}
    with gw.open("bands.tif") as source:
        for bands in ([1], 1, 2, 3):
            try:
                table = gw.extract(source, houses, bands=bands, band_names=["asked for"])
            except IndexError as error:
                seen[str(bands)] = "IndexError"
                print("bands =", bands, "IndexError", error)
            else:
                seen[str(bands)] = int(table["asked for"].iloc[0])
                print("bands =", bands, "gives", seen[str(bands)])
    assert seen == {"[1]": 10, "1": 20, "2": 30, "3": "IndexError"}
PYTHON
venv/bin/python -W ignore extract.py
