"""Choose the threshold of a bundled model on the validation places, and calibrate its scores there.

    python recipes/default_data.py work/default-data
    python recipes/bundled_threshold.py quantised.rooftrace OUT.rooftrace
    python recipes/bundled_threshold.py OUT.rooftrace accurate.json
    python recipes/bundled_threshold.py default OUT.rooftrace --keep
    python recipes/bundled_threshold.py accurate accurate.json --keep

The first call writes the bundle with a threshold, a calibration at it, and the figures of each
place. The second one writes what the bundled model `accurate` has in place of these: it runs the
same network at a finer scale and averages over mirrored tiles. `--keep` keeps the threshold, after
a change of the way in which outlines are drawn.

Of the thresholds whose mean IoU over the validation places is within a tenth of a point of the
best, the highest is taken: at places that it has not seen, the model takes too much for buildings.
The IoU is the mean of those in int8 and in bf16, the precisions that processors run by default; all
else is measured in int8. The script also prints what the calibration does to the test place, which
was used for nothing. The figures are in docs/default-model.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rooftrace.core.config import expand_path, load_config
from rooftrace.flows.evaluate.predictions import of_model
from rooftrace.flows.evaluate.run import EvalOptions, compare_with_labels
from rooftrace.flows.labelled_predictions import level_of, open_labelled, predict_set
from rooftrace.flows.threshold import (
    ThresholdReport,
    ThresholdSearchSet,
    run_threshold,
)
from rooftrace.labels.config import SourceConfig
from rooftrace.metrics.calibration import Reliability
from rooftrace.models.bundle import EDITION_FIELDS, ModelBundle, read_bundle, write_bundle
from rooftrace.models.exported import read_model
from rooftrace.models.spec import MeasuredMetrics
from rooftrace.predict.model_set import read_models
from rooftrace.predict.predictor import Predictor, load
from rooftrace.train.config import TrainConfig

RECIPES = Path(__file__).parent
TEST_PLACES = (SourceConfig(path="../work/default-data/kampala"),)
TOO_SMALL = "$ROOFTRACE_DATA/vienna"
"""A validation place with 16 predicted buildings, too few for a fifth of a calibration's weight."""

PRECISION = "int8"
SEARCHED = (PRECISION, "bf16")
PROTOCOL = (
    "whole images as by rooftrace predict, openvino int8; the threshold was chosen on these images"
)
SAME_IOU = 0.001
ACCURATE = {
    "name": "rooftrace-accurate", "gsd_m": 0.3, "finest_gsd_m": 0.2, "interpolated_gsd_m": 0.25,
    "tta": "mirror",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--keep", action="store_true", help="Keep the threshold")
    given = parser.parse_args()
    out: Path = given.out
    before = read_model(given.model)
    with TemporaryDirectory() as scratch:
        path = out
        if out.suffix == ".json":
            path = Path(scratch) / "accurate.rooftrace"
            edition = before.spec.model_copy(update=ACCURATE)
            before = write_bundle(path, edition, before.parts)
        made = fitted(before, path, keep=given.keep)
        if out.suffix == ".json":
            text = made.spec.model_dump_json(indent=1, include=EDITION_FIELDS)
            out.write_text(text + "\n", encoding="utf-8")
        report_test_places(path)


def fitted(before: ModelBundle, out: Path, *, keep: bool) -> ModelBundle:
    """Write a bundle with the threshold and the calibration of the validation places.

    Args:
        keep: True for the threshold that the bundle has.
    """
    places = [placed(one) for one in load_config(RECIPES / "default.toml", TrainConfig).data.val]
    enough = [one for one in places if one.path != str(expand_path(TOO_SMALL, RECIPES, key="path"))]
    with TemporaryDirectory() as scratch:
        path, searched = Path(scratch) / "model.rooftrace", Path(scratch) / "searched.rooftrace"
        spec = before.spec.model_copy(update={"calibration": None})
        write_bundle(path, spec, before.parts)
        if not keep:
            reports = [run_threshold(path, places, searched, precision=p) for p in SEARCHED]
            spec = spec.model_copy(update={"threshold": chosen(reports)})
            write_bundle(path, spec, before.parts)
        metrics = tuple(measured(path, one) for one in places)
        write_bundle(path, spec.model_copy(update={"metrics": metrics}), before.parts)
        report = run_threshold(path, enough, out, keep=True, precision=PRECISION)
        print(json.dumps(report.to_json(), indent=1))
    return read_bundle(out)


def report_test_places(path: Path) -> None:
    """Print the figures of the test place, and what the calibration does to it."""
    made = load(path, precision=PRECISION)
    calibration = made.bundle.spec.calibration
    spec = made.bundle.spec.model_copy(update={"calibration": None})
    predictor = Predictor(replace(made.bundle, spec=spec), made.engine)
    for given in TEST_PLACES:
        place = open_labelled(predictor, placed(given), None)
        with TemporaryDirectory() as scratch:
            scored = predict_set(predictor, place, Path(scratch) / "scored")
            found = ThresholdSearchSet(predictor.bundle.spec, scored, "test")
            judged = found.outcomes(level_of(predictor.bundle.spec.threshold))
        scores = {"before": judged.score}
        if calibration is not None:
            scores["after"] = calibration.apply(judged.score, judged.divided)
        for name, score in scores.items():
            figures = Reliability.of(score, judged.right)
            print(
                judged.record.data, name, f"ece {figures.ece:.5f}, log loss {figures.log_loss:.5f}"
            )
        measured(path, placed(given))


def chosen(reports: list[ThresholdReport]) -> float:
    """Return the highest threshold that is about as good as the best in all precisions."""
    curve = np.mean([report.curve for report in reports], axis=0)
    thresholds = np.asarray(reports[0].thresholds)
    highest = float(thresholds[curve >= curve.max() - SAME_IOU].max())
    print(f"best {thresholds[curve.argmax()]:.3f} with {curve.max():.4f}; chosen {highest:.3f}")
    return round(highest, 3)


def measured(model: Path, given: SourceConfig) -> MeasuredMetrics:
    """Return the figures of the model on one place."""
    predictor = read_models(model, precision=PRECISION).ready()
    predictions = of_model(predictor)
    source = open_labelled(predictor, given, None)
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
