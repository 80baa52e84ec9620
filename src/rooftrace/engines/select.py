"""The registry of engines, and the choice of an engine and a variant for a bundle."""

from __future__ import annotations

from typing import get_args

from rooftrace.core.config import Registry
from rooftrace.core.errors import ConfigError
from rooftrace.engines import onnxruntime, openvino, torch
from rooftrace.engines.base import Engine, EngineKind
from rooftrace.engines.first_use import check_first_use
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.spec import Output, Precision

__all__ = ["ENGINES", "PRECISIONS", "load_engine"]

ENGINES: Registry[EngineKind] = Registry("engine")
"""Engines in the order in which they are tried if none is named."""
for _kind in (openvino.KIND, onnxruntime.CPU, torch.KIND, onnxruntime.CUDA, onnxruntime.TENSORRT):
    ENGINES.add(_kind.name, _kind)

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
        known = precision in PRECISIONS
        raise ConfigError(
            f"The bundle {bundle.source} cannot run in {precision!r} on {kind.name} here; "
            f"it has {', '.join(sorted(usable))}."
            + ("" if known else f" Known precisions: {', '.join(PRECISIONS)}."),
            remedy="Leave out the precision to use the fastest on this machine.",
        )
    kind.check()
    chosen = precision or fastest
    check_first_use(bundle, kind.name, offered[chosen], chosen)
    return kind.build(bundle, offered[chosen], chosen, output)
