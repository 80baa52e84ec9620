r"""Write the mean of the weights of a model and of the one from which it was trained on.

    python recipes/bundled_mean.py \
        runs/default-second/best_iou.rooftrace runs/default/best_iou.rooftrace OUT.rooftrace

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models": between the two lie networks that
keep what was known before, and most of what was learned. The bundle has everything else from the
second model, without its int8 variant; its threshold, its calibration and its figures are no
longer those of its weights, so recipes/bundled_threshold.py follows. The figures are in
docs/default-model.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from rooftrace.models.bundle import GRAPH_NAME, write_bundle
from rooftrace.models.exported import read_model


def main() -> None:
    before, after = (read_model(Path(path)) for path in sys.argv[1:3])
    mean = mean_of(bytes(before.part(GRAPH_NAME)), bytes(after.part(GRAPH_NAME)))
    spec = after.spec.model_copy(
        update={"variants": (), "calibration": None, "fingerprint": None, "metrics": ()}
    )
    write_bundle(Path(sys.argv[3]), spec, {GRAPH_NAME: mean})


def mean_of(before: bytes, after: bytes) -> bytes:
    """Return the second graph with the means of the weights of both."""
    graph = onnx.load_from_string(after)
    others = {one.name: one for one in onnx.load_from_string(before).graph.initializer}
    for one in graph.graph.initializer:
        if one.name not in others or others[one.name].dims != one.dims:
            raise SystemExit(f"the first model has no weights {one.name} of shape {list(one.dims)}")
        mine, other = (numpy_helper.to_array(each) for each in (one, others[one.name]))
        if np.issubdtype(mine.dtype, np.floating):
            mean = (mine.astype(np.float64) + other.astype(np.float64)) / 2
            one.CopyFrom(numpy_helper.from_array(mean.astype(mine.dtype), one.name))
    return graph.SerializeToString()


if __name__ == "__main__":
    main()
