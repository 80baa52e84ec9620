"""Average the weights of two bundles of one network, such as before and after further training.

    python recipes/mean_of_weights.py AFTER.rooftrace BEFORE.rooftrace 0.6 OUT.rooftrace

writes AFTER with 0.6 of its own weights and 0.4 of the other one's (Wortsman et al. 2022, "Robust
fine-tuning of zero-shot models"). Statistics of normalisations are averaged like weights. Variants
for other precisions are left out, since they were made of other weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx

from rooftrace.models.bundle import GRAPH_NAME, write_bundle
from rooftrace.models.exported import read_model


def main() -> None:
    after, before = (read_model(Path(name)) for name in sys.argv[1:3])
    share, out = float(sys.argv[3]), Path(sys.argv[4])
    graph, other = (onnx.load_from_string(one.part(GRAPH_NAME)) for one in (after, before))
    of_other = {one.name: onnx.numpy_helper.to_array(one) for one in other.graph.initializer}
    averaged = 0
    for initializer in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        if values.dtype.kind != "f":
            continue
        both = share * values.astype(float) + (1 - share) * of_other[initializer.name].astype(float)
        made = onnx.numpy_helper.from_array(both.astype(values.dtype), initializer.name)
        averaged += not np.array_equal(values, of_other[initializer.name])
        initializer.CopyFrom(made)
    spec = after.spec.model_copy(update={"variants": ()})
    write_bundle(out, spec, {GRAPH_NAME: graph.SerializeToString()})
    print(f"{averaged} of {len(graph.graph.initializer)} tensors are means of different values")


if __name__ == "__main__":
    main()
