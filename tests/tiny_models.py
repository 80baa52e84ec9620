"""Small models on disk whose probability is the brightness of a pixel."""

from pathlib import Path
from typing import Any

import numpy as np

from rooftrace.flows.doctor import tiny_bundle
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle, write_bundle


def write_tiny_bundle(path: Path, **changes: Any) -> Path:
    """Write the bundle that calls bright pixels buildings, with `changes` of its spec."""
    tiny = tiny_bundle()
    write_bundle(path, tiny.spec.model_copy(update=changes), tiny.parts)
    return path


def with_weight(weight: float) -> ModelBundle:
    """Return the tiny bundle with another weight for each band: the model answers 3 w x."""
    tiny = tiny_bundle()
    old = np.float32(1 / 765).tobytes() * 3
    graph = tiny.parts[GRAPH_NAME]
    assert graph.count(old) == 1
    return ModelBundle(
        tiny.spec,
        {GRAPH_NAME: graph.replace(old, np.float32(weight).tobytes() * 3)},
        f"weight {weight}",
    )


def write_with_weight(path: Path, weight: float) -> Path:
    """Write the bundle of `with_weight`, with correct hashes."""
    made = with_weight(weight)
    write_bundle(path, made.spec, made.parts)
    return path
