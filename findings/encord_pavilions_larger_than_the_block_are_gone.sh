#!/usr/bin/env bash
# Encord's COCO export loses the pavilion in a yard if it is larger than the block around it.
#
# Guess before the run: the mask of a building of two polygons, a block with a yard and a pavilion
# in the yard, is both, and its area theirs to a pixel along the walls.
# Seen: of a block of 2,400 pixels with a pavilion of 900 the mask is both. Of a narrower block of
# 1,056 with a pavilion of 3,364 it is the block alone, 1,072 pixels of 4,420, in each order of the
# two polygons. The box, that of the outer wall, does not show it, and area agrees with the mask.
# Versions: encord 0.1.211, pycocotools 2.0.11. Source: utilities/coco/exporter.py,
# get_rle_segmentation_from_multipolygon draws the polygons from large to small so that what lies
# in a yard comes after its block, but by their areas without the yards; a larger pavilion comes
# first, and the yard is cleared after it.
# Hurt: who trains on labels of Encord: markets, halls and towers in narrow blocks, or roofs in the
# ring of a gallery, are ground.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME="$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check encord==0.1.211 pycocotools==2.0.11 \
  numpy==1.26.4 shapely==2.0.7 opencv-python-headless==4.11.0.86
venv/bin/python - <<'PYTHON'
from encord.objects.common import Shape
from encord.objects.ontology_structure import OntologyStructure
from encord.utilities.coco.exporter import CocoExporter
from pycocotools import mask as masks

SIDE = 100
ontology = OntologyStructure()
building = ontology.add_object("building", Shape.POLYGON)


def square(low, high):
    """Return a ring of Encord: x and y in turn, as parts of the tile."""
    corners = ((low, low), (high, low), (high, high), (low, high))
    return [value / SIDE for corner in corners for value in corner]


def exported(polygons):
    """Return the COCO annotation of a tile with one building of these polygons."""
    label = {
        "shape": "polygon", "featureHash": building.feature_node_hash, "name": "building",
        "value": "building", "objectHash": "house", "manualAnnotation": True,
        "polygons": polygons, "polygon": {},
    }
    unit = {
        "data_hash": "tile", "data_type": "image/png", "data_link": "tile.png",
        "data_title": "tile.png", "width": SIDE, "height": SIDE,
        "labels": {"objects": [label], "classifications": []},
    }
    row = {
        "data_type": "image", "data_title": "tile", "data_hash": "tile",
        "object_answers": {"house": {"objectHash": "house", "classifications": []}},
        "object_actions": {}, "classification_answers": {}, "data_units": {"tile": unit},
    }
    (annotation,) = CocoExporter([row], ontology).export()["annotations"]
    return annotation


blocks = {
    "small pavilion": ([square(10, 80), square(20, 70)], [square(30, 60)], 2400 + 900),
    "large pavilion": ([square(10, 80), square(14, 76)], [square(16, 74)], 1056 + 3364),
}
for name, (block, pavilion, area) in blocks.items():
    for polygons in ([block, pavilion], [pavilion, block]):
        found = exported(polygons)
        drawn = int(masks.decode(found["segmentation"]).sum())
        print(f"{name}: {area} by its outlines, {drawn} pixels, area {found['area']:.0f}")
        assert found["area"] == drawn and found["bbox"] == [10, 10, 71, 71]
        assert drawn == (3401 if name == "small pavilion" else 1072)
PYTHON
