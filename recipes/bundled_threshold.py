"""Choose the threshold of a bundled model on the validation places, and calibrate its scores there.

    python recipes/default_data.py work/default-data
    python recipes/bundled_threshold.py default OUT.rooftrace

Of the thresholds whose mean IoU over the validation places is within a tenth of a point of the
best, the highest is taken: at places that it has not seen, the model takes too much for buildings.
The bundle is written with it, with a calibration at it, and with the figures of each place. The
script also prints what the calibration does to the test place, which was used for nothing. The
figures are in docs/default-model.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rooftrace.core.config import expand_path, load_config
from rooftrace.flows.calibrate import (
    ReliabilityComparison,
    match_buildings,
    run_calibrate,
    uncalibrated,
)
from rooftrace.flows.evaluate.predictions import ModelPredictions
from rooftrace.flows.evaluate.run import EvalOptions, compare_with_labels
from rooftrace.flows.labelled_predictions import open_labelled
from rooftrace.flows.threshold import ThresholdReport, run_threshold
from rooftrace.labels.config import SourceConfig
from rooftrace.models.bundle import read_bundle, write_bundle
from rooftrace.models.exported import read_model
from rooftrace.models.spec import MeasuredMetrics
from rooftrace.predict.model_set import read_models
from rooftrace.predict.predictor import load
from rooftrace.train.config import TrainConfig

RECIPES = Path(__file__).parent
TEST_PLACES = (SourceConfig(path="../work/default-data/kampala"),)
TOO_SMALL = "$ROOFTRACE_DATA/vienna"
"""A validation place with 16 predicted buildings, too few for a fifth of a calibration's weight."""

PRECISION = "bf16"
PROTOCOL = (
    "whole images as by rooftrace predict, openvino bf16; the threshold was chosen on these images"
)
SAME_IOU = 0.001


def main() -> None:
    model, out = map(Path, sys.argv[1:3])
    places = [placed(one) for one in load_config(RECIPES / "default.toml", TrainConfig).data.val]
    enough = [one for one in places if one.path != str(expand_path(TOO_SMALL, RECIPES, key="path"))]
    before = read_model(model)
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "searched.rooftrace"
        threshold = chosen(run_threshold(model, places, path, precision=PRECISION))
        update = {"threshold": threshold, "calibration": None}
        write_bundle(path, before.spec.model_copy(update=update), before.parts)
        update = {"metrics": tuple(measured(path, one) for one in places)}
        write_bundle(path, read_bundle(path).spec.model_copy(update=update), before.parts)
        report = run_calibrate(path, enough, out, precision=PRECISION)
    print(json.dumps(report.to_json(), indent=1))
    made = load(out, precision=PRECISION)
    calibration, predictor = made.bundle.spec.calibration, uncalibrated(made)
    for given in TEST_PLACES:
        place = open_labelled(predictor, placed(given), None)
        judged = match_buildings(predictor, place, "test")
        values = None if calibration is None else calibration.apply(judged.score)
        figures = ReliabilityComparison.of(judged.score, values, judged.right)
        print(json.dumps(judged.record.model_dump() | figures.to_json()))
        print(measured(out, placed(given)).values)


def chosen(report: ThresholdReport) -> float:
    """Return the highest threshold that is about as good as the best."""
    good = [
        threshold
        for threshold, iou in zip(report.thresholds, report.curve)
        if iou >= max(report.curve) - SAME_IOU
    ]
    print(f"best {report.after:.3f} with {max(report.curve):.4f}; chosen {max(good):.3f}")
    return round(max(good), 3)


def measured(model: Path, given: SourceConfig) -> MeasuredMetrics:
    """Return the figures of the model on one place."""
    predictions = ModelPredictions(read_models(model, precision=PRECISION).ready())
    source = open_labelled(predictions.predictor, given, None)
    (report,) = compare_with_labels([predictions], source, EvalOptions())
    counts, building = report.pooled, report.building_class
    values = {
        "iou": counts.iou(building), "precision": counts.precision(building),
        "recall": counts.recall(building), "f1": report.intervals["objects.f1"].value,
    }  # fmt: skip
    rounded = {name: round(value, 5) for name, value in values.items()}
    print(source.name, rounded)
    return MeasuredMetrics(data=source.name, split="val", protocol=PROTOCOL, values=rounded)


def placed(given: SourceConfig) -> SourceConfig:
    """Return the configuration with a path that does not start from the folder of the recipes."""
    return given.model_copy(update={"path": str(expand_path(given.path, RECIPES, key="path"))})


if __name__ == "__main__":
    main()
