"""The registry of engines, and the choice of an engine and a variant for a bundle."""

import hashlib
import pickle
from collections.abc import Sequence
from contextlib import suppress
from typing import get_args

import numpy as np

from rooftrace.core.config import Registry
from rooftrace.core.errors import ConfigError, MissingExtraError
from rooftrace.core.system import user_folder, version_of
from rooftrace.engines import onnxruntime, openvino, torch
from rooftrace.engines.base import Engine, EngineKind
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import Output, Precision

_KINDS = openvino.KIND, onnxruntime.CPU, torch.KIND, onnxruntime.CUDA, onnxruntime.TENSORRT

ENGINES: Registry[EngineKind] = Registry("engine", {one.name: one for one in _KINDS})
"""Engines in the order in which they are tried if none is named."""

PRECISIONS: tuple[str, ...] = get_args(Precision)


def load_engine(
    bundle: ModelBundle,
    *,
    engine: str | None = None,
    precision: str | None = None,
    output: Output = "probabilities",
) -> Engine:
    """Load the engine that runs a bundle.

    Args:
        bundle: Checked bundle in memory; nothing else is read.
        engine: One of `ENGINES`; default the first that can run the bundle, which is OpenVINO
            except for some exported models.
        precision: One of `PRECISIONS`; default the fastest on this machine that the bundle has.
        output: `coarse` for the segmenter of a refined model alone.

    Raises:
        ConfigError: the engine, precision or output does not exist, the bundle does not have the
            precision for the engine, or the hardware of the engine or of the precision is missing.
        MissingExtraError: the engine is not installed.
        BundleError: the graph is damaged, does not match its contract, or failed its first use.
    """
    bundle = bundle.for_output(output)
    if engine is None:
        kind = next((one for one in ENGINES.values() if one.offers(bundle)), openvino.KIND)
    else:
        kind = ENGINES[engine]
    offered = kind.offers(bundle)
    if not offered:
        others = [other.name for other in ENGINES.values() if other.offers(bundle)]
        raise ConfigError(
            f"{bundle.source} cannot run on the engine {kind.name}, which takes {kind.takes}.",
            remedy=f"Use --engine {' or '.join(others)}." if others else "Export the model again.",
        )
    usable = [p for p in offered if not kind.lacks(p)]
    fastest = next((p for p in kind.prefers() if p in usable), min(usable, default=None))
    if fastest is None or (precision in offered and precision not in usable):
        lacking = precision or min(offered)
        raise ConfigError(
            f"{kind.lacks(lacking)}, so {bundle.source} cannot run in {lacking!r} on {kind.name}.",
            remedy=f"Use --precision {fastest}, the fastest here."
            if fastest
            else "Export the model in fp32 or int8.",
        )
    if precision is not None and precision not in offered:
        is_precision = precision in PRECISIONS
        raise ConfigError(
            f"The bundle {bundle.source} cannot run in {precision!r} on {kind.name} here; "
            f"it has {', '.join(sorted(usable))}."
            + ("" if is_precision else f" Known precisions: {', '.join(PRECISIONS)}."),
            remedy="Leave out the precision to use the fastest on this machine.",
        )
    kind.check()
    chosen = precision or fastest
    if not bundle.is_trusted:
        check_first_use(bundle, kind.name, offered[chosen], chosen)
    return kind.build(bundle, offered[chosen], chosen, output)


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
    record = user_folder("cache") / "checked-models" / hashlib.sha256(key.encode()).hexdigest()
    if record.exists():
        return
    from rooftrace.core.processes import run_limited

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
