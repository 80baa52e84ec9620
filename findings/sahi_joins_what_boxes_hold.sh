#!/usr/bin/env bash
# sahi joins buildings that do not touch where the box of one lies in the box of the other.
#
# Guess before the run: of predictions with masks, the default of sliced prediction (GREEDYNMM with
# IOS, threshold 0.5) joins those whose masks share half of the smaller one.
# Seen: it measures boxes and joins masks. A shed in the corner of an L-shaped house, 70 pixels from
# its walls, becomes part of it, and NMS with IOS drops the shed. Two barns side by side at 45
# degrees, with 24 pixels between them, become one building. Nothing is said. With IOU all buildings
# stay here; with less space between the barns it joins them, too.
# Versions: sahi 0.12.8. Source: object_prediction_list_to_numpy in sahi/postprocess/utils.py, which
# takes bbox.to_xyxy() alone; defaults in sahi/predict.py, get_sliced_prediction.
# Hurt: who counts buildings of large images by instance segmentation: in quarters at an angle to
# the image and in courtyards, neighbours are one object, and sheds are lost.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sahi==0.12.8
venv/bin/python - <<'PYTHON'
from sahi.postprocess.combine import GreedyNMMPostprocess, NMSPostprocess
from sahi.prediction import ObjectPrediction
from shapely import Polygon, affinity, box


def building(polygon, score):
    ring = [number for corner in polygon.exterior.coords[:-1] for number in corner]
    return ObjectPrediction(bbox=list(polygon.bounds), segmentation=[ring], score=score,
                            category_id=0, category_name="building", full_shape=[400, 400])


house = Polygon([(100, 100), (300, 100), (300, 130), (130, 130), (130, 300), (100, 300)])
shed = box(200, 200, 240, 240)
barns = [affinity.rotate(box(100, y, 300, y + 20), 45, origin=(200, 200)) for y in (150, 194)]
print("gaps in pixels:", house.distance(shed), round(barns[0].distance(barns[1]), 1))
seen = {}
for scene, polygons in {"house and shed": [house, shed], "barns": barns}.items():
    for method in (GreedyNMMPostprocess, NMSPostprocess):
        for metric in ("IOS", "IOU"):
            found = [building(polygon, 0.9 - 0.1 * k) for k, polygon in enumerate(polygons)]
            kept = method(match_threshold=0.5, match_metric=metric)(found)
            seen[scene, method.__name__.removesuffix("Postprocess"), metric] = len(kept)
for key, count in seen.items():
    print(*key, "buildings:", count)
assert seen == {
    ("house and shed", "GreedyNMM", "IOS"): 1, ("house and shed", "GreedyNMM", "IOU"): 2,
    ("house and shed", "NMS", "IOS"): 1, ("house and shed", "NMS", "IOU"): 2,
    ("barns", "GreedyNMM", "IOS"): 1, ("barns", "GreedyNMM", "IOU"): 2,
    ("barns", "NMS", "IOS"): 1, ("barns", "NMS", "IOU"): 2,
}
PYTHON
