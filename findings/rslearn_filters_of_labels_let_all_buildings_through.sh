#!/usr/bin/env bash
# rslearn's filters leave out no label: ruins and plans are taught as buildings.
#
# Guess before the run: a detection task with filters=[("status", "built")] has a box for each
# building with that status, as its docstring says: "only consider features with matching
# properties". So do the tasks for classes and values of a window.
# Seen: of two buildings, a ruin and one that is planned all four become boxes, whatever the filter
# is, and a filter that nothing matches still gives four. A window whose first feature is a plan of
# 9 storeys has the value 9, not the 2 of the one that is built, and the class of the plan. No
# message.
# Versions: rslearn 0.1.19, torch 2.13.0. Source: detection.py, classification.py and regression.py
# in rslearn/train/tasks, process_inputs: continue, within the loop over the filters, goes on with
# the next filter in place of the next feature.
# Hurt: who trains on layers that hold more than what is to be found, such as demolished buildings,
# other years or unsure labels: all of them are targets, in training and in the figures.
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
cat > tasks.py <<'PYTHON'
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

import shapely
from rasterio.crs import CRS
from rslearn.train.model_context import SampleMetadata
from rslearn.train.tasks.classification import ClassificationTask
from rslearn.train.tasks.detection import DetectionTask
from rslearn.train.tasks.regression import RegressionTask
from rslearn.utils import Feature, Projection, STGeometry

projection = Projection(CRS.from_epsg(25833), 0.5, -0.5)
features = [
    Feature(STGeometry(projection, shapely.box(10 + x, 10, 20 + x, 20), None),
            {"kind": kind, "status": status, "storeys": storeys})
    for x, kind, status, storeys in [
        (0, "tower", "planned", 9), (20, "house", "built", 2), (40, "house", "built", 2),
        (60, "house", "ruin", 1),
    ]
]
bounds = (0, 0, 100, 100)
window = SampleMetadata(
    window_group="town", window_name="tile", window_bounds=bounds, crop_bounds=bounds, crop_idx=0,
    num_crops_in_window=1, time_range=None, projection=projection, dataset_source=None,
)
kinds = ["house", "tower"]


def target(task):
    return task.process_inputs({"targets": features}, window)[1]


counts = {}
for filters in (None, [("status", "built")], [("status", "none has this")]):
    task = DetectionTask(property_name="kind", classes=kinds, filters=filters)
    counts[str(filters)] = len(target(task)["boxes"])
    print("filters", filters, "boxes", counts[str(filters)])
assert set(counts.values()) == {4}
built = [("status", "built")]
storeys = float(target(RegressionTask(property_name="storeys", filters=built))["value"])
kind = kinds[int(target(ClassificationTask("kind", classes=kinds, filters=built))["class"])]
print("of what is built: storeys", storeys, "kind", kind)
assert (storeys, kind) == (9, "tower")
PYTHON
venv/bin/python -W ignore tasks.py
