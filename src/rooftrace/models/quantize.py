"""Other graphs of a network: simplified, in fp16, quantised to int8."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ExportError, MissingExtraError
from rooftrace.core.system import only_errors, without_telemetry
from rooftrace.core.text import first_line

without_telemetry()


def simplify_graph(graph: bytes) -> bytes:
    """Return the same network with folded constants, and BatchNorm folded into its convolution.

    A bundle's graph keeps both separate, and stores weights as fp16 with casts behind them; engines
    fold that when they load it. A quantiser must see the values that are really computed. Otherwise
    it would round values that never occur.

    Raises:
        MissingExtraError: `onnx` or `onnxruntime` is not installed.
        ExportError: ONNX Runtime cannot read the graph.
    """
    onnx, onnxruntime = _packages("A graph in another precision")
    model = onnx.load_from_string(graph)
    _fix_types(onnx, model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "model.onnx"
        options.optimized_model_filepath = str(written)
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class of their own
            raise _not_made(error) from error
        model = onnx.load(written)
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    # ONNX Runtime lists every opset that it knows.
    used = {node.domain for node in model.graph.node}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    return bytes(model.SerializeToString())


def convert_to_fp16(graph: bytes) -> bytes:
    """Return a graph that computes in fp16; its input and output stay fp32.

    The normalisation stays in fp32: 16-bit pixel values exceed the range of fp16.

    Args:
        graph: Output of `simplify_graph`.

    Raises:
        MissingExtraError: `onnx` or `onnxruntime` is not installed.
        ExportError: The result is not a valid graph.
    """
    onnx, _ = _packages("A graph in fp16")
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load_from_string(graph)
    model = convert_float_to_float16(
        model, keep_io_types=True, node_block_list=normalisation_nodes(graph)
    )
    _remove_round_trips(onnx, model)
    wrapped = OnnxModel(model)
    wrapped.prune_graph()
    wrapped.topological_sort()
    # The list describes the types from before the conversion.
    del model.graph.value_info[:]
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise _not_made(error) from error
    return bytes(model.SerializeToString())


def normalisation_nodes(graph: bytes) -> list[str]:
    """Return the names of the nodes that subtract the mean of pixel values and divide by their
    deviation.

    Args:
        graph: Output of `simplify_graph`.
    """
    onnx, _ = _packages("A graph in another precision")
    model = onnx.load_from_string(graph)
    constant = {tensor.name for tensor in model.graph.initializer}
    carried = {value.name for value in model.graph.input} - constant
    found = []
    for node in model.graph.node:
        others = [name for name in node.input if name not in carried]
        only_constants = len(others) < len(node.input) and constant.issuperset(others)
        if only_constants and node.op_type in ("Sub", "Div", "Add", "Mul"):
            found.append(str(node.name))
            carried |= set(node.output)
    return found


def _fix_types(onnx: Any, model: Any) -> None:
    """Name the type in casts to that of another value, which constant folding needs."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "CastLike" and (kind := types.get(node.input[1])):
            node.op_type = "Cast"
            del node.input[1:]
            node.attribute.append(onnx.helper.make_attribute("to", kind))


def _remove_round_trips(onnx: Any, model: Any) -> None:
    """Remove conversions to fp16 and back between two nodes that compute in fp32."""
    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast"}
    kept = {}
    for name, node in casts.items():
        before = casts.get(node.input[0])
        if before is None or _target(node) != onnx.TensorProto.FLOAT:
            continue
        if _target(before) == onnx.TensorProto.FLOAT16:
            kept[name] = before.input[0]
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = kept.get(name, name)


def _target(cast: Any) -> int:
    return next(int(attribute.i) for attribute in cast.attribute if attribute.name == "to")


def _packages(needed_for: str) -> tuple[Any, Any]:
    with MissingExtraError.on_import("export", needed_for, "onnx"):
        import onnx
        import onnx.checker
        import onnx.shape_inference
        import onnxruntime
    return onnx, onnxruntime


def _not_made(error: Exception) -> ExportError:
    return ExportError(
        f"The graph cannot be converted to another precision: {first_line(error)}.",
        remedy="Export it in fp32, or to another format; report the architecture.",
    )


def quantize_openvino(graph: bytes, samples: Sequence[NDArray[np.float32]]) -> tuple[bytes, bytes]:
    """Return the xml and bin of an int8 model (Jacob et al. 2018; NNCF with full bias correction).

    Quantisation works on OpenVINO's model, because it lost much IoU on the ONNX graph, and on that
    model simplified. As exported, normalisation is separate from its convolution and the bounded
    ReLU has two steps, and NNCF would round the values between them.

    Args:
        graph: Graph of a bundle.
        samples: Images (band, y, x) in pixel values, of one size, typical for the model's use.

    Raises:
        MissingExtraError: NNCF is not installed.
    """
    with MissingExtraError.on_import("export", "An int8 variant", "nncf"):
        import nncf
    import openvino
    from openvino._offline_transformations import apply_moc_transformations

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = openvino.Core().read_model(graph)
    # `openvino.convert_model` does the same without folding constants: the file would then hold
    # every weight twice, and NNCF would neither find nor correct the biases.
    apply_moc_transformations(model, cf=True)
    quantized = nncf.quantize(
        model,
        nncf.Dataset([sample[None] for sample in samples]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(samples),
        fast_bias_correction=False,
    )
    return openvino_files(quantized, half=True)


def quantize_onnx(graph: bytes, samples: Sequence[NDArray[np.float32]]) -> bytes:
    """Return an int8 ONNX graph with pairs of QuantizeLinear and DequantizeLinear.

    ONNX Runtime makes it, with weights quantised per channel and activations by the smallest and
    largest value of the samples.

    Args:
        graph: Output of `lowering.simplify_graph`.
        samples: Images (band, y, x) in pixel values, of one size, typical for the model's use.

    Raises:
        MissingExtraError: ONNX Runtime or `onnx` is not installed.
    """
    with MissingExtraError.on_import("export", "An int8 graph", "onnxruntime"):
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quantize_static,
        )

    class Samples(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            self._given: Iterator[NDArray[np.float32]] = iter(samples)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            sample = next(self._given, None)
            return None if sample is None else {"image": sample[None].astype(np.float32)}

    # Its warning recommends simplifying the graph first, which is done.
    with only_errors(None), tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        given.write_bytes(graph)
        quantize_static(
            given,
            made,
            Samples(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Rounding 16-bit pixel values to 8 bits would lose information.
            nodes_to_exclude=normalisation_nodes(graph),
        )
        return made.read_bytes()


def openvino_files(model: Any, *, half: bool) -> tuple[bytes, bytes]:
    """Return the .xml and the .bin of an OpenVINO model, with fp16 weights if `half`."""
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "model.xml"
        openvino.save_model(model, xml, compress_to_fp16=half)
        return xml.read_bytes(), xml.with_suffix(".bin").read_bytes()
