#!/usr/bin/env bash
# splitraster leaves out the southern and eastern edge of a scene, where tiles overlap by 20 %.
#
# Guess before the run: the tiles of split_image hold each pixel of the scene at least once, whatever
# the overlap: it pads the scene to a multiple of the step between tiles, and says so.
# Seen: a scene of 1000 x 1000 pixels in tiles of 256 is complete without overlap, with an overlap
# of 25 % and of 50 %. With 20 % the last 132 columns and rows are in no tile, a quarter of the
# scene, although it is padded to 1020; with 10 % they are 54. In tiles of 512 with 25 % they are
# 104. It returns the number of tiles and prints the padded size. There is no message.
# Versions: splitraster 0.4.1, scikit-image 0.26.0, numpy 1.26.4. Source: splitraster/io.py,
# padding_image and split_image: the padded size is a multiple of the step, and tiles that reach
# beyond it are not made; split_image of splitraster/geo.py counts alike.
# Hurt: who cuts scenes and masks for training or prediction: buildings along two edges are never
# learned, and a map put together from the tiles ends before the scene does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check splitraster==0.4.1 scikit-image==0.26.0 \
  imageio==2.38.1 numpy==1.26.4
venv/bin/python - 2> /dev/null <<'PYTHON'
from pathlib import Path

import numpy as np
from skimage.io import imread, imsave
from splitraster import io

SIDE = 1000
# Each pixel holds its column, or its row in the second scene.
columns = np.broadcast_to(np.arange(SIDE, dtype="uint16"), (SIDE, SIDE))
imsave("columns.png", columns, check_contrast=False)
imsave("rows.png", np.ascontiguousarray(columns.T), check_contrast=False)
missing = {}
for tile, overlap in ((256, 0), (256, 0.1), (256, 0.2), (256, 0.25), (256, 0.5), (512, 0.25)):
    lost = []
    for scene in ("columns", "rows"):
        folder = f"{scene}-{tile}-{overlap}"
        count = io.split_image(f"{scene}.png", folder, tile, repetition_rate=overlap)
        tiles = [imread(path) for path in Path(folder).iterdir()]
        assert len(tiles) == count and {part.shape for part in tiles} == {(tile, tile)}
        lost.append(SIDE - len(np.unique(tiles)))
    missing[tile, overlap] = lost
    print(f"tiles of {tile}, overlap {overlap}: missing columns and rows: {lost}")
assert missing == {
    (256, 0): [0, 0], (256, 0.1): [54, 54], (256, 0.2): [132, 132], (256, 0.25): [0, 0],
    (256, 0.5): [0, 0], (512, 0.25): [104, 104],
}
PYTHON
