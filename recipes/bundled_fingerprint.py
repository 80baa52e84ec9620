"""Add the fingerprint of what it was trained on to a bundled model.

    python recipes/default_data.py work/default-data
    python recipes/bundled_fingerprint.py default recipes/default.toml OUT.rooftrace

writes the bundle with the fingerprint of the training folders of the recipe, as `rooftrace train`
would have done, and prints its size, and which folders of validation and test share ground with
what was trained on. Of the bundle nothing else changes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from rooftrace.core.config import load_config
from rooftrace.flows.evaluate.evaluation import check_leakage
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.models.bundle import write_bundle
from rooftrace.models.exported import read_model
from rooftrace.models.fingerprint import fingerprint_of
from rooftrace.train.config import TrainConfig

RECIPES = Path(__file__).parent
TEST_PLACES = (SourceConfig(path="../work/default-data/kampala"),)


def main() -> None:
    model, recipe, out = map(Path, sys.argv[1:4])
    config = load_config(recipe, TrainConfig)
    trained = [open_source(given, config.data.labels, RECIPES) for given in config.data.train]
    started = time.process_time()
    fingerprint = fingerprint_of([(one.name, tuple(one)) for one in trained], config.gsd_m)
    before = read_model(model)
    spec = before.spec.model_copy(update={"fingerprint": fingerprint})
    bundle = write_bundle(out, spec, before.parts)
    record = {
        "seconds": round(time.process_time() - started, 1),
        "characters": len(fingerprint.data),
        "bytes": out.stat().st_size,
        **fingerprint.model_dump(include={"scenes", "landmarks", "cell_px", "share"}),
        "finds_m": fingerprint.finds_px * (fingerprint.gsd_m or 0),
    }
    print(json.dumps(record))
    for given in (*config.data.val, *TEST_PLACES):
        source = open_source(given, config.data.labels, RECIPES)
        (report,) = check_leakage([bundle], source)
        print(json.dumps({"data": given.path, "part": given.part} | report.to_json()))


if __name__ == "__main__":
    main()
