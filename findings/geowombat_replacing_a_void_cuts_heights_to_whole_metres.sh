#!/usr/bin/env bash
# geowombat's replace cuts all heights to whole metres, and makes missing ones -9.2e18.
#
# Guess before the run: replace({-9999: 0}) changes the pixels that are -9999 and leaves the rest of
# a raster of heights as it is.
# Seen: heights of 12.75, 3.5 and -0.25 become 12, 3 and 0, and the type is float32 as before. A
# score of 0.9 becomes 0. A pixel that is nan, as voids are once they are masked, becomes -9.2e18,
# with a warning of numpy. recode, within a polygon, does the same.
# Versions: geowombat 2.5.3, xarray 2025.6.1, rasterio 1.4.4. Source: geowombat/core/sops.py,
# replace: data is cast to int64 before the values are exchanged, and back after it.
# Hurt: who fills voids of heights or scores by it: roofs lose up to a metre, scores all their
# value, and the file looks like one of floats.
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
cat > replace.py <<'PYTHON'
import geopandas
import geowombat as gw
import numpy as np
import rasterio
from shapely import box

if __name__ == "__main__":
    heights = np.array([[-9999, 12.75], [3.5, -0.25]], np.float32)
    with rasterio.open("heights.tif", "w", driver="GTiff", height=2, width=2, count=1,
                       dtype="float32", crs="EPSG:25833",
                       transform=rasterio.Affine(1, 0, 390_000, 0, -1, 5_820_000)) as file:
        file.write(heights, 1)
    plot = geopandas.GeoDataFrame(
        geometry=[box(390_000, 5_819_998, 390_002, 5_820_000)], crs="EPSG:25833")
    with gw.open("heights.tif") as source:
        replaced = gw.replace(source, {-9999: 0})
        recoded = gw.recode(source, plot, {-9999: 0})
        masked = gw.replace(source.where(source != -9999), {5: 6})
        print(replaced.dtype, replaced.values.tolist(), "of", heights.tolist())
        print("recode:", recoded.values.tolist())
        print("nan:", masked.values[0, 0, 0])
        assert replaced.dtype == np.float32
        assert replaced.values[0].tolist() == [[0, 12], [3, 0]]
        assert recoded.values[0].tolist() == [[0, 12], [3, 0]]
        assert masked.values[0, 0, 0] < -9e18
PYTHON
venv/bin/python -W ignore replace.py
