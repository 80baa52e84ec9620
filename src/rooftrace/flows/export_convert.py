"""From the graph of a bundle to the parts of an exported model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError
from rooftrace.core.versions import installed
from rooftrace.engines.tensorrt import build_plan, built_with
from rooftrace.models.artefact import Target, part_names
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.lowering import in_half_precision, simplified
from rooftrace.models.quantize import quantize_onnx, quantize_openvino
from rooftrace.models.spec import Precision

__all__ = ["RUNS_IN", "check_precision", "convert", "is_ready_made", "made_with"]

RUNS_IN: dict[Target, dict[Precision, Precision]] = {
    "onnx": {"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
    # Weights in fp16 are half the file; a processor computes with them in fp32.
    "openvino": {"fp32": "fp32", "bf16": "bf16", "fp16": "fp32", "int8": "int8"},
    "tensorrt": {"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
}
"""What each kind of file can be exported in, and what its arithmetic is then done in."""

_MADE_BY = ("rooftrace", "openvino", "onnx", "onnxruntime", "nncf")


def is_ready_made(bundle: ModelBundle, to: Target, precision: str) -> bool:
    """Whether a bundle holds what is asked for as a variant."""
    return _variant(bundle, to, precision) is not None


def convert(
    bundle: ModelBundle,
    to: Target,
    precision: Precision,
    samples: Sequence[NDArray[Any]],
) -> dict[str, bytes]:
    """The parts of an exported model, by the names of `part_names`.

    Args:
        bundle: holds the graph.
        samples: of int8: images (band, y, x) in pixel values that it is calibrated with; none
            where the bundle's own variant is taken as it is.

    Raises:
        MissingExtraError: a package is not installed.
        ConfigError: a TensorRT plan without a GPU.
        ExportError: the network cannot be brought to it.
    """
    graph, names = bundle.part(GRAPH_NAME), part_names(to, precision)
    given = [sample.astype(np.float32) for sample in samples]
    if to == "openvino":
        ready = _variant(bundle, to, precision)
        if precision != "int8":
            return dict(zip(names, _openvino(graph, half=precision == "fp16")))
        if ready is not None and not given:
            return dict(zip(names, (bundle.part(name) for name in ready)))
        return dict(zip(names, quantize_openvino(graph, given)))
    if precision == "fp16":
        graph = in_half_precision(simplified(graph))
    elif precision == "int8":
        graph = quantize_onnx(simplified(graph), given, symmetric=to == "tensorrt")
    return {names[0]: build_plan(graph, bundle.spec) if to == "tensorrt" else graph}


def made_with(to: Target) -> dict[str, str]:
    """Versions of the packages, and of a TensorRT plan the GPU that it is for."""
    return installed(_MADE_BY) | (built_with() if to == "tensorrt" else {})


def _variant(bundle: ModelBundle, to: str, precision: str) -> tuple[str, ...] | None:
    for variant in bundle.spec.variants:
        if (variant.engine, variant.precision, len(variant.files)) == (to, precision, 2):
            return variant.files
    return None


def _openvino(graph: bytes, *, half: bool) -> tuple[bytes, bytes]:
    import openvino

    model = openvino.Core().read_model(graph)
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "model.xml"
        openvino.save_model(model, xml, compress_to_fp16=half)
        return xml.read_bytes(), xml.with_suffix(".bin").read_bytes()


def check_precision(to: Target, precision: str) -> Precision:
    """Raises ConfigError where a kind of file is not made in a precision."""
    for known in RUNS_IN[to]:
        if known == precision:
            return known
    raise ConfigError(
        f"--precision {precision} was given; {to} is exported in {', '.join(RUNS_IN[to])}.",
        remedy="Choose one of these.",
    )
