#!/usr/bin/env bash
# gval counts the pixels of maps in 8 bits modulo 256, and rates by what is left.
#
# Guess before the run: categorical_compare of two maps of the same values gives the same numbers
# of pixels and the same critical success index, or IoU, whatever type the maps are stored in.
# Seen: of 300 x 300 pixels with 7,200 found, 100 added and 900 missed, the index is 0.878 for
# maps in int16, int32, float32 and float64, and 0.121 in uint8, where 32 are found, 100 added and
# 132 missed: each count is what it should be modulo 256. Of 256 x 256 pixels of building, all
# found, none is left. There is no message.
# Versions: gval 0.2.15, xarray 2026.9.0, flox 0.11.2, numpy 2.4.6. Source: gval/comparison/
# tabulation.py, _crosstab_2d_DataArrays: counts are cast to the type of the agreement map, which
# for the default comparison is that of both maps.
# Hurt: who compares masks of buildings, which are nearly always uint8, with the package that
# hydrology services made for it: a good map may look worse than a bad one, by the remainders of
# its counts.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gval==0.2.15 xarray==2026.9.0 \
  flox==0.11.2 dask==2026.8.0 numba==0.68.1 numpy==2.4.6 pandas==3.1.1 pandera==0.35.0 \
  rioxarray==0.19.0 rasterio==1.4.4 geocube==0.7.1 odc-geo==0.5.3 geopandas==1.2.0 \
  shapely==2.2.0 scipy==1.17.1
venv/bin/python -W ignore - <<'PYTHON'
import gval  # noqa: F401
import numpy as np
import rioxarray  # noqa: F401
import xarray


def layer(mask, dtype):
    """Return a mask as a map in UTM with a value for no data, as gval asks for."""
    rows, columns = mask.shape
    places = {"y": np.arange(rows)[::-1] + 0.5, "x": np.arange(columns) + 0.5}
    town = xarray.DataArray(mask.astype(dtype), dims=("y", "x"), coords=places)
    return town.rio.write_crs(32633).rio.write_nodata(255)


def rate(prediction, truth, dtype):
    """Return the pixels found, added and missed, and the critical success index."""
    _, counts, metrics = layer(prediction, dtype).gval.categorical_compare(
        layer(truth, dtype), positive_categories=[1], negative_categories=[0])
    table = {(row.candidate_values, row.benchmark_values): int(row.counts)
             for row in counts.itertuples()}
    index = float(metrics["critical_success_index"].iloc[0])
    return [table.get((1, 1)), table.get((1, 0)), table.get((0, 1)), round(index, 3)]


truth = np.zeros((300, 300), int)
truth[10:100, 10:100] = 1
prediction = np.zeros((300, 300), int)
prediction[10:90, 10:100] = 1
prediction[200:210, 200:210] = 1
seen = {dtype: rate(prediction, truth, dtype)
        for dtype in ("uint8", "int16", "int32", "float32", "float64")}
for dtype, found in seen.items():
    print(f"{dtype:8} found, added, missed and critical success index:", *found)
assert seen.pop("uint8") == [32, 100, 132, 0.121]
assert all(found == [7200, 100, 900, 0.878] for found in seen.values())

hall = np.zeros((300, 300), int)
hall[:256, :256] = 1
_, counts, _ = layer(hall, "uint8").gval.categorical_compare(
    layer(np.where(hall, 1, 0), "uint8"), metrics=["prevalence"],
    positive_categories=[1], negative_categories=[0])
found = counts.set_index("candidate_values")["counts"].to_dict()
print("a hall of 256 x 256 pixels:", found)
assert found[1] == 0
PYTHON
