#!/usr/bin/env bash
# spyndex and earthpy take roofs and water of unsigned integers for the densest vegetation.
#
# Guess before the run: a library for spectral indices converts bands to float before it takes a
# difference, since Sentinel-2 and Landsat come as uint16 and orthophotos as uint8; an NDVI lies
# between -1 and 1.
# Seen: with bands as rasterio and xarray read them, a difference below 0 wraps around. A tin roof
# with 2100 in red and 1900 in near infrared has an NDVI of 16.3 in place of -0.05. Of bytes the sum
# wraps too: the same roof with 210 and 190 has 1.64, and a lawn with 60 and 240 has 4.09 in place
# of 0.6. There is no warning. Bands as float32 give the right values.
# Versions: spyndex 0.12.0, earthpy 1.0.0, numpy 2.4.6, xarray 2026.9.0. Source: spyndex/spyndex.py,
# computeIndex, evaluates its formula on what it is given; earthpy/spatial.py, normalized_diff.
# Their examples take reflectances from 0 to 1, and arrays of int64.
# Hurt: who takes trees out of a building mask by NDVI > 0.3: all roofs go with the trees; and who
# finds built-up ground by NDBI > 0: all woods are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check spyndex==0.12.0 earthpy==1.0.0 \
  numpy==2.4.6 xarray==2026.9.0
venv/bin/python -W error::RuntimeWarning - <<'PYTHON'
import earthpy.spatial
import numpy as np
import spyndex
import xarray


def ndvi(infrared, red, kind):
    """Return the NDVI of one pixel by spyndex, by spyndex from xarray, and by earthpy."""
    bands = [np.array([[value]], kind) for value in (infrared, red)]
    arrays = [xarray.DataArray(band, dims=("y", "x")) for band in bands]
    seen = (
        spyndex.computeIndex("NDVI", {"N": bands[0], "R": bands[1]}),
        spyndex.computeIndex("NDVI", {"N": arrays[0], "R": arrays[1]}),
        earthpy.spatial.normalized_diff(*bands),
    )
    return [round(float(np.asarray(value).item()), 2) for value in seen]


for name, infrared, red, kind, wrong, right in (
    ("roof", 1900, 2100, "uint16", 16.33, -0.05),
    ("lawn", 2700, 600, "uint16", 0.64, 0.64),
    ("roof", 190, 210, "uint8", 1.64, -0.05),
    ("lawn", 240, 60, "uint8", 4.09, 0.6),
):
    seen = ndvi(infrared, red, kind)
    print(name, kind, "NDVI:", seen, "as float32:", ndvi(infrared, red, "float32"))
    assert seen == [wrong] * 3
    assert ndvi(infrared, red, "float32") == [right] * 3
built_up = spyndex.computeIndex(
    "NDBI", {"S1": np.array([1500], "uint16"), "N": np.array([2700], "uint16")})
print("NDBI of a wood:", built_up)
assert built_up[0] > 10
PYTHON
