"""Which engine runs a bundle, and which of its variants."""

from __future__ import annotations

from typing import get_args

from rooftrace.core.errors import ConfigError
from rooftrace.core.registry import Registry
from rooftrace.engines import onnxruntime, openvino, tensorrt, torch
from rooftrace.engines.base import Engine
from rooftrace.engines.kind import EngineKind
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import Output, Precision

__all__ = ["ENGINES", "PRECISIONS", "load_engine"]

ENGINES: Registry[EngineKind] = Registry("engine")
"""In the order in which they are tried where nobody names one."""
for _kind in (openvino.KIND, onnxruntime.CPU, torch.KIND, onnxruntime.CUDA, tensorrt.KIND):
    ENGINES.add(_kind.name, _kind)

PRECISIONS: tuple[str, ...] = get_args(Precision)


def load_engine(
    bundle: ModelBundle,
    *,
    engine: str | None = None,
    precision: str | None = None,
    output: Output = "probabilities",
) -> Engine:
    """The engine that runs a bundle.

    Args:
        bundle: checked, in memory; nothing else is read.
        engine: one of `ENGINES`; default the first that the bundle has something for, which for
            all but some exported models is OpenVINO.
        precision: one of `PRECISIONS`; default the fastest that the machine runs well and the
            bundle has.
        output: `coarse` gives the segmenter of a refined model alone.

    Raises:
        ConfigError: no such engine or precision, or the bundle does not have it for the engine;
            no such output; the engine has nothing to run on here.
        MissingExtraError: the engine is not installed.
        BundleError: the graph is damaged or is not the one that its contract describes.
    """
    bundle = bundle.giving(output)
    kind = _first(bundle) if engine is None else ENGINES[engine]
    offered = kind.offers(bundle)
    if not offered:
        others = [other.name for other in ENGINES.values() if other.offers(bundle)]
        raise ConfigError(
            f"{bundle.source} has nothing for the engine {kind.name}, which takes {kind.takes}.",
            remedy=f"Run it on {' or '.join(others)}." if others else "Export the model again.",
        )
    if precision is not None and precision not in offered:
        known = precision in PRECISIONS
        raise ConfigError(
            f"The bundle {bundle.source} cannot run in {precision!r} on {kind.name} here; "
            f"it has {', '.join(sorted(offered))}."
            + ("" if known else f" Known precisions: {', '.join(PRECISIONS)}."),
            remedy="Leave out the precision for the fastest that this machine runs well.",
        )
    kind.check()
    if precision is None:
        precision = next((p for p in kind.prefers() if p in offered), min(offered))
    return kind.build(bundle, offered[precision], precision, output)


def _first(bundle: ModelBundle) -> EngineKind:
    for kind in ENGINES.values():
        if kind.offers(bundle):
            return kind
    return openvino.KIND
