"""Which engine runs a bundle, and which of its variants."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from rooftrace.core.errors import ConfigError
from rooftrace.core.registry import Registry
from rooftrace.engines.base import Engine
from rooftrace.engines.onnxruntime import OnnxRuntimeEngine
from rooftrace.engines.openvino import OpenVinoEngine, capabilities
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.spec import Output

__all__ = ["ENGINES", "PRECISIONS", "cpu_flags", "has_fast_int8", "load_engine"]

ENGINES: Registry[Callable[[ModelBundle, Sequence[str], str, Output], Engine]] = Registry("engine")
ENGINES.add("openvino", OpenVinoEngine.from_bundle)
ENGINES.add("onnxruntime", OnnxRuntimeEngine.from_bundle)

DEFAULT_ENGINE = "openvino"
PRECISIONS = ("fp32", "bf16", "int8")

# What an engine makes of the plain graph without a variant of its own.
_FROM_GRAPH = {"openvino": ("fp32", "bf16"), "onnxruntime": ("fp32",)}


@cache
def cpu_flags() -> frozenset[str]:
    """The processor's instruction sets by Linux's names; empty where they cannot be told."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def has_fast_int8() -> bool:
    """Whether the processor multiplies bytes faster than floats: VNNI on x86, else not known."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and bool({"avx512_vnni", "avx_vnni"} & cpu_flags())


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
        engine: one of `ENGINES`; default OpenVINO.
        precision: one of `PRECISIONS`; default the fastest that the processor runs well and the
            bundle has.
        output: `coarse` gives the segmenter of a refined model alone.

    Raises:
        ConfigError: no such engine or precision, or the bundle does not have it for the engine;
            no such output.
        MissingExtraError: the engine is not installed.
        BundleError: the graph is damaged or is not the one that its contract describes.
    """
    name = DEFAULT_ENGINE if engine is None else engine
    build = ENGINES[name]
    bundle = bundle.giving(output)
    offered: dict[str, tuple[str, ...]] = {
        v.precision: v.files for v in bundle.spec.variants if v.engine == name
    }
    for plain in _FROM_GRAPH.get(name, ("fp32",)):
        if plain not in offered and (plain != "bf16" or "BF16" in capabilities()):
            offered[plain] = (GRAPH_NAME,)
    if precision is None:
        wanted = ("int8", "bf16", "fp32") if has_fast_int8() else ("bf16", "fp32", "int8")
        precision = next(p for p in wanted if p in offered)
    elif precision not in offered:
        known = precision in PRECISIONS
        raise ConfigError(
            f"The bundle {bundle.source} cannot run in {precision!r} on {name} here; "
            f"it has {', '.join(sorted(offered))}."
            + ("" if known else f" Known precisions: {', '.join(PRECISIONS)}."),
            remedy="Leave out the precision for the fastest that this processor runs well.",
        )
    return build(bundle, offered[precision], precision, output)
