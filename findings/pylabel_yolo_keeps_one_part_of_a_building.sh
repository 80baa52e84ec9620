#!/usr/bin/env bash
# PyLabel's YOLO export keeps the first part of a building and drops the others.
#
# Guess before the run: an outline of two parts, as COCO has it where a road or a tree cuts a
# building, becomes two lines or one polygon that joins them; or it raises, since a line of YOLO is
# one polygon.
# Seen: the line of a building of 100 and 400 pixels is the part of 100, which is the first; a fifth
# of the roof is left, and the plain house beside it is right. There is no message. The COCO export
# of the same data set has both parts, so a look at the data does not show it.
# Versions: pylabel 0.1.55, pandas 2.3.3. Source: pylabel/exporter.py, ExportToYoloV5
# (ann_segmentation[0]).
# Hurt: who trains YOLO on COCO labels of buildings, such as CrowdAI's or those of a mask that was
# traced: large buildings lose wings, and the order of the parts decides which.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pandas==2.3.3 numpy==2.2.6 pyyaml==6.0.3 tqdm==4.67.1 \
  scikit-learn==1.7.2 matplotlib==3.10.7 opencv-python-headless==4.12.0.88 ipywidgets==8.1.8 anywidget==0.11.0 shapely==2.1.2
venv/bin/pip install --quiet --disable-pip-version-check --no-deps pylabel==0.1.55 bbox-visualizer==0.2.0 jupyter_bbox_widget==0.6.0
venv/bin/python -W ignore - <<'PYTHON'
import json
from pathlib import Path
import shapely
from pylabel import importer

SIZE = 100


def outline(*bounds):
    return [value for point in shapely.box(*bounds).exterior.coords[:-1] for value in point]


buildings = ([outline(10, 10, 15, 30), outline(40, 10, 60, 30)], [outline(10, 60, 20, 70)])
annotations = [
    {"id": number, "image_id": 1, "category_id": 0, "iscrowd": 0, "area": 500,
     "bbox": [10, 10, 50, 20], "segmentation": parts}
    for number, parts in enumerate(buildings, 1)
]
Path("labels.json").write_text(json.dumps({
    "images": [{"id": 1, "file_name": "scene.png", "width": SIZE, "height": SIZE}],
    "categories": [{"id": 0, "name": "building"}],
    "annotations": annotations,
}))
labels = importer.ImportCoco("labels.json")
labels.export.ExportToCoco(output_path="again.json")
again = json.loads(Path("again.json").read_text())
kept = [len(building["segmentation"]) for building in again["annotations"]]
labels.export.ExportToYoloV5(output_path="yolo/labels", segmentation=True)
areas = []
for line in Path("yolo/labels/scene.txt").read_text().splitlines():
    values = [float(value) * SIZE for value in line.split()[1:]]
    areas.append(round(shapely.Polygon(list(zip(values[::2], values[1::2], strict=True))).area))
print("parts in COCO:", kept, "areas in YOLO:", areas, "of 500 and 100")
assert kept == [2, 1]
assert areas == [100, 100]
PYTHON
