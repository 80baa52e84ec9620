#!/usr/bin/env bash
# deeptile's stitch_image makes an empty map of a mask of 0 and 1.
#
# Guess before the run: tiles that are cut from a mask and put together again give the mask: where
# tiles overlap they hold the same values, and a weighted mean of equal values is that value.
# Seen: of a mask of houses in whole numbers not one pixel is left, with the default blending; of
# 200 of 255 nearly all pixels are 199. The mean is divided by the weights plus a small number, so
# that it lies below by some 0.0000001, and then it is cut off to the type of the tiles. Without
# blending, and of bool, the mask is right; of floats it is 0.9999999. There is no message.
# Versions: deeptile 2.0.10, numpy 2.4.6. Source: deeptile/extensions/stitch.py, stitch_image:
# stitched / (avg + 1e-7), then astype(dtype) without rounding.
# Hurt: who runs a network over tiles and stitches the masks of classes that it gives: the
# town is gone, a map of classes is one class lower everywhere, and scores in 8 bits are 1 lower.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check deeptile==2.0.10 dask==2026.8.0 \
  numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import deeptile
import numpy as np
from deeptile.extensions.stitch import stitch_image

houses = np.zeros((1000, 1000), bool)
houses[100:300, 100:300] = houses[400:900, 450:800] = True
print("pixels of houses:", houses.sum())


def inside(value, kind, blend):
    """Return the share of the pixels of houses that keep the value, and the largest value."""
    scene = (houses * value).astype(kind)
    tiles = deeptile.load(scene).get_tiles(tile_size=(256, 256), overlap=(0.1, 0.1))
    found = np.asarray(stitch_image(tiles, blend=blend))
    assert found.dtype == scene.dtype and not found[~houses].any()
    return (found[houses] == scene[houses]).mean(), float(found.max())


for kind in (np.uint8, np.int32):
    for value in (1, 2, 200):
        plain, blended = inside(value, kind, False), inside(value, kind, True)
        print(kind.__name__, value, "- right without blending:", plain, "with:", blended)
        assert plain == (1, value) and blended[0] < 0.01
        assert blended[1] in (value - 1, value)
        if value == 1:
            assert blended == (0, 0)
share, largest = inside(1, np.float32, True)
print("float32 1 - right with blending:", share, largest)
assert share == 0 and 1 - 1e-6 < largest < 1
assert inside(1, bool, True) == (1, 1)
PYTHON
