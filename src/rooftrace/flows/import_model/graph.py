"""Import of an ONNX graph without a contract.

The graph is wrapped, with the normalisation before it and the activation behind it. Both are run on
the same tiles.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError, MissingExtraError
from rooftrace.core.text import first_line, plural
from rooftrace.engines.select import load_engine
from rooftrace.flows.import_model.options import Activation, ImportOptions
from rooftrace.flows.import_model.run import (
    Channels,
    DrawTiles,
    ImportedModel,
    check_finite,
    make_spec,
    resolve_channels,
)
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.spec import BundleSpec

_ROUNDING = 1e-3
"""Largest deviation from one of a sum of probabilities that rounding explains."""

_MULTIPLE_PX = 32
_INPUT, _OUTPUT, _INNER, _OURS = "image", "probabilities", "rooftrace_inner_", "rooftrace_"
"""Names of the input and the output of a bundle's graph, and prefixes of values of the foreign
graph that have one of these names, and of the values around it."""

_NUMPY = {"FLOAT": "float32", "FLOAT16": "float16", "DOUBLE": "float64", "UINT8": "uint8",
          "UINT16": "uint16"}  # fmt: skip
_REMEDY = "Export the network again from the program that made it."
_DYNAMIC = (
    "Export it in evaluation mode and with a dynamic batch axis: torch.onnx.export(…, "
    "input_names=['x'], dynamic_axes={'x': {0: 'n'}}, dynamo=False)."
)


@dataclass(frozen=True)
class ForeignGraph:
    """An ONNX graph without a contract.

    Args:
        source: Name of the file, for messages.
        dtype: ONNX type of the input, such as `FLOAT`.
        shape: Sizes (n, band, y, x) of the input; None where any is accepted.
    """

    model: Any
    source: str
    input: str
    output: str
    dtype: str
    shape: tuple[int | None, ...]
    channels: int


def read_foreign_graph(data: bytes, source: str, output: str | None = None) -> ForeignGraph:
    """Read an ONNX file and check its input and output; nothing of it is run.

    Args:
        source: Name of the file, for messages.
        output: Name of the output to use; needed if the graph has several.

    Raises:
        BundleError: It is not an ONNX file, is damaged, or takes or gives something else than
            images.
        ConfigError: There is no such output, or the graph has several and none is named.
    """
    with MissingExtraError.on_import("export", "rooftrace import of ONNX files", "onnx"):
        import onnx
        import onnxruntime  # noqa: F401
        from onnx import TensorProto
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
    initial = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initial]
    outputs = {value.name: value for value in model.graph.output}
    if len(inputs) != 1:
        raise BundleError(
            f"{source} has the inputs {[v.name for v in inputs]}; expected one image.",
            remedy=_REMEDY,
        )
    if output not in outputs and (output or len(outputs) != 1):
        raise ConfigError(
            f"{source} has the outputs {', '.join(outputs)}; received --output {output}.",
            remedy="Name the one with the classes of the pixels: --output NAME.",
        )
    name = output or next(iter(outputs))
    shape, out_shape = _shape(inputs[0]), _shape(outputs[name])
    dtype = TensorProto.DataType.Name(inputs[0].type.tensor_type.elem_type)
    if len(shape) != 4 or dtype not in _NUMPY or len(out_shape) != 4 or out_shape[1] is None:
        raise BundleError(
            f"{source} takes {dtype} of the shape {shape} and gives the shape {out_shape}; "
            f"expected (n, band, y, x) of {', '.join(_NUMPY)}, and (n, channel, y, x) with a fixed "
            "number of channels. None stands for any size.",
            remedy="Use another --output, or export the network with its logits; a graph of (n, y, "
            "x, band) by tf2onnx with --inputs-as-nchw INPUT --outputs-as-nchw OUTPUT.",
        )
    if shape[0] not in (None, 1):
        raise BundleError(
            f"{source} takes batches of exactly {shape[0]} images; expected any number.",
            remedy=_DYNAMIC,
        )
    return ForeignGraph(model, source, inputs[0].name, name, dtype, shape, out_shape[1])


def _shape(value: Any) -> tuple[int | None, ...]:
    """Return the sizes of a value; None where any is accepted, empty if they are not stated."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    )


def wrap_graph(
    foreign: ForeignGraph, mean: Sequence[float], std: Sequence[float], channels: Channels
) -> bytes:
    """Return the graph with normalisation before it and activation behind it.

    Args:
        mean, std: One value per band, in pixel values.
        channels: Meaning of the channels of its output.

    Raises:
        BundleError: The result is not a valid graph.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.ModelProto()
    model.CopyFrom(foreign.model)
    graph = model.graph
    for name in (_INPUT, _OUTPUT):
        _rename(graph, name, _INNER + name)
    inner_input, inner_output = (
        _INNER + name if name in (_INPUT, _OUTPUT) else name
        for name in (foreign.input, foreign.output)
    )
    constants = {"mean": _per_band(mean), "std": _per_band(std)}
    # The graph's own input becomes a value between two nodes, of the type that it had.
    own_type = getattr(TensorProto, foreign.dtype)
    before = _chain(
        _INPUT, inner_input,
        ("Sub", "mean", {}), ("Div", "std", {}), ("Cast", "", {"to": own_type}),
    )  # fmt: skip
    behind: list[tuple[str, str, dict[str, Any]]] = [("Cast", "", {"to": TensorProto.FLOAT})]
    if channels.activation == "softmax":
        # Before version 13 of the operators, Softmax is over all axes from the given one on.
        behind += [
            ("Transpose", "", {"perm": [0, 2, 3, 1]}),
            ("Softmax", "", {"axis": 3}),
            ("Transpose", "", {"perm": [0, 3, 1, 2]}),
        ]
    elif channels.activation == "sigmoid":
        behind.append(("Sigmoid", "", {}))
    if channels.keep is not None:
        constants["channel"] = np.array([channels.keep], np.int64)
        behind.append(("Gather", "channel", {"axis": 1}))
    behind.append(("Identity", "", {}))

    _, bands, height, width = foreign.shape
    nodes = [*before, *graph.node, *_chain(inner_output, _OUTPUT, *behind)]
    kept = [value for value in graph.input if value.name != inner_input]
    # The sizes of values in between may be those of one image; batches have any number of them.
    for field in (graph.node, graph.input, graph.output, graph.value_info, model.metadata_props):
        del field[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(array, _OURS + name) for name, array in constants.items()
    )
    sizes: list[str | int | None] = ["n", bands or len(mean), height or "y", width or "x"]
    graph.input.append(helper.make_tensor_value_info(_INPUT, TensorProto.FLOAT, sizes))
    graph.input.extend(kept)
    sizes[1] = 1 if channels.keep is not None else channels.count
    graph.output.append(helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, sizes))
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # onnx raises kinds of its own
        raise BundleError(
            f"{foreign.source} cannot be wrapped: {first_line(error)}.", remedy=_REMEDY
        ) from error
    result: bytes = model.SerializeToString()
    return result


def _chain(first: str, last: str, *steps: tuple[str, str, dict[str, Any]]) -> list[Any]:
    """Return nodes from one value to another: operator, constant ("" for none) and attributes."""
    from onnx import helper

    nodes, at = [], first
    for number, (operator, constant, attributes) in enumerate(steps):
        to = last if number == len(steps) - 1 else f"{_OURS}{last}_{number}"
        inputs = [at, _OURS + constant] if constant else [at]
        nodes.append(helper.make_node(operator, inputs, [to], name=f"{to}_node", **attributes))
        at = to
    return nodes


def _rename(graph: Any, old: str, new: str) -> None:
    """Rename a value of a graph and of the graphs inside its nodes.

    `onnx.compose.add_prefix` does not rename what an inner graph reads of the outer one.
    """
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
        for attribute in node.attribute:
            for inside in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                _rename(inside, old, new)
    named = [one.values for one in graph.sparse_initializer]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *named):
        if value.name == old:
            value.name = new


def import_graph(path: Path, options: ImportOptions, draw: DrawTiles) -> ImportedModel:
    """Return an ONNX graph with the contract that the options give, run on tiles."""
    network = {
        "--architecture": options.architecture,
        "--encoder": options.encoder,
        "--set": options.overrides,
    }
    if unwanted := [name for name, value in network.items() if value]:
        raise ConfigError(
            f"{unwanted[0]} was given, but {path} is an ONNX file, which holds its network.",
            remedy="Leave it out.",
        )
    data, source = path.read_bytes(), str(path)
    foreign = read_foreign_graph(data, source, options.output)
    if foreign.shape[1] not in (None, len(options.bands)):
        raise ConfigError(
            f"{source} takes {plural(foreign.shape[1] or 0, 'band')}, but --bands names "
            f"{len(options.bands)}: {', '.join(options.bands)}.",
            remedy="Give --bands in the order of its input, or export it as (n, band, y, x).",
        )
    if options.activation is None:
        nodes = foreign.model.graph.node
        last = next((node.op_type for node in nodes if foreign.output in node.output), "")
        raise ConfigError(
            f"The activation of {source} is not known; its last operator is {last}.",
            remedy="Give --activation none if its output is a probability, sigmoid or softmax.",
        )
    multiple_px, input_px = _input_size(foreign, options)
    channels = resolve_channels(foreign.channels, options, options.activation, source)
    spec = make_spec(options, channels, multiple_px=multiple_px, input_px=input_px, training={})
    tiles = draw(spec)
    graph = wrap_graph(foreign, spec.mean, spec.std, channels)
    expected = _run_original(data, foreign, spec, channels, tiles.images)
    output = _run_wrapped(graph, spec, np.stack(tiles.images), source)
    record = {"kind": "onnx", "output": foreign.output, "activation": channels.activation}
    notes = ["the model has no weights that training can start from: only its graph is known"]
    if input_px is None and options.multiple_px is None:
        notes.append(
            f"height and width of its input are taken to be multiples of {_MULTIPLE_PX}: give "
            "--multiple for another number"
        )
    return ImportedModel(
        spec, {GRAPH_NAME: graph}, "onnxruntime", expected, output, tiles, record, tuple(notes)
    )


def _input_size(foreign: ForeignGraph, options: ImportOptions) -> tuple[int, int | None]:
    """Return the multiple of an input's sides, and the only side if there is one."""
    height, width = foreign.shape[2:]
    side = height or width
    if side is None:
        return options.multiple_px or _MULTIPLE_PX, options.input_px
    if (height and width and height != width) or options.input_px not in (None, side):
        raise ConfigError(
            f"{foreign.source} takes images of {height or 'any'} rows × {width or 'any'} columns; "
            f"expected squares{f' of {options.input_px} px' if options.input_px else ''}.",
            remedy="Export it for squares, or for images of any size; leave out --input-px.",
        )
    return side, side


def _run(
    graph: bytes, batches: Sequence[NDArray[Any]], output: str | None, source: str
) -> list[NDArray[np.float32]]:
    """Return an output of a graph, or its only one, for each batch, by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    names = None if output is None else [output]
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        answers = [session.run(names, {name: batch})[0] for batch in batches]
    except Exception as error:  # ONNX Runtime raises kinds of its own
        count = len(batches[0])
        raise BundleError(
            f"{source} cannot be run on {plural(count, 'image')} at once: {first_line(error)}.",
            remedy=_DYNAMIC if count > 1 else _REMEDY,
        ) from error
    return [np.asarray(answer, np.float32) for answer in answers]


def _run_original(
    data: bytes, foreign: ForeignGraph, spec: BundleSpec, channels: Channels,
    tiles: Sequence[NDArray[Any]],
) -> NDArray[np.float32]:  # fmt: skip
    """Return the probabilities of the original, tile by tile."""
    source, dtype = foreign.source, _NUMPY[foreign.dtype]
    mean, std = _per_band(spec.mean), _per_band(spec.std)
    batches = [((tile[None].astype(np.float32) - mean) / std).astype(dtype) for tile in tiles]
    outputs = []
    for tile, output in zip(tiles, _run(data, batches, foreign.output, source)):
        expected = (1, channels.count, *tile.shape[-2:])
        if output.shape != expected:
            raise BundleError(
                f"{source} has an output of {output.shape} for an image of {(1, *tile.shape)}; "
                f"expected {expected}.",
                remedy="Export the network with an output for each pixel, at the size of its "
                "input; --output names another output.",
            )
        # Before the activation, which turns infinity into a probability.
        check_finite(output, source)
        outputs.append(output)
    values = np.concatenate(outputs)
    if channels.activation != "none" and values.min() >= 0 and values.max() <= 1:
        raise ConfigError(
            f"The output of {source} is from {values.min():.4g} to {values.max():.4g}: it is a "
            f"probability, to which --activation {channels.activation} would be applied again.",
            remedy="Give --activation none.",
        )
    probability = activated(values, channels.activation)
    if channels.keep is not None:
        probability = probability[:, channels.keep : channels.keep + 1]
    low, high = float(probability.min()), float(probability.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ConfigError(
            f"The output of {source} has values from {low:.4g} to {high:.4g}, which are not "
            "probabilities.",
            remedy="Give --activation sigmoid or softmax.",
        )
    return probability


def _run_wrapped(
    graph: bytes, spec: BundleSpec, tiles: NDArray[Any], source: str
) -> NDArray[np.float32]:
    """Return the probabilities of the bundle's graph for all tiles as one batch.

    Raises:
        BundleError: The graph is for one image only, or its output is not a probability. That a
            batch of one is stated does not show it: most graphs take any number all the same.
    """
    # By ONNX Runtime first, which raises an error where OpenVINO ends the process.
    (answer,) = _run(graph, [tiles.astype(np.float32)], None, source)
    bundle = ModelBundle(spec, {GRAPH_NAME: graph}, source)
    engine = load_engine(bundle, engine="openvino", precision="fp32")
    single, output = engine.run(tiles[:1]), engine.run(tiles)
    # The classes of one image may be shared out among the batch.
    is_one = len(answer) == len(tiles) and output.shape[1:] == single.shape[1:]
    if not is_one or np.abs(output[:1] - single).max() > _ROUNDING:
        raise BundleError(
            f"The output of {source} for an image in a batch differs from that for the image "
            "alone.",
            remedy=_DYNAMIC,
        )
    total = output.sum(axis=1)
    if spec.channels > 1 and np.abs(total - 1).max() > _ROUNDING:
        raise BundleError(
            f"The probabilities of {source} sum to {total.min():.3f} to {total.max():.3f} over the "
            "classes; expected 1.",
            remedy="Give the activation that the network needs: --activation softmax, or sigmoid "
            "for classes that overlap.",
        )
    return output


def activated(output: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """Return the probabilities of a (n, channel, y, x) output."""
    if activation == "none":
        return output
    if activation == "sigmoid":
        halved = np.tanh(output.astype(np.float64) / 2)  # does not overflow
        return np.asarray((1 + halved) / 2, np.float32)
    shares = np.exp(output.astype(np.float64) - output.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


def _per_band(values: Sequence[float]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32).reshape(1, -1, 1, 1)
