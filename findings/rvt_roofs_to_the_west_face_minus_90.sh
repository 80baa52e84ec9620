#!/usr/bin/env bash
# rvt says that roofs to the west face -90 degrees, where its documentation draws 270.
#
# Guess before the run: aspect of slope_aspect is what its documentation says, an azimuth clockwise
# from 0 or 360 degrees at north, with a compass of 0, 90, 180 and 270: of eight roofs it is 0, 45 up
# to 315, as of gdaldem and of xarray-spatial.
# Seen: 0 to 180 for the roofs from north over east to south, and -135, -90 and -45 for those to the
# south-west, west and north-west; in radians, the default, as well. A flat roof faces north. Between
# 225 and 315 there is no roof, and the mean of a roof to the south with some noise is anywhere.
# Versions: rvt-py 2.2.3, numpy 2.2.6, scipy 1.15.3. Source: rvt/vis.py, slope_aspect: np.arctan2 and
# no turn of negative angles; nothing in its documentation names them.
# Hurt: who sorts roofs by their direction, for solar panels: those to the west are missing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.2.6 scipy==1.15.3
venv/bin/pip install --quiet --disable-pip-version-check --no-deps rvt-py==2.2.3
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from rvt.vis import slope_aspect

rows, columns = np.mgrid[:20, :20].astype(np.float32)
seen = {}
for azimuth in range(0, 360, 45):
    east, north = np.sin(np.radians(azimuth)), np.cos(np.radians(azimuth))
    roof = 50 - 0.5 * (east * columns - north * rows)
    aspect = slope_aspect(roof, 1, 1, output_units="degree")["aspect"][10, 10]
    radians = slope_aspect(roof, 1, 1)["aspect"][10, 10]
    assert abs(np.degrees(radians) - aspect) < 0.01
    seen[azimuth] = round(float(aspect))
print("azimuth of the roof and its aspect:", seen)
assert {key: abs(value) for key, value in seen.items()}[180] == 180
assert {key: value for key, value in seen.items() if key != 180} == {
    0: 0, 45: 45, 90: 90, 135: 135, 225: -135, 270: -90, 315: -45}
PYTHON
