#!/usr/bin/env bash
# mean-average-precision rates boxes in parts of the image as found, wherever they are.
#
# Guess before the run: intersection over union has no unit, so boxes in pixels and the same boxes
# divided by the size of the image, as YOLO writes them, have the same average precision.
# Seen: of three houses of 40 x 40 pixels in an image of 1,000 that are predicted beside where they
# stand, without any overlap, it is 0 in pixels and 1.0 in parts of the image. In metres, houses of
# 10 x 10 that are predicted with 63 % of their area have 1.0 at a threshold of 0.65. One is added
# to each width and height, as for boxes whose last pixel is included, which the README does not
# say. No message.
# Versions: mean-average-precision 2024.1.5.0, numpy 2.2.6, pandas 2.3.3. Source:
# mean_average_precision/utils.py, compute_iou: the sides are the differences of coordinates plus 1.
# Hurt: who rates detected buildings in relative coordinates, degrees or metres: any prediction is
# nearly perfect, however wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mean-average-precision==2024.1.5.0 \
  numpy==2.2.6 pandas==2.3.3
venv/bin/python -W ignore - <<'PYTHON'
import numpy as np
from mean_average_precision import MetricBuilder


def precision(predicted, true, threshold):
    """Return the average precision of boxes (xmin, ymin, xmax, ymax) with equal scores."""
    metric = MetricBuilder.build_evaluation_metric("map_2d", async_mode=False, num_classes=1)
    metric.add(np.c_[predicted, np.zeros(len(predicted)), np.full(len(predicted), 0.9)],
               np.c_[true, np.zeros((len(true), 3))])
    value = metric.value(iou_thresholds=threshold, recall_thresholds=np.arange(0, 1.01, 0.01),
                         mpolicy="soft")
    return round(float(value["mAP"]), 2)


true = np.array([[100, 100, 140, 140], [400, 100, 440, 140], [700, 500, 740, 540]], float)
beside = true + 60
seen = {"pixels": precision(beside, true, 0.5), "parts": precision(beside / 1000, true / 1000, 0.5)}
print("average precision of boxes beside the houses, in pixels and in parts:", seen)
assert seen == {"pixels": 0, "parts": 1}
house, part = np.array([[0, 0, 10, 10]], float), np.array([[0, 0, 10, 6.3]])
seen = [precision(scale * part, scale * house, 0.65) for scale in (1, 10)]
print("a house of which 63 % are found, at 0.65, in metres and in decimetres:", seen)
assert seen == [1, 0]
PYTHON
