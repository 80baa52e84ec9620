#!/usr/bin/env bash
# solaris rates a map without the houses that lack a value in any column, right or wrong.
#
# Guess before the run: Evaluator.load_proposal reads all polygons of a GeoJSON, and eval_iou rates
# them by their outlines: columns such as the height say nothing.
# Seen: of four right houses two have no height: they are missed, and recall is 0.5. Without the
# column, and with a height for each, it is 1. Of five wrong houses and four right ones, precision
# is 0.44; if the wrong ones have no height, it is 1. A column in which no house has a value makes a
# map without houses, F1 0. There is no message.
# Versions: solaris 0.4.0, geopandas 0.12.2, shapely 1.8.5.post1. Source: solaris/eval/base.py,
# load_proposal: geopandas.read_file(...).dropna() takes out rows with a null in any column.
# Hurt: who rates maps whose houses have attributes, as those of OpenStreetMap or of models that
# give a height to some: scores depend on columns that nobody rates.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==1.26.4 pandas==1.5.3 \
  shapely==1.8.5.post1 fiona==1.9.6 geopandas==0.12.2 pyproj==3.6.1 rtree==1.3.0 tqdm==4.67.1
venv/bin/pip install --quiet --disable-pip-version-check --no-deps solaris==0.4.0
venv/bin/python -W ignore - <<'PYTHON'
import importlib
import sys
from pathlib import Path
from types import ModuleType

import geopandas
from shapely.geometry import box

# The package imports TensorFlow and more for training; this module needs none of them.
for name in ("solaris", "solaris.eval"):
    sys.modules[name] = ModuleType(name)
    sys.modules[name].__path__ = [str(Path(path, *name.split("."))) for path in sys.path]
Evaluator = importlib.import_module("solaris.eval.base").Evaluator

houses = [box(20 * number, 0, 20 * number + 10, 10) for number in range(4)]
ghosts = [box(20 * number, 100, 20 * number + 10, 110) for number in range(5)]
geopandas.GeoDataFrame(geometry=houses).to_file("truth.geojson", driver="GeoJSON")


def rated(polygons, **columns):
    table = geopandas.GeoDataFrame({"conf": [0.9] * len(polygons), **columns}, geometry=polygons)
    table.to_file("map.geojson", driver="GeoJSON")
    evaluator = Evaluator("truth.geojson")
    evaluator.load_proposal("map.geojson")
    score = evaluator.eval_iou(calculate_class_scores=False)[0]
    return [round(score[name], 2) for name in ("Precision", "Recall", "F1Score")]


seen = {
    "four right houses": rated(houses),
    "with heights": rated(houses, height=[3.0, 4.0, 5.0, 6.0]),
    "two with a height": rated(houses, height=[3.0, None, 5.0, None]),
    "none with a height": rated(houses, height=[None] * 4),
    "and five wrong": rated(houses + ghosts, height=[3.0] * 9),
    "wrong ones without height": rated(houses + ghosts, height=[3.0] * 4 + [None] * 5),
}
for name, scores in seen.items():
    print(f"{name}: precision, recall, F1 {scores}")
assert list(seen.values()) == [
    [1, 1, 1], [1, 1, 1], [1, 0.5, 0.67], [0, 0, 0], [0.44, 1, 0.62], [1, 1, 1],
]
PYTHON
