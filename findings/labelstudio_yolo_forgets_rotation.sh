#!/usr/bin/env bash
# Label Studio's YOLO export writes a turned rectangle as if it had not been turned.
#
# Guess before the run: a rectangle turned by 45 degrees becomes its four corners, or the upright box
# around them, as in the COCO export of the same library.
# Seen: the box has the width, height and place of the rectangle before it was turned about its upper
# left corner: centre (70, 30) where the turned one has its centre at (57.1, 41.2), in pixels of 100.
# A quarter of the building lies in the box. Only the separate export YOLO OBB turns it.
# Versions: label-studio-sdk 2.1.2. Source: label_studio_sdk/converter/converter.py, convert_to_yolo.
# Hurt: who draws buildings as turned rectangles, the usual way for houses, and exports YOLO.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check label-studio-sdk==2.1.2 shapely==2.1.2
venv/bin/python - <<'PYTHON'
import json
from pathlib import Path
import numpy as np
import shapely
from label_studio_sdk.converter import Converter

turned = {"x": 50, "y": 20, "width": 40, "height": 20, "rotation": 45,
          "rectanglelabels": ["building"]}
region = {"id": "r", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
          "original_width": 100, "original_height": 100, "image_rotation": 0, "value": turned}
task = {"id": 1, "data": {"image": "/data/upload/1/0123abcd-a.png"},
        "annotations": [{"id": 1, "completed_by": 1, "was_cancelled": False, "result": [region]}]}
Path("export.json").write_text(json.dumps([task]))
config = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="building"/></RectangleLabels></View>'
)
converter = Converter(config, ".", download_resources=False)
converter.convert_to_yolo("export.json", "yolo", output_image_dir="yolo/images", is_dir=False)
converter.convert_to_coco("export.json", "coco", output_image_dir="coco/images", is_dir=False)
(line,) = Path("yolo/labels/0123abcd-a.txt").read_text().splitlines()
x, y, width, height = (100 * float(number) for number in line.split()[1:])
box = shapely.box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
along, across = np.array([1, 1]) / 2**0.5 * 40, np.array([-1, 1]) / 2**0.5 * 20
corner = np.array([50, 20])
true = shapely.Polygon([corner, corner + along, corner + along + across, corner + across])
share = true.intersection(box).area / true.area
left, top, wide, high = json.loads(Path("coco/result.json").read_text())["annotations"][0]["bbox"]
around = shapely.box(left, top, left + wide, top + high)
print("YOLO box", box.bounds, "holds", round(share, 3), "of the building", true.bounds)
print("COCO box", around.bounds)
assert np.allclose(box.bounds, (50, 20, 90, 40)) and share < 0.5
assert around.buffer(0.01).contains(true)
PYTHON
