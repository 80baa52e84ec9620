#!/usr/bin/env bash
# rslearn reports a precision and a recall of 1 for a detector that has both at no threshold.
#
# Guess before the run: enable_precision_recall gives the precision and the recall that belong to
# the best F1, or those at one threshold: of 10 houses found with a score of 0.9, 10 with 0.3, and
# 60 false ones with 0.5, the best F1, 0.67, has a precision of 1 and a recall of 0.5.
# Seen: F1 0.67, precision 1 and recall 1: each is the best of its own over the thresholds from 0.05
# to 0.95, so the recall is always that of the lowest threshold, where the precision is 0.25. With
# one threshold in the list all three agree. Its docstring speaks of the best F1 only.
# Versions: rslearn 0.1.19, torch 2.13.0. Source: rslearn/train/tasks/detection.py, F1Metric.compute
# takes the largest score of the thresholds, whether it is F1, precision or recall.
# Hurt: who compares detectors by the figures that it logs: their harmonic mean is not the F1 beside
# them, and a flood of weak false boxes lowers neither.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HOME=$folder
python3 -m venv venv
pip="venv/bin/pip install --quiet --disable-pip-version-check"
$pip numpy==2.2.6 rasterio==1.4.4 shapely==2.1.2 pyproj==3.7.2 pillow==11.3.0 einops==0.8.1 \
  fsspec==2025.10.0 universal-pathlib==0.3.4 pydantic==2.12.4 "jsonargparse[signatures]==4.50.0" \
  pytimeparse==1.1.8 python-dateutil==2.9.0.post0 tqdm==4.67.1 torch==2.13.0 torchvision==0.28.0 \
  torchmetrics==1.8.2 lightning==2.5.6 scipy==1.16.3
$pip --no-deps rslearn==0.1.19
cat > figures.py <<'PYTHON'
import sys
from types import ModuleType

import torch

sys.modules["wandb"] = ModuleType("wandb")  # draws charts; none is drawn here
# Where pip took torch for CPUs alone, the compiled operators of torchvision do not load. Nothing
# here calls them, but the package asks for the declarations of two.
try:
    import torchvision
except RuntimeError:
    for module in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[module]
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from rslearn.train.tasks.detection import DetectionTask

# 20 houses of 10 x 10 pixels; false boxes lie in other rows.
houses = torch.tensor([[20 * n, 0, 20 * n + 10, 10] for n in range(20)], dtype=torch.float32)
false = torch.tensor([[20 * n, 100, 20 * n + 10, 110] for n in range(60)], dtype=torch.float32)
found = {
    "boxes": torch.cat([houses, false]),
    "scores": torch.tensor([0.9] * 10 + [0.3] * 10 + [0.5] * 60),
    "labels": torch.zeros(80, dtype=torch.int64),
}
truth = {"boxes": houses, "labels": torch.zeros(20, dtype=torch.int64), "valid": torch.tensor(1)}


def figures(**options):
    task = DetectionTask(property_name="kind", classes=["house"], enable_map_metric=False,
                         enable_f1_metric=True, enable_precision_recall=True, **options)
    metrics = task.get_metrics()
    metrics.update([found], [truth])
    result = {name: round(float(value), 2) for name, value in metrics.compute().items()}
    print(options, result)
    return result


assert figures() == {"F1": 0.67, "precision": 1.0, "recall": 1.0}
one = {"f1_metric_thresholds": [[0.05]]}
assert figures(**one) == {"F1": 0.4, "precision": 0.25, "recall": 1.0}
one = {"f1_metric_thresholds": [[0.7]]}
assert figures(**one) == {"F1": 0.67, "precision": 1.0, "recall": 0.5}
PYTHON
venv/bin/python -W ignore figures.py
