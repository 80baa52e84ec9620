"""Sparse or dense, by the built-up share that a model predicts: how often that is right.

    python recipes/sparse_dense.py BUNDLE CONFIG.toml [--dense 0.2]

An image is dense if at least DENSE of its labelled pixels are building. The threshold on the
predicted share is fitted on the training sets of the configuration, as `rooftrace density --fit`
does it; what is printed are the figures on its validation sets, as one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.config import load_config
from rooftrace.density.files import DEFAULT_THRESHOLD
from rooftrace.flows.density.images import balanced_accuracy, fit_threshold
from rooftrace.labels.config import LabelConfig, SourceConfig
from rooftrace.labels.kinds import open_source
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.predictor import Predictor, load
from rooftrace.train.config import TrainConfig


def shares(
    predictor: Predictor, sets: tuple[SourceConfig, ...], labels: LabelConfig, base: Path
) -> NDArray[np.float64]:
    """(n, 2) of all images with a known pixel: true and predicted built-up share."""
    building = labels.building_class
    rows = []
    for given in sets:
        for scene in open_source(given, labels, base):
            assert scene.label is not None
            truth = scene.label.read()
            options = SceneOptions(gsd_m=scene.gsd_m, outputs=("mask",))
            mask = predictor.predict(scene.image, options=options).mask
            known = truth.valid & mask.valid
            if known.any():
                pair = [(m.data[known] == building).mean() for m in (truth, mask)]
                rows.append(pair)
    return np.array(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument(
        "--dense",
        type=float,
        default=DEFAULT_THRESHOLD.threshold,
        help="built-up share of a dense image",
    )
    options = parser.parse_args()
    config = load_config(options.config, TrainConfig)
    base, labels = options.config.parent, config.data.labels
    predictor = load(options.bundle)
    train, val = (
        shares(predictor, sets, labels, base) for sets in (config.data.train, config.data.val)
    )
    fitted, _ = fit_threshold(train[:, 1], train[:, 0] >= options.dense)
    dense, called = val[:, 0] >= options.dense, val[:, 1] >= fitted.threshold
    report = {
        "dense_from": options.dense,
        "threshold": round(fitted.threshold, 4),
        "images": len(val),
        "dense": int(dense.sum()),
        "accuracy": round(float((dense == called).mean()), 4),
        "balanced_accuracy": round(balanced_accuracy(dense, called), 4),
        "share_error": round(float(np.abs(val[:, 0] - val[:, 1]).mean()), 4),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
