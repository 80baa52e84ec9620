#!/usr/bin/env bash
# esda's moment of inertia of a house in UTM is noise, and its normalised shape is below 0.
#
# Guess before the run: moment_of_inertia and nmi, its ratio to that of a circle, are taken about
# the centroid of a shape, so that a house of 12 x 10 m has 2440 m^4 and 0.94 wherever it stands.
# Seen: so it is near the origin. In UTM at 5500 km north, half of 200 such houses have less than 0,
# one in thirty more than 0.1, and none is within a tenth of 0.94. Rings are summed about the origin
# of the CRS, in terms of 22 digits of which a float keeps 16, and the moment is moved to the
# centroid after. In degrees all is well. There is no message.
# Versions: esda 2.9.0, shapely 2.2.0, numpy 2.3.5. Source: esda/shape.py, moment_of_inertia: the
# ring sums use the coordinates as they come, and area times squared distance is taken off after.
# Hurt: who describes footprints by their compactness, to tell types of houses: in a projected CRS,
# as areas need one, the values are noise. Districts of many kilometres come out right, and so do
# examples near the origin.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check esda==2.9.0 shapely==2.2.0 \
  geopandas==1.2.0 libpysal==4.14.1 numpy==2.3.5 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from esda.shape import moment_of_inertia, nmi
from shapely import box

moment = moment_of_inertia(np.array([box(0, 0, 12, 10)]))[0]
assert round(float(moment), 3) == 12 * 10 * (144 + 100) / 12
places = np.random.default_rng(0).uniform((400_000, 5_400_000), (600_000, 5_600_000), (200, 2))
seen = {}
for name, origins in (("near the origin", places % 100), ("in UTM", places)):
    houses = np.array([box(x, y, x + 12, y + 10) for x, y in origins])
    shapes = nmi(houses)
    seen[name] = [float(np.mean(found)) for found in (
        shapes < 0, shapes > 0.1, abs(shapes / 0.93927507 - 1) < 0.1)]
    print(name, "share below 0, above 0.1 and within a tenth of 0.94:", seen[name],
          "from", shapes.min().round(2), "to", shapes.max().round(2))
assert seen["near the origin"] == [0, 1, 1]
assert seen["in UTM"][0] > 0.3 and seen["in UTM"][1] < 0.3 and seen["in UTM"][2] < 0.05
PYTHON
