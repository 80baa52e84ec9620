#!/usr/bin/env bash
# pybboxes reads houses of a COCO file as sheds, and sheds as garages.
#
# Guess before the run: a box of a COCO file has the class whose id it names, so that the YOLO and
# VOC files made of it name houses houses.
# Seen: of classes 1 house, 2 shed and 3 garage a house is read as shed and a shed as garage; the
# VOC file says so, and the YOLO file has classes 1 and 2 of a list where 0 is the house. Of classes
# 0 house and 1 shed that the file lists the other way round, the two are swapped. A box of the
# highest id is an IndexError: files pass where no tile has the last class. The COCO file that it
# writes lists a tile once for each of its houses. There is no message.
# Versions: pybboxes 0.2.0, pycocotools 2.0.10, numpy 1.26.4. Source: pybboxes/annotations/base.py:
# load_from_coco takes the names of the classes in the order of the file and looks up category_id
# as a place in that list; save_as_coco appends an image within the loop over its boxes.
# Hurt: who converts labels of kinds of buildings with ids from 1, as COCO's own and most exports
# have: detectors learn sheds from houses, and counts of images are counts of houses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==1.26.4 pycocotools==2.0.10 \
  pyyaml==6.0.3
venv/bin/pip install --quiet --disable-pip-version-check --no-deps pybboxes==0.2.0
venv/bin/python - <<'PYTHON'
import contextlib
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

from pybboxes.annotations import Annotations


def read(classes, kinds):
    boxes = [{"id": place, "image_id": 1, "category_id": kind, "bbox": [20 * place, 10, 10, 10],
              "area": 100, "iscrowd": 0} for place, kind in enumerate(kinds)]
    image = {"id": 1, "file_name": "tile.png", "width": 200, "height": 100}
    categories = [{"id": number, "name": name} for number, name in classes]
    Path("in.json").write_text(
        json.dumps({"images": [image], "annotations": boxes, "categories": categories}))
    labels = Annotations(annotation_type="coco")
    with contextlib.redirect_stdout(io.StringIO()):
        labels.load_from_coco("in.json")
    labels.save_as_voc("voc")
    names = [item.text for item in ET.parse("voc/tile.xml").iter("name")]
    truth = dict(classes)
    print([truth[kind] for kind in kinds], "become", names)
    return labels, names


labels, names = read([(1, "house"), (2, "shed"), (3, "garage")], [1, 1, 2])
assert names == ["shed", "shed", "garage"]
labels.save_as_yolo("yolo")
lines = [line.split()[0] for line in Path("yolo/tile.txt").read_text().splitlines()]
print("YOLO has classes", lines, "of", Path("yolo/classes.txt").read_text().split())
assert lines == ["1", "1", "2"]
labels.save_as_coco("out.json")
written = json.loads(Path("out.json").read_text())
print(len(written["images"]), "images of one")
assert [image["id"] for image in written["images"]] == [0, 0, 0]

assert read([(1, "shed"), (0, "house")], [0, 1])[1] == ["shed", "house"]
try:
    read([(1, "house"), (2, "shed")], [2])
except IndexError as error:
    print("the highest id:", error)
else:
    raise SystemExit("the highest id is read")
PYTHON
