#!/usr/bin/env bash
# fastlabel draws what two classes share as a third class, and joins rings with a number of a class.
#
# Guess before the run: in a mask of classes each pixel has one of those that were drawn there, a
# YOLO line holds one ring after its class, and the COCO box of a turned house holds the house.
# Seen: where a house (1) and a shed (2) overlap by 300 pixels, the mask has 300 pixels of towers
# (3), though the only tower stands elsewhere; masks of instances give them to the third building.
# With classes=, a house of two rings, a block with its yard or two wings, is one line of YOLO with
# the class once more between the rings: 21 numbers after the class, so that the 11th, a class, is
# the x of a corner, and all that follow are exchanged. A house of 40 by 10 pixels turned by 90
# degrees has a box of 40 by 10 in COCO and YOLO, not 10 by 40. There is no message.
# Versions: fastlabel 0.26.0 (the latest), numpy 2.3.5. Source: __init__.py,
# __export_index_color_image: image | seg_mask_image of numbers; converters.py, to_yolo joins what
# __segmentation2yolo returns, one line for each ring, with spaces; __get_coco_annotation compares
# the name of a type with a member of an Enum, so that __get_coco_bbox is never called.
# Hurt: who trains on labels of FastLabel: houses of a kind appear where two others meet, yards are
# parts of houses whose outlines cross the tile, and turned boxes lie across their houses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME="$folder" FASTLABEL_ACCESS_TOKEN=none
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps fastlabel==0.26.0
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.3.5 geojson==3.2.0 \
  xmltodict==0.12.0 pillow==11.3.0 opencv-python-headless==4.11.0.86 requests==2.32.5
cat > labels.py <<'PYTHON'
import fastlabel
import numpy as np
from fastlabel import converters
from PIL import Image

CLASSES = ["house", "shed", "tower"]


def square(west, north, east, south):
    """Return the ring of a rectangle."""
    return [west, north, east, north, east, south, west, south, west, north]


def tile(*labels):
    """Return a task of one tile with labels: class, type, points and rotation."""
    annotations = [
        {"value": value, "type": kind, "points": points, "rotation": rotation, "attributes": [],
         "color": "#ff0000"} for value, kind, points, rotation in labels
    ]
    return {"name": "tile.png", "width": 100, "height": 100, "annotations": annotations}


drawn = {"house": square(10, 10, 40, 40), "shed": square(30, 10, 60, 40),
         "tower": square(70, 70, 90, 90)}
town = tile(*[(value, "segmentation", [[ring]], 0) for value, ring in drawn.items()])
client = fastlabel.Client()
for export, options in [
    (client.export_semantic_segmentation, {"classes": CLASSES}),
    (client.export_instance_segmentation, {}),
]:
    export([town], output_dir="masks", **options)
    mask = np.array(Image.open("masks/tile.png"))
    counts = np.bincount(mask.ravel()).tolist()
    print(export.__name__, counts, "in the overlap", np.unique(mask[10:40, 30:40]))
    assert counts == [8100, 600, 600, 700] and (mask[10:40, 30:40] == 3).all()

yard = [20, 20, 20, 40, 40, 40, 40, 20, 20, 20]
for name, points in [
    ("yard", [[square(10, 10, 50, 50), yard]]),
    ("wings", [[square(10, 10, 50, 50)], [square(60, 10, 70, 20)]]),
]:
    house = tile(("house", "segmentation", points, 0))
    ((line,),) = [one["object"] for one in
                  converters.to_yolo("image_segmentation", [house], CLASSES, "out")[0]]
    print(name, line)
    assert line.split()[11] == "0" and len(line.split()) == 22
    lines = converters.to_yolo("image_segmentation", [house], [], "out")[0][0]["object"]
    assert [len(one.split()) for one in lines] == [11] * len(points)

turned = tile(("house", "bbox", [30, 45, 70, 55], 90))
box = converters.to_coco("image_bbox", [turned], "out")["annotations"][0]["bbox"]
lines = [converters.to_yolo("image_bbox", [turned], classes, "out")[0][0]["object"]
         for classes in (CLASSES, [])]
print("turned", box, lines)
assert box == [30, 45, 40, 10] and lines == [["0 0.5 0.5 0.4 0.1"]] * 2
PYTHON
venv/bin/python labels.py
