"""The graph of a bundle made ready for what is done to it: simplified, and in half precision."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rooftrace.core.errors import ExportError, MissingExtraError

__all__ = ["in_half_precision", "normalising_nodes", "simplified"]


def simplified(graph: bytes) -> bytes:
    """The same network with constants folded, and BatchNorm in the convolution before it.

    A bundle's graph keeps both apart, and stores weights as fp16 with casts behind them; engines
    fold that when they load it. What rounds a graph must see what will be computed: quantised as
    it is, values would be rounded that are never computed.

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
    # ONNX Runtime lists all that it knows.
    used = {node.domain for node in model.graph.node}
    opsets = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    return bytes(model.SerializeToString())


def in_half_precision(graph: bytes) -> bytes:
    """A graph that computes in fp16; it takes and gives fp32.

    The normalisation stays in fp32: pixel values of 16 bits go beyond what fp16 holds.

    Args:
        graph: as `simplified` leaves it.

    Raises:
        MissingExtraError: `onnx` or `onnxruntime` is not installed.
        ExportError: what came out is no valid graph.
    """
    onnx, _ = _packages("A graph in fp16")
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load_from_string(graph)
    model = convert_float_to_float16(
        model, keep_io_types=True, node_block_list=normalising_nodes(graph)
    )
    _without_detours(onnx, model)
    wrapped = OnnxModel(model)
    wrapped.prune_graph()
    wrapped.topological_sort()
    # Listed for what they were before.
    del model.graph.value_info[:]
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise _not_made(error) from error
    return bytes(model.SerializeToString())


def normalising_nodes(graph: bytes) -> list[str]:
    """Names of the nodes that subtract the mean of pixel values and divide by their deviation.

    Args:
        graph: as `simplified` leaves it.
    """
    onnx, _ = _packages("A graph in another precision")
    model = onnx.load_from_string(graph)
    constant = {tensor.name for tensor in model.graph.initializer}
    carried = {value.name for value in model.graph.input} - constant
    found = []
    for node in model.graph.node:
        others = [name for name in node.input if name not in carried]
        alone = len(others) < len(node.input) and constant.issuperset(others)
        if alone and node.op_type in ("Sub", "Div", "Add", "Mul"):
            found.append(str(node.name))
            carried |= set(node.output)
    return found


def _fix_types(onnx: Any, model: Any) -> None:
    """Casts to the type of another value say which it is: that of a value is not constant."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "CastLike" and (kind := types.get(node.input[1])):
            node.op_type = "Cast"
            del node.input[1:]
            node.attribute.append(onnx.helper.make_attribute("to", kind))


def _without_detours(onnx: Any, model: Any) -> None:
    """Values that stay in fp32 from one node to the next are not rounded on their way."""
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
    try:
        import onnx
        import onnx.checker
        import onnx.shape_inference
    except ImportError as error:
        raise MissingExtraError.of("export", needed_for, "onnx") from error
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError.of("export", needed_for, "onnxruntime") from error
    return onnx, onnxruntime


def _not_made(error: Exception) -> ExportError:
    told = (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(".")
    return ExportError(
        f"The graph cannot be brought to another precision: {told}.",
        remedy="Export it in fp32, or to another kind of file; report the architecture.",
    )
