#!/usr/bin/env bash
# cityseer sums distances to what is visible in pixels: views within 50 m are 67 m long on average.
#
# Guess before the run: farness, the sum of distances to the visible pixels, divided by density,
# their number, is the mean distance in metres: 33 m on open ground with a view of 50 m.
# Seen: with pixels of 1 m it is 33.3; with pixels of 0.5 m it is 66.7, more than the 50 m that the
# view is limited to, and with pixels of 2 m 16.7. The limit itself is in metres, as documented.
# The harmonic sum per pixel halves and doubles the other way round. No message.
# Versions: cityseer 5.8.0, numpy 2.2.6. Source: cityseer/rustalgos/viewshed.pyi: view_distance and
# resolution are in metres, and farness is the "Sum of distances to visible cells"; the module is
# compiled. visibility_from_gpd, visibility_from_osm and visibility_from_raster write these bands.
# Hurt: who rates open space, views or density around buildings from rasters of more than one
# resolution, or in metres at all: only pixels of 1 m give metres.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.2.6
venv/bin/pip install --quiet --disable-pip-version-check --no-deps cityseer==5.8.0
venv/bin/python - <<'PYTHON'
import numpy as np
from cityseer.rustalgos import viewshed

seen = {}
for pixel in (0.5, 1, 2):
    side = int(140 / pixel)
    ground = np.zeros((side, side), np.float32)
    density, farness, harmonic = (
        float(np.asarray(band)[side // 2, side // 2])
        for band in viewshed.Viewshed().visibility(ground, 50, pixel, 1.5)
    )
    seen[pixel] = round(farness / density, 1)
    area = density * pixel**2
    print(f"pixels of {pixel} m: {area:.0f} square metres, mean distance {seen[pixel]},",
          f"harmonic sum per pixel {harmonic / density:.4f}")
    assert abs(area / (np.pi * 50**2) - 1) < 0.01
assert seen == {0.5: 66.7, 1: 33.3, 2: 16.7}
PYTHON
