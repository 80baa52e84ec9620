#!/usr/bin/env bash
# StarDist's fill_label_holes deletes the house in a courtyard if its number is the lower one.
#
# Guess before the run: holes of an instance are pixels of the background in it; a pavilion in the
# courtyard of another house stays, as the documentation says no more than "fill small holes".
# Seen: of a ring of 500 pixels and a pavilion of 100 pixels in its courtyard, numbered 1 and 2,
# both stay and the courtyard around the pavilion is filled. Numbered 2 and 1, the pavilion is
# gone, and the ring has 900 pixels. Instances are filled one after the other, each over what was
# there. There is no message, and the size of a hole, or of what stands in it, does not matter.
# Versions: stardist 0.9.2, numpy 2.2.6. Source: stardist/utils.py, fill_label_holes,
# lbl_img_filled[sl][mask_filled] = i.
# Hurt: who prepares instance masks of buildings for training as the examples of the library do,
# where this is the first step: blocks around a yard swallow the houses in it, by the order of
# numbering.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check stardist==0.9.2 numpy==2.2.6
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from stardist.utils import fill_label_holes


def town(ring, pavilion):
    """Return a ring of 30 x 30 pixels around a courtyard of 20 x 20 with a pavilion of 10 x 10."""
    houses = np.zeros((40, 40), np.uint16)
    houses[5:35, 5:35] = ring
    houses[10:30, 10:30] = 0
    houses[15:25, 15:25] = pavilion
    return houses


def pixels(houses):
    return {int(number): int((houses == number).sum()) for number in np.unique(houses) if number}


seen = {numbers: pixels(fill_label_holes(town(*numbers))) for numbers in ((1, 2), (2, 1))}
for numbers, found in seen.items():
    print("ring and pavilion are", *numbers, "before:", pixels(town(*numbers)), "after:", found)
assert pixels(town(2, 1)) == {2: 500, 1: 100}
assert seen[1, 2] == {1: 800, 2: 100}
assert seen[2, 1] == {2: 900}
PYTHON
