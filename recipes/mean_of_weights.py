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

from rooftrace.core.errors import BundleError
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle, write_bundle
from rooftrace.models.exported import read_model


def mean_of_weights(after: ModelBundle, before: ModelBundle, share: float) -> tuple[bytes, int]:
    """Return the graph of `after` with averaged weights, and the number of its weights.

    Args:
        after, before: Bundles of one network; their graphs may store weights in different types.
        share: Share of the weights of `after`, 0..1.

    Raises:
        BundleError: The networks are not the same, or normalise pixel values differently.
    """
    graph = onnx.load_from_string(after.part(GRAPH_NAME))
    others = {
        one.name.removesuffix("_fp16"): onnx.numpy_helper.to_array(one)
        for one in onnx.load_from_string(before.part(GRAPH_NAME)).graph.initializer
    }
    names = {one.name.removesuffix("_fp16") for one in graph.graph.initializer}
    averaged = 0
    for initializer in graph.graph.initializer:
        values = onnx.numpy_helper.to_array(initializer)
        other = others.get(initializer.name.removesuffix("_fp16"))
        is_weight = initializer.name.startswith("net.")
        if (
            names != others.keys()
            or other is None
            or other.shape != values.shape
            or not (is_weight or np.array_equal(other, values))
        ):
            raise BundleError(
                f"{after.source} and {before.source} differ in {initializer.name}: their networks "
                "or their normalisations are not the same.",
                remedy="Give two bundles of which one was trained from the other.",
            )
        if is_weight:
            mean = share * values.astype(float) + (1 - share) * other.astype(float)
            made = onnx.numpy_helper.from_array(mean.astype(values.dtype), initializer.name)
            initializer.CopyFrom(made)
            averaged += 1
    return graph.SerializeToString(), averaged


def main() -> None:
    after, before = (read_model(Path(name)) for name in sys.argv[1:3])
    share, out = float(sys.argv[3]), Path(sys.argv[4])
    graph, averaged = mean_of_weights(after, before, share)
    spec = after.spec.model_copy(update={"variants": ()})
    write_bundle(out, spec, {GRAPH_NAME: graph})
    print(f"{averaged} weights are means")


if __name__ == "__main__":
    main()
