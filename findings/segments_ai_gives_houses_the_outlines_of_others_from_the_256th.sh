#!/usr/bin/env bash
# Segments.ai's polygons of a tile with 300 houses: 44 houses lend theirs to others, and 45 have none.
#
# Guess before the run: the export "polygon" of a dataset of bitmaps has the outlines of the pixels
# of each object, as the exports "coco-instance" and "coco-panoptic" of one bitmap have them.
# Seen: the bitmap is cut to 8 bits and then compared with the numbers of the objects. House 1 has
# its own outline and that of house 257, and so on up to 44; the houses from 256 on have an empty
# list. Without a word: 255 of 300 houses have polygons, 44 of these in two places, 320 pixels
# apart. The masks of "coco-instance" are right for all 300.
# Versions: segments-ai 1.33.0, opencv-python-headless 4.13.0.92, scikit-image 0.26.0. Source:
# segments/export.py, export_polygon, segmentation_bitmap_uint8 == instance["id"].
# Hurt: who labels towns there and trains on the polygons: dense tiles have more than 255 houses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check segments-ai==1.33.0 \
  opencv-python-headless==4.13.0.92 scikit-image==0.26.0 pycocotools==2.0.11 numpy==2.4.6
venv/bin/python -W ignore - <<'PYTHON'
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as masks
from segments import SegmentsDataset
from segments.utils import export_dataset

HOUSES = 300
# A release of the platform with its files beside it, as the library keeps them after a download.
bitmap = np.zeros((240, 320), np.uint32)
places = {}
for number in range(1, HOUSES + 1):
    row, column = divmod(number - 1, 20)
    places[number] = (column * 16 + 2, row * 16 + 2)
    bitmap[row * 16 + 2 : row * 16 + 12, column * 16 + 2 : column * 16 + 12] = number
files = Path("segments", "us_town", "v1")
files.mkdir(parents=True)
Image.new("RGB", (320, 240)).save(files / "tile.png")
Image.fromarray(bitmap.astype(np.uint16)).save(files / "tile_label_ground-truth.png")
url = "https://example.org/tile.png"
annotations = [{"id": number, "category_id": 1} for number in places]
label = {"label_status": "LABELED", "attributes": {
    "annotations": annotations, "segmentation_bitmap": {"url": url}, "format_version": "0.1"}}
sample = {"uuid": "1", "name": "tile.png", "metadata": {}, "attributes": {"image": {"url": url}},
          "labels": {"ground-truth": label}}
release = {"name": "v1", "dataset": {
    "name": "town", "owner": "us", "task_type": "segmentation-bitmap", "samples": [sample],
    "labelsets": [{"name": "ground-truth"}],
    "task_attributes": {"format_version": "0.1", "categories": [{"id": 1, "name": "building"}]}}}
Path("release.json").write_text(json.dumps(release))
dataset = SegmentsDataset("release.json")


def exported(form):
    file, _ = export_dataset(dataset, ".", form)
    return json.loads(Path(file).read_text())["annotations"]


def where(outline):
    return tuple(np.min(outline, axis=0).tolist())


for number, one in enumerate(exported("coco-instance"), start=1):
    assert np.array_equal(masks.decode(one["segmentation"]), bitmap == number)
outlines = {number: [where(outline) for outline in one["polygons"]]
            for number, one in enumerate(exported("polygon"), start=1)}
for number in (1, 44, 45, 255, 256, 257, 300):
    print("house", number, "at", places[number], "has outlines at", outlines[number])
own = [number for number in places if outlines[number] == [places[number]]]
two = [number for number in places if number + 256 in places
       and set(outlines[number]) == {places[number], places[number + 256]}]
none = [number for number in places if not outlines[number]]
print("houses with their own outline alone:", len(own), "with two:", len(two), "with none:", len(none))
assert own == list(range(45, 256)) and two == list(range(1, 45)) and none == list(range(256, 301))
apart = max(np.hypot(*np.subtract(*outlines[number])) for number in two)
print("the two outlines of a house are up to", round(float(apart)), "pixels apart")
PYTHON
