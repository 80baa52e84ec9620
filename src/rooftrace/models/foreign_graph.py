"""ONNX graphs of other programs: what they take and give, and the wrapping into a bundle's graph.

A bundle's graph takes pixel values and returns probabilities. `wrap_graph` puts the normalisation
before a foreign graph and the activation behind it; the graph between them is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rooftrace.core.errors import BundleError, ConfigError, MissingExtraError
from rooftrace.core.text import first_line

__all__ = ["Activation", "ForeignGraph", "read_foreign_graph", "wrap_graph"]

Activation = Literal["none", "sigmoid", "softmax"]
"""Function that turns the answers of a network into probabilities."""

_INPUT, _OUTPUT = "image", "probabilities"
_OWN = "rooftrace_"
"""Prefix of the values between our nodes and those of the graph."""

_MIN_OPSET = 9
_TAKEN = ("FLOAT", "FLOAT16", "DOUBLE", "UINT8", "UINT16")
_REMEDY = "Export the network again from the program that made it."


@dataclass(frozen=True)
class ForeignGraph:
    """An ONNX graph without a contract.

    Args:
        model: The parsed file.
        source: Name of the file, for messages.
        input: Name of its input.
        output: Name of the output that is used.
        dtype: ONNX type of the input, such as `FLOAT`.
        shape: Sizes (n, band, y, x) of the input; None where any is accepted.
        channels: Channels of the output; None if the graph does not state them.
    """

    model: Any
    source: str
    input: str
    output: str
    dtype: str
    shape: tuple[int | None, ...]
    channels: int | None


def read_foreign_graph(data: bytes, source: str, output: str | None = None) -> ForeignGraph:
    """Read an ONNX file and check what it takes and gives; nothing of it is run.

    Args:
        data: Content of the file.
        source: Name of the file, for messages.
        output: Name of the output to use; needed if the graph has several.

    Raises:
        MissingExtraError: The package onnx is not installed.
        BundleError: It is not an ONNX file, is damaged, names other files, or takes or gives
            something else than images.
        ConfigError: There is no such output, or the graph has several and none is named.
    """
    try:
        import onnx
        from onnx import TensorProto
    except ImportError as error:
        raise MissingExtraError.of("export", "rooftrace import of ONNX files", "onnx") from error
    try:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # onnx and protobuf raise kinds of their own
        raise BundleError(
            f"{source} is not a valid ONNX file: {first_line(error)}.", remedy=_REMEDY
        ) from error
    if any(entry.key == "rooftrace" for entry in model.metadata_props):
        raise BundleError(
            f"{source} carries rooftrace's own contract, so it needs no import.",
            remedy="Use it as it is: rooftrace predict IMAGE -m MODEL.onnx",
        )
    del model.metadata_props[:]
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < _MIN_OPSET:
        raise BundleError(
            f"{source} uses version {opset} of the ONNX operators; expected {_MIN_OPSET} or later.",
            remedy=_REMEDY,
        )
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in held]
    if len(inputs) != 1:
        raise BundleError(
            f"{source} has the inputs {[v.name for v in inputs]}; expected one image.",
            remedy=_REMEDY,
        )
    (given,) = inputs
    shape = _shape(given)
    dtype = TensorProto.DataType.Name(given.type.tensor_type.elem_type)
    if len(shape) != 4 or dtype not in _TAKEN:
        raise BundleError(
            f"{source} takes {dtype} of the shape {_text(shape)}; expected (n, band, y, x) of "
            f"{', '.join(_TAKEN)}.",
            remedy=_REMEDY,
        )
    names = [value.name for value in model.graph.output]
    if output is not None and output not in names:
        raise ConfigError(
            f"{source} has no output {output!r}.", remedy=f"Use --output {' or '.join(names)}."
        )
    if output is None and len(names) != 1:
        raise ConfigError(
            f"{source} has {len(names)} outputs: {', '.join(names)}.",
            remedy="Name the one with the classes of the pixels: --output NAME.",
        )
    chosen = next(v for v in model.graph.output if v.name == (output or names[0]))
    answer = _shape(chosen)
    if answer and len(answer) != 4:
        raise BundleError(
            f"The output {chosen.name} of {source} has the shape {_text(answer)}; expected "
            "(n, channel, y, x).",
            remedy="Use another --output, or export the network with its logits.",
        )
    channels = answer[1] if answer else None
    return ForeignGraph(model, source, given.name, chosen.name, dtype, shape, channels)


def wrap_graph(
    foreign: ForeignGraph,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    channels: int,
    activation: Activation,
    keep: int | None,
) -> bytes:
    """Return the graph with normalisation before it and activation behind it.

    Args:
        foreign: The graph.
        mean, std: One value per band, in pixel values.
        channels: Channels of its answers.
        activation: Activation to add.
        keep: The only channel that is returned; None returns all.

    Raises:
        BundleError: The result is not a valid graph.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.ModelProto()
    model.CopyFrom(foreign.model)
    graph = model.graph
    for name in (_INPUT, _OUTPUT):
        _rename(graph, name, f"{_OWN}inner_{name}")
    inner = {n: f"{_OWN}inner_{n}" if n in (_INPUT, _OUTPUT) else n
             for n in (foreign.input, foreign.output)}  # fmt: skip
    held: list[Any] = []
    before: list[Any] = []
    behind: list[Any] = []

    def constant(name: str, values: Any) -> str:
        held.append(numpy_helper.from_array(values, _OWN + name))
        return _OWN + name

    def step(nodes: list[Any], operator: str, inputs: list[str], name: str, **keys: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [name], name=f"{name}_node", **keys))
        return name

    per_band = {
        name: np.asarray(values, np.float32).reshape(1, -1, 1, 1)
        for name, values in (("mean", mean), ("std", std))
    }
    at = step(before, "Sub", [_INPUT, constant("mean", per_band["mean"])], f"{_OWN}centred")
    at = step(before, "Div", [at, constant("std", per_band["std"])], f"{_OWN}normalised")
    # The graph's own input becomes a value between two nodes, of the type that it had.
    step(before, "Cast", [at], inner[foreign.input], to=getattr(TensorProto, foreign.dtype))
    at = step(behind, "Cast", [inner[foreign.output]], f"{_OWN}answers", to=TensorProto.FLOAT)
    if activation == "softmax":
        # Before version 13 of the operators, Softmax is over all axes from the given one on.
        at = step(behind, "Transpose", [at], f"{_OWN}channels_last", perm=[0, 2, 3, 1])
        at = step(behind, "Softmax", [at], f"{_OWN}shares", axis=3)
        at = step(behind, "Transpose", [at], f"{_OWN}channels_first", perm=[0, 3, 1, 2])
    elif activation == "sigmoid":
        at = step(behind, "Sigmoid", [at], f"{_OWN}activated")
    if keep is not None:
        chosen = constant("channel", np.array([keep], np.int64))
        at = step(behind, "Gather", [at, chosen], f"{_OWN}building", axis=1)
    step(behind, "Identity", [at], _OUTPUT)

    _, bands, height, width = foreign.shape
    nodes = [*before, *graph.node, *behind]
    kept = [value for value in graph.input if value.name != inner[foreign.input]]
    # The sizes of values in between may be those of one image; batches have any number of them.
    for field in (graph.node, graph.input, graph.output, graph.value_info):
        del field[:]
    graph.node.extend(nodes)
    graph.initializer.extend(held)
    sizes: list[str | int | None] = ["n", bands or len(mean), height or "y", width or "x"]
    graph.input.append(helper.make_tensor_value_info(_INPUT, TensorProto.FLOAT, sizes))
    graph.input.extend(kept)
    sizes[1] = 1 if keep is not None else channels
    graph.output.append(helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, sizes))
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # onnx raises kinds of its own
        raise BundleError(
            f"{foreign.source} cannot be wrapped: {first_line(error)}.", remedy=_REMEDY
        ) from error
    result: bytes = model.SerializeToString()
    return result


def _rename(graph: Any, old: str, new: str) -> None:
    """Rename a value of a graph and of the graphs inside its nodes."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
        for attribute in node.attribute:
            for inside in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                _rename(inside, old, new)
    named = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for value in named:
        if value.name == old:
            value.name = new
    for sparse in graph.sparse_initializer:
        if sparse.values.name == old:
            sparse.values.name = new


def _shape(value: Any) -> tuple[int | None, ...]:
    """Return the sizes of a value; None where any is accepted, empty if they are not stated."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    )


def _text(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
