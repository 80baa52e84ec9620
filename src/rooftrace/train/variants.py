"""Variants of a graph that a bundle holds, and whether they are good enough to be held."""

from __future__ import annotations

import math
from collections.abc import Callable

from rooftrace.engines.openvino import OpenVinoEngine, capabilities
from rooftrace.metrics.pixel import PixelCounts
from rooftrace.models.bundle import GRAPH_NAME
from rooftrace.models.quantize import quantize_openvino
from rooftrace.models.spec import BundleSpec, Variant
from rooftrace.train.config import ExportConfig
from rooftrace.train.feed import TrainingData
from rooftrace.train.whole import judge_whole

__all__ = ["int8_variant"]

_INT8_FILES = ("variants/openvino-int8.xml", "variants/openvino-int8.bin")


def int8_variant(
    config: ExportConfig,
    data: TrainingData,
    spec: BundleSpec,
    graph: bytes,
    tell: Callable[[str], None],
) -> tuple[Variant, dict[str, bytes]] | None:
    """The int8 variant, if it is nearly as good as the graph on every validation folder.

    Both are judged on whole images, at the contract's threshold. The graph counts in each precision
    that the processor has and people would get without the variant: fp32, and bf16, which on some
    data is better or worse by as much as int8 is.

    Args:
        config: how many training samples are looked at, and how far IoU may fall.
        spec: the contract, with its threshold.
        tell: what was found, for people.

    Returns:
        The variant, with what IoU falls by on each folder, and its parts; None if that is too much.
    """
    plain = data.samples.unchanged(config.int8_samples)
    tell(f"quantising to int8 with {len(plain)} samples")
    files = quantize_openvino(graph, [plain[i].image for i in range(len(plain))])
    after = _judge(data, spec, OpenVinoEngine(spec, files, "int8", "int8"))
    unjudged = [source.name for source in data.val if source.name not in after]
    if unjudged:
        tell(f"int8 left out: nothing in {', '.join(unjudged)} can be predicted and compared")
        return None
    drops: dict[str, float] = {}
    for precision in ("fp32", "bf16") if "BF16" in capabilities() else ("fp32",):
        before = _judge(data, spec, OpenVinoEngine(spec, [graph], precision, GRAPH_NAME))
        for name, iou in before.items():
            drops[f"{name}/{precision}"] = iou - after[name]
    shown = ", ".join(f"{name} {drop:+.4f}" for name, drop in drops.items())
    if max(drops.values()) > config.int8_max_drop:
        tell(f"int8 left out: IoU falls by {shown}, allowed {config.int8_max_drop}")
        return None
    tell(f"int8 kept: IoU falls by {shown}")
    parity = {f"iou_drop/{name}": round(drop, 5) for name, drop in drops.items()}
    variant = Variant(engine="openvino", precision="int8", files=_INT8_FILES, parity=parity)
    return variant, dict(zip(_INT8_FILES, files))


def _judge(data: TrainingData, spec: BundleSpec, engine: OpenVinoEngine) -> dict[str, float]:
    """IoU by folder; a folder of which no pixel can be compared is left out."""
    found = {source.name: judge_whole(source, spec, engine.run) for source in data.val}
    return {name: _iou(counts, spec) for name, counts in found.items() if counts.pixels}


def _iou(counts: PixelCounts, spec: BundleSpec) -> float:
    """1 where there was nothing to find and nothing was found."""
    value = counts.iou(1) if spec.is_binary else counts.mean_iou
    return 1.0 if math.isnan(value) else value
