#!/usr/bin/env bash
# pyodi cuts a tile of 1,024 pixels into 36 crops, of which 25 are different.
#
# Guess before the run: crops of 256 pixels that overlap by 64 are five in a row and five in a
# column, since 4 x 192 + 256 is 1,024; the data set lists 25 images, each once.
# Seen: 36 images. The last crop of a row, which ends at the edge, comes twice under the same name,
# and so does the last row, so that the one in the corner comes four times; one file is written for
# each name. Of 25 houses, one in the middle of each crop that no other crop holds, 36 are listed.
# It is so with every overlap where a crop ends at the edge or less than the overlap before it;
# without overlap, and with 32 pixels of it, there are no doubles. There is no message.
# Versions: pyodi 0.0.9, Pillow 12.0.0, numpy 2.2.6, numba 0.61.2 (pyodi asks for a NumPy that has
# no wheel for this Python). Source: pyodi/core/crops.py, get_crops_corners, while col_max -
# col_overlap < width.
# Hurt: who cuts scenes for a detector: the south and east of each scene weigh twice in training,
# and an evaluation counts each building there, found or missed, two or four times.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check loguru==0.7.3 pandas==2.3.3 \
  pillow==12.0.0 numba==0.61.2 numpy==2.2.6
venv/bin/pip install --quiet --disable-pip-version-check --no-deps pyodi==0.0.9
venv/bin/python -W ignore - <<'PYTHON'
import json
from collections import Counter
from pathlib import Path

from loguru import logger
from PIL import Image
from pyodi.apps.crops.crops_split import crops_split

logger.remove()
SIDE, CROP = 1024, 256
Path("scenes").mkdir()
Image.new("RGB", (SIDE, SIDE)).save("scenes/town.png")


def split(overlap):
    """Return how often the data set of crops lists an image, and each of the houses."""
    step = CROP - overlap
    places = [min(start, SIDE - CROP) for start in range(0, SIDE - overlap, step)]
    houses = [(x + CROP // 2 - 10, y + CROP // 2 - 10) for y in places for x in places]
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [x, y, 20, 20],
         "area": 400, "segmentation": [[x, y, x + 20, y, x + 20, y + 20, x, y + 20]]}
        for number, (x, y) in enumerate(houses, start=1)]
    Path("town.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "town.png", "width": SIDE, "height": SIDE}],
        "categories": [{"id": 1, "name": "building"}], "annotations": annotations}))
    sizes = CROP, CROP, overlap, overlap
    crops_split("town.json", "scenes", "crops.json", f"crops {overlap}", *sizes)
    found = json.loads(Path("crops.json").read_text())
    images = Counter(image["file_name"] for image in found["images"])
    files = len(list(Path(f"crops {overlap}").iterdir()))
    return [len(houses), files, sum(images.values()), len(found["annotations"]),
            sorted(set(images.values()))]


seen = {overlap: split(overlap) for overlap in (0, 32, 64)}
for overlap, (houses, files, images, listed, times) in seen.items():
    print("overlap of", overlap, "pixels:", houses, "houses,", files, "files,", images,
          "images listed", times, "times,", listed, "houses listed")
assert seen[0] == [16, 16, 16, 16, [1]]
assert seen[32][:3] == [25, 25, 25] and seen[32][4] == [1]
assert seen[64] == [25, 25, 36, 36, [1, 2, 4]]
PYTHON
