#!/usr/bin/env bash
# Scale Nucleus' metrics place a house drawn as a box half a house beside the polygon of the same.
#
# Guess before the run: the metrics for boxes and polygons compare the areas that both cover; x and
# y of a box are the distances of its left and top borders, as the class documents them.
# Seen: a box and the polygon of its four corners have an IoU of 1/7 (0.143); precision, recall and
# average precision of such a prediction are 0. A box and a polygon agree where they are half a
# house apart: x and y are taken as the middle of the box. Boxes compared with boxes, and polygons
# with polygons, have 1.0, so that a test with one kind shows nothing.
# Versions: scale-nucleus 0.22.3, shapely 2.1.2. Source: polygon_annotation_to_shape in
# nucleus/metrics/polygon_utils.py (annotation.x - annotation.width / 2).
# Hurt: who has labels as boxes and a model that predicts outlines, or the other way round: each
# building is missed, and the mean IoU says that the model is useless.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  "scale-nucleus[metrics]==0.22.3" shapely==2.1.2 numpy==2.2.6
cat > measure.py <<'PYTHON'
from nucleus import BoxAnnotation, BoxPrediction, Point, PolygonAnnotation, PolygonPrediction
from nucleus.annotation import AnnotationList
from nucleus.metrics import PolygonAveragePrecision, PolygonIOU, PolygonPrecision, PolygonRecall
from nucleus.prediction import PredictionList

named = {"label": "house", "reference_id": "tile"}


def corners(x, y):
    return [Point(x, y), Point(x + 10, y), Point(x + 10, y + 8), Point(x, y + 8)]


def box(x, y):
    return {"x": x, "y": y, "width": 10, "height": 8}


box_truth = AnnotationList(box_annotations=[BoxAnnotation(**named, **box(100, 200))])
polygon_truth = AnnotationList(
    polygon_annotations=[PolygonAnnotation(**named, vertices=corners(100, 200))]
)


def predicted(kind, x, y):
    if kind == "box":
        return PredictionList(box_predictions=[BoxPrediction(**named, **box(x, y), confidence=0.9)])
    outline = PolygonPrediction(**named, vertices=corners(x, y), confidence=0.9)
    return PredictionList(polygon_predictions=[outline])


def measured(truth, prediction):
    metrics = (
        PolygonIOU(), PolygonPrecision(), PolygonRecall(), PolygonAveragePrecision(label="house"),
    )
    return [round(float(metric(truth, prediction).value), 3) for metric in metrics]


values = {
    "box, box": measured(box_truth, predicted("box", 100, 200)),
    "polygon, polygon": measured(polygon_truth, predicted("polygon", 100, 200)),
    "box, polygon": measured(box_truth, predicted("polygon", 100, 200)),
    "polygon, box": measured(polygon_truth, predicted("box", 100, 200)),
    "box, polygon half a house away": measured(box_truth, predicted("polygon", 95, 196)),
}
print("IoU, precision, recall, average precision")
for name, value in values.items():
    print(f"{name:32} {value}")
assert list(values.values()) == [[1] * 4, [1] * 4, [0.143, 0, 0, 0], [0.143, 0, 0, 0], [1] * 4]
PYTHON
venv/bin/python -W ignore measure.py
