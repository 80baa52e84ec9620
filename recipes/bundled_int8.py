"""Give a bundled model an int8 variant, if it is nearly as good as the model on its validation.

    python recipes/default_data.py work/default-data
    python recipes/bundled_int8.py default OUT.rooftrace

quantises the graph with samples of the training places, judges it on whole images of the validation
places, and writes the bundle with the variant. Of the bundle nothing else changes. Where the
variant is not good enough, nothing is written. The figures are in docs/default-model.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rooftrace.core.config import load_config
from rooftrace.flows.measure import validation_sets, with_int8
from rooftrace.models.bundle import write_bundle
from rooftrace.models.exported import read_model
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import open_data

RECIPES = Path(__file__).parent


def main() -> int:
    model, out = map(Path, sys.argv[1:3])
    config = load_config(RECIPES / "default.toml", TrainConfig)
    bundle = read_model(model)
    data = open_data(config, RECIPES)
    sets, _ = validation_sets(config, data, bundle.spec, print)
    made = with_int8(bundle, config, data, sets, print)
    if made is bundle:
        return 1
    write_bundle(out, made.spec, made.parts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
