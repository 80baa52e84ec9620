#!/usr/bin/env bash
# COCO-Assistant's masks give a house the class of any other object that has the same area.
#
# Guess before the run: get_segmasks paints each object with the number of its category, small
# objects over large ones, as the masks of a semantic segmentation are.
# Seen: of a tile with a house of 200 pixels, a hall, a pool of 200 pixels elsewhere and a solar
# panel, the house has class 3, that of the pool; with a pool of 190 pixels all are right. The
# order of painting is a number per area, and the class a table by this number: the last annotation
# of an area decides for all. In a row of equal houses in which one is a garage, all are garages or
# none is. There is no message. (palette=False, since the palette does not open with Pillow 12.)
# Versions: coco-assistant 0.3.5, pycocotools 2.0.11, Pillow 12.0.0, numpy 2.4.6. Source:
# coco_assistant/utils/det2seg.py, area_id_map; a comment there says that areas are unique.
# Hurt: who trains land cover on COCO labels: areas in whole pixels of drawn rectangles repeat in
# nearly each tile, and the classes of roofs are mixed up by chance.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check coco-assistant==0.3.5 pycocotools==2.0.11 \
  pillow==12.0.0 numpy==2.4.6
MPLBACKEND=agg venv/bin/python -W ignore - 2> errors <<'PYTHON' || { cat errors; exit 1; }
import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
from coco_assistant import COCO_Assistant
from PIL import Image

CLASSES = {"house": 1, "garage": 2, "pool": 3, "panel": 4}


def painted(objects):
    """Return the class in the middle of each object, given as class, west, north, width, height."""
    for name in ("images", "annotations", "results"):
        shutil.rmtree(name, ignore_errors=True)
    Path("images/town").mkdir(parents=True)
    Path("annotations").mkdir()
    Image.new("RGB", (120, 100)).save("images/town/tile.png")
    annotations = [
        {"id": number, "image_id": 1, "category_id": CLASSES[name], "iscrowd": 0,
         "bbox": [x, y, w, h], "area": w * h,
         "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
        for number, (name, x, y, w, h) in enumerate(objects, start=1)]
    Path("annotations/town.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "tile.png", "width": 120, "height": 100}],
        "categories": [{"id": number, "name": name} for name, number in CLASSES.items()],
        "annotations": annotations}))
    with contextlib.redirect_stdout(io.StringIO()):
        COCO_Assistant(Path("images"), Path("annotations")).get_segmasks(palette=False)
    (mask,) = Path().glob("results/segmasks/town/*.png")
    mask = np.asarray(Image.open(mask))
    return [int(mask[y + h // 2, x + w // 2]) for _, x, y, w, h in objects]


town = [("house", 10, 10, 20, 10), ("house", 60, 10, 30, 30), ("panel", 65, 15, 5, 5)]
seen = {
    "pool of 190 pixels": painted([*town, ("pool", 10, 60, 19, 10)]),
    "pool of 200 pixels": painted([*town, ("pool", 10, 60, 10, 20)]),
    "row": painted([("house", 10 + 12 * place, 10, 10, 10) for place in range(6)]
                   + [("garage", 82, 10, 10, 10)]),
}
for name, found in seen.items():
    print(f"{name}:", *found)
assert seen["pool of 190 pixels"] == [1, 1, 4, 3]
assert seen["pool of 200 pixels"] == [3, 1, 4, 3]
assert seen["row"] == [2] * 7
PYTHON
