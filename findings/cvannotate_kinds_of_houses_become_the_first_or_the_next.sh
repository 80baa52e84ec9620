#!/usr/bin/env bash
# cvannotate gives all houses of VOC the first class, and those of COCO the next one.
#
# Guess before the run: VOC files with their names of classes, and a COCO file with its categories,
# become YOLO, VOC and COCO of the same classes, for which the list of names is given.
# Seen: a house, a shed and a hall of a VOC file, with -c house,shed,hall, are three houses in YOLO,
# in COCO and in VOC again. From a COCO file with the usual ids from 1, classes are 1, 2 and 3 in
# YOLO for three names, counted from 0: houses are sheds, sheds are halls. As VOC a tile of houses
# and sheds holds sheds and halls by name; from COCO to COCO ids stay and the names move by one. A
# tile without annotation of the COCO file is gone. There is no message.
# Versions: cvannotate 1.0.0 (PyPI). Source: read_voc in cvannotate/converters/voc.py looks for
# name_id, which VOC has not, and takes 0; read_coco in coco.py beside it leaves "categories" alone.
# Hurt: who converts labels of several kinds of roofs: a model learns one kind, or the wrong ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cvannotate==1.0.0
cat > tile.xml <<'XML'
<annotation><filename>tile</filename><size><width>100</width><height>100</height>
<depth>3</depth></size>
<object><name>house</name><bndbox><xmin>10</xmin><ymin>10</ymin><xmax>30</xmax>
<ymax>30</ymax></bndbox></object>
<object><name>shed</name><bndbox><xmin>40</xmin><ymin>10</ymin><xmax>50</xmax>
<ymax>20</ymax></bndbox></object>
<object><name>hall</name><bndbox><xmin>60</xmin><ymin>10</ymin><xmax>90</xmax>
<ymax>60</ymax></bndbox></object></annotation>
XML
cat > tiles.json <<'JSON'
{"images": [{"id": 1, "file_name": "tile", "width": 100, "height": 100},
            {"id": 2, "file_name": "empty", "width": 100, "height": 100}],
 "categories": [{"id": 1, "name": "house"}, {"id": 2, "name": "shed"}, {"id": 3, "name": "hall"}],
 "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]},
                 {"id": 2, "image_id": 1, "category_id": 2, "bbox": [40, 10, 10, 10]}]}
JSON
for source in voc:tile.xml coco:tiles.json; do
  for target in yolo voc coco; do
    venv/bin/cvannotate convert -i "${source#*:}" --from-format "${source%:*}" -f "$target" \
      -o "${source%:*}_$target" -c house,shed,hall
  done
done
venv/bin/python - <<'PYTHON'
import json
import re
from pathlib import Path


def yolo(folder):
    return [int(line.split()[0]) for line in (folder / "tile.txt").read_text().splitlines()]


def voc(folder):
    return re.findall("<name>(.*?)</name>", (folder / "tile.xml").read_text())


def coco(folder):
    data = json.loads((folder / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in data["categories"]}
    return len(data["images"]), [names[a["category_id"]] for a in data["annotations"]]


readers = {"yolo": yolo, "voc": voc, "coco": coco}
seen = {
    (source, target): read(Path(f"{source}_{target}"))
    for source in ("voc", "coco")
    for target, read in readers.items()
}
for way, result in seen.items():
    print(*way, result)
assert seen == {
    ("voc", "yolo"): [0, 0, 0],
    ("voc", "voc"): ["house"] * 3,
    ("voc", "coco"): (1, ["house"] * 3),
    ("coco", "yolo"): [1, 2],
    ("coco", "voc"): ["shed", "hall"],
    ("coco", "coco"): (1, ["shed", "hall"]),
}
PYTHON
