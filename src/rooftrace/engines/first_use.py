"""First use of a graph from a file: it is compiled and run on one tile in a child process.

Engines trust graphs: a malformed one may make them loop without end, exhaust the memory or end the
process. A graph that passed is remembered in the user's cache for this version of the engine, and
the bundled models need no check.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from rooftrace.core.child import run_limited
from rooftrace.core.errors import MissingExtraError
from rooftrace.core.machine import user_cache, version_of
from rooftrace.models.bundle import ModelBundle

__all__ = ["check_first_use"]

_CHECKED_BY = {
    "openvino": "openvino",
    "onnxruntime": "onnxruntime",
    "onnxruntime-cuda": "onnxruntime",
    "onnxruntime-tensorrt": "onnxruntime",
}
"""Engines that read graphs, and the engine of the check. PyTorch builds networks itself."""

_SECONDS = 120.0
_MEMORY_BYTES, _COPIES = 4 * 2**30, 8
"""Maximum memory of the child: a base, and a multiple of the size of the graph."""

_SIDE_PX = 256


def check_first_use(
    bundle: ModelBundle, engine: str, files: Sequence[str], precision: str | None = None
) -> None:
    """Check that an engine survives the graph of a bundle, unless it is known to.

    Args:
        bundle: The bundle.
        engine: Name of the engine that will load it.
        files: Parts of the bundle that the engine will load.
        precision: Precision in which the engine will run.

    Raises:
        BundleError: The graph cannot be used, or exceeded a limit of time or memory.
    """
    checked_by = _CHECKED_BY.get(engine)
    if bundle.is_trusted or checked_by is None:
        return
    parts = {name: bundle.part(name) for name in files}
    # The presence of this file says that the graph passed.
    hashes = [hashlib.sha256(data).hexdigest() for data in parts.values()]
    key = "\n".join([checked_by, str(version_of(checked_by)), *hashes])
    record = user_cache() / "checked-models" / hashlib.sha256(key.encode()).hexdigest()
    if record.exists():
        return
    order = pickle.dumps((bundle.spec, parts, bundle.source, checked_by, precision))
    size = sum(map(len, parts.values()))
    run_limited(
        _load_and_run,
        order,
        source=bundle.source,
        seconds=_SECONDS,
        memory_bytes=_MEMORY_BYTES + _COPIES * size,
    )
    # Without a cache that can be written to, the check is made each time.
    with suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True)
        record.touch()


def _load_and_run(order: bytes) -> bytes:
    """Load and run a model in the child process."""
    from rooftrace.engines.select import load_engine

    spec, parts, source, engine, precision = pickle.loads(order)  # noqa: S301  # nosec B301  # of our own
    bundle = ModelBundle(spec, parts, source, is_trusted=True)
    with suppress(MissingExtraError):
        loaded = load_engine(bundle, engine=engine, precision=precision)
        side = spec.side_near(_SIDE_PX)
        loaded.run(np.zeros((1, len(spec.bands), side, side), spec.numpy_dtype))
    return b""
