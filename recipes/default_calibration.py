"""Calibrate the scores of the bundled model on its validation places, and look at the test place.

    python recipes/default_data.py work/default-data
    python recipes/default_calibration.py OUT.rooftrace

writes the bundle with its calibration, and prints what the calibration does to each validation
place (scenes left out of the fit) and to the test place (which it never saw). Of the bundle nothing
else changes. The figures are in docs/default-model.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rooftrace.core.config import expand_path, load_config
from rooftrace.flows.calibrate import (
    ReliabilityComparison,
    match_buildings,
    run_calibrate,
    uncalibrated,
)
from rooftrace.flows.labelled_predictions import open_labelled
from rooftrace.labels.config import SourceConfig
from rooftrace.predict.predictor import load
from rooftrace.train.config import TrainConfig

RECIPES = Path(__file__).parent
TEST_PLACES = (SourceConfig(path="../work/default-data/kampala"),)
TOO_SMALL = "$ROOFTRACE_DATA/vienna"
"""A validation place with 16 predicted buildings, too few for a fifth of the weight."""


def main() -> None:
    out = Path(sys.argv[1])
    config = load_config(RECIPES / "default.toml", TrainConfig)
    places = [placed(given) for given in config.data.val if given.path != TOO_SMALL]
    report = run_calibrate(None, places, out)
    print(json.dumps(report.to_json(), indent=1))
    made = load(out)
    calibration, predictor = made.bundle.spec.calibration, uncalibrated(made)
    for given in TEST_PLACES:
        place = open_labelled(predictor, placed(given), None)
        judged = match_buildings(predictor, place, "test")
        values = None if calibration is None else calibration.apply(judged.score)
        figures = ReliabilityComparison.of(judged.score, values, judged.right)
        print(json.dumps(judged.record.model_dump() | figures.to_json()))


def placed(given: SourceConfig) -> SourceConfig:
    """Return the configuration with a path that does not start from the folder of the recipes."""
    return given.model_copy(update={"path": str(expand_path(given.path, RECIPES, key="path"))})


if __name__ == "__main__":
    main()
