#!/usr/bin/env bash
# Scale Nucleus' average precision of polygons is the same for well and badly sorted predictions.
#
# Guess before the run: with two houses, one found and one false prediction, average precision is
# 0.5 where the right one has the higher score, and 0.25 where the false one has, as in VOC.
# Seen: PolygonAveragePrecision and PolygonMAP are 0.25 in both cases. One of two houses found is
# 0.5; a false prediction of a low score behind it makes it 0.25, and nine of them 0.05, where 0.5
# would stay: the curve of precisions is handed over as that of recalls, and the other way round.
# Besides, PolygonAveragePrecision of a label counts recall over the objects of all labels: a house
# and a pool, both found, have 0.5 for the houses. PolygonMAP, which splits by label, has 1.0.
# Versions: scale-nucleus 0.22.3, shapely 2.1.2. Source: nucleus/metrics/polygon_metrics.py,
# PolygonAveragePrecision.eval, which calls compute_average_precision(recall, precision) of
# metric_utils.py with (precisions, recalls), and divides by len(annotations) of all labels.
# Hurt: who chooses a model by it: a model that knows what it does not know gains nothing, and one
# that keeps predictions of low scores loses.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  "scale-nucleus[metrics]==0.22.3" shapely==2.1.2 numpy==2.2.6
cat > measure.py <<'PYTHON'
from nucleus import Point, PolygonAnnotation, PolygonPrediction
from nucleus.annotation import AnnotationList
from nucleus.metrics import PolygonAveragePrecision, PolygonMAP
from nucleus.prediction import PredictionList


def outline(x):
    return [Point(x, 0), Point(x + 10, 0), Point(x + 10, 10), Point(x, 10)]


def measured(metric, truth, predictions):
    """Of {x: label} and [(x, label, score)], for squares at x of a tile."""
    annotations = AnnotationList(polygon_annotations=[
        PolygonAnnotation(label=label, vertices=outline(x), reference_id="tile")
        for x, label in truth.items()
    ])
    found = PredictionList(polygon_predictions=[
        PolygonPrediction(label=label, vertices=outline(x), reference_id="tile", confidence=score)
        for x, label, score in predictions
    ])
    return round(float(metric(annotations, found).value), 3)


houses = {0: "house", 20: "house"}
both = {0: "house", 20: "pool"}
right = (0, "house", 0.9)
values = {
    "one of two found": measured(PolygonMAP(), houses, [right]),
    "and a false one of a lower score":
        measured(PolygonMAP(), houses, [right, (40, "house", 0.1)]),
    "and a false one of a higher score":
        measured(PolygonMAP(), houses, [right, (40, "house", 0.95)]),
    "and nine false ones of lower scores":
        measured(PolygonMAP(), houses, [right, *((40 + 20 * n, "house", 0.1) for n in range(9))]),
    "a house and a pool, both found": measured(PolygonMAP(), both, [right, (20, "pool", 0.9)]),
    "of these, the houses alone":
        measured(PolygonAveragePrecision("house"), both, [right, (20, "pool", 0.9)]),
}
for name, value in values.items():
    print(f"{name:36} {value}")
assert list(values.values()) == [0.5, 0.25, 0.25, 0.05, 1, 0.5]
PYTHON
venv/bin/python -W ignore measure.py
