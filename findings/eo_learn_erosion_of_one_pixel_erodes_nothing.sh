#!/usr/bin/env bash
# eo-learn's erosion by a radius of one pixel erodes nothing, and by two pixels it moves houses.
#
# Guess before the run: ErosionTask(disk_radius=n), "radius of the erosion disk (in pixels)", takes
# n pixels off every side of a house: 10 x 10 pixels become 8 x 8 with the default, and 6 x 6 by 2.
# Seen: the number is the width of the disk. By 1, the default, the mask stays as it is. By 2 a
# house loses one row and one column, in the north and west only, so that its middle moves. By 3 it
# is 8 x 8. There is no warning.
# Versions: eo-learn 1.5.7, opencv-python-headless 4.11.0.86, numpy 1.26.4. Source:
# eolearn/geometry/morphology.py, ErosionTask: cv2.getStructuringElement takes width and height.
# Hurt: who takes the uncertain pixels off the edges of labels before training, which is what the
# task is for: the default leaves all of them in, and 2 moves all houses by half a pixel.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check eo-learn==1.5.7 \
  opencv-python-headless==4.11.0.86 numpy==1.26.4
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from eolearn.core import EOPatch, FeatureType
from eolearn.geometry import ErosionTask
from sentinelhub import CRS, BBox

mask = np.zeros((30, 30, 1), np.uint8)
mask[10:20, 10:20] = 1
seen = {}
for radius in (None, 1, 2, 3):
    patch = EOPatch(bbox=BBox((500000, 5400000, 500030, 5400030), CRS.UTM_33N))
    patch.mask_timeless["houses"] = mask
    options = {} if radius is None else {"disk_radius": radius}
    names = (FeatureType.MASK_TIMELESS, "houses", "eroded")
    rows, columns = np.nonzero(ErosionTask(names, **options)(patch).mask_timeless["eroded"][..., 0])
    seen[radius] = [int(edge) for edge in (rows.min(), rows.max(), columns.min(), columns.max())]
    print("disk_radius", radius, "rows and columns left:", seen[radius])
assert seen[None] == seen[1] == [10, 19, 10, 19]
assert seen[2] == [11, 19, 11, 19]
assert seen[3] == [11, 18, 11, 18]
PYTHON
