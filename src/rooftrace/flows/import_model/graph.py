"""Import of an ONNX graph without a contract.

The graph is wrapped: the normalisation goes before it; interpolation to the size of the image, as
SegFormer needs it, and the activation behind it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import BundleError, ConfigError, MissingExtraError
from rooftrace.core.text import first_line, plural
from rooftrace.engines.select import load_engine
from rooftrace.flows.import_model.options import ImportOptions
from rooftrace.flows.import_model.run import (
    MAX_DIFFERENCE,
    Channels,
    DrawTiles,
    ImportedModel,
    check_finite,
    make_spec,
    refuse_options,
    resolve_channels,
)
from rooftrace.models.bundle import GRAPH_NAME, ModelBundle
from rooftrace.models.spec import BundleSpec

_ROUNDING = 1e-3
"""Largest deviation from one of a sum of probabilities that rounding explains."""

_MULTIPLE_PX, _PROBE_PX = 32, 256
_INPUT, _OUTPUT, _INNER, _OURS = "image", "probabilities", "rooftrace_inner_", "rooftrace_"
"""Names of the input and the output of a bundle's graph, and prefixes of values of the foreign
graph that have one of these names, and of the values around it."""

_NUMPY = {"FLOAT": "float32", "FLOAT16": "float16", "DOUBLE": "float64", "UINT8": "uint8",
          "UINT16": "uint16"}  # fmt: skip
_REMEDY = "Export the network again from the program that made it, with opset_version=17."
_NO_CLASSES = (
    "If none has them, as in YOLO and Mask2Former, predict with the program that made it, and give "
    "its masks to rooftrace vectorize or evaluate --predictions."
)
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
        is_nhwc: Whether it takes (n, y, x, band), as graphs of TensorFlow do.
        channel_axis, channels: Of the output, as it was on one image; 0 if it has no such axis.
        factor: Pixels of the input, in a row, for one of the output.
        class_index: Class of the buildings, if the output holds class indices.
    """

    model: Any
    source: str
    input: str
    output: str
    dtype: str
    shape: tuple[int | None, ...]
    is_nhwc: bool = False
    channel_axis: int = 1
    channels: int = 1
    factor: int = 1
    class_index: int | None = None


def read_foreign_graph(
    data: bytes, source: str, output: str | None = None, bands: int = 3
) -> ForeignGraph:
    """Read an ONNX file and check its input and output; nothing of it is run.

    Args:
        source: Name of the file, for messages.
        output: Name of the output to use; needed if the graph has several.
        bands: Number of bands of the images.

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
            f"{source} has the outputs {', '.join(outputs)}; --output names {output or 'none'}.",
            remedy=f"Name the one with the classes of the pixels: --output NAME. {_NO_CLASSES}",
        )
    shape = _shape(inputs[0])
    dtype = TensorProto.DataType.Name(inputs[0].type.tensor_type.elem_type)
    if len(shape) != 4 or dtype not in _NUMPY:
        raise BundleError(
            f"{source} takes {dtype} of the shape {shape}; expected (n, band, y, x) or (n, y, x, "
            f"band) of {', '.join(_NUMPY)}. None stands for any size.",
            remedy=_REMEDY,
        )
    is_nhwc = shape[3] == bands != shape[1] or (
        shape[3] is not None and shape[1] == shape[2] and shape[3] < (shape[1] or math.inf)
    )
    if is_nhwc:
        shape = shape[0], shape[3], *shape[1:3]
    if shape[0] not in (None, 1):
        raise BundleError(
            f"{source} takes batches of exactly {shape[0]} images; expected any number.",
            remedy=_DYNAMIC,
        )
    name = output or next(iter(outputs))
    return ForeignGraph(model, source, inputs[0].name, name, dtype, shape, is_nhwc)


def with_output(foreign: ForeignGraph, values: NDArray[Any], image: NDArray[Any]) -> ForeignGraph:
    """Return the graph with the facts of its output that one image (1, band, y, x) shows.

    Raises:
        BundleError: The output is not one value, or one for each class, for each pixel.
    """
    shape, sides = values.shape, image.shape[2:]
    for axis in {3: (0,), 4: (1, 3)}.get(len(shape), ()):
        own = np.delete(shape, sorted({0, axis}))
        factor = sides[0] // own[0]
        if factor and tuple(own * factor) == sides:
            channels = shape[axis] if axis else 1
            return replace(foreign, channel_axis=axis, channels=channels, factor=int(factor))
    raise BundleError(
        f"{foreign.source} has an output of {shape} for an image of {image.shape}; expected "
        "(n, channel, y, x), (n, y, x, channel) or (n, y, x) with the sides of the image, or "
        "a fraction of them.",
        remedy=f"Export the network with its logits; --output names another output. {_NO_CLASSES}",
    )


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
        *([("Transpose", "", {"perm": [0, 2, 3, 1]})] if foreign.is_nhwc else ()),
    )  # fmt: skip
    behind: list[tuple[str, str, dict[str, Any]]] = []
    if foreign.class_index is not None:
        constants["class"] = np.array([foreign.class_index], np.int64)
        behind += [("Cast", "", {"to": TensorProto.INT64}), ("Equal", "class", {})]
    behind.append(("Cast", "", {"to": TensorProto.FLOAT}))
    opset = next(one.version for one in model.opset_import if not one.domain)
    if not foreign.channel_axis and opset < 13:
        behind.append(("Unsqueeze", "", {"axes": [1]}))
    elif not foreign.channel_axis:
        constants["axes"] = np.array([1], np.int64)
        behind.append(("Unsqueeze", "axes", {}))
    elif foreign.channel_axis == 3:
        behind.append(("Transpose", "", {"perm": [0, 3, 1, 2]}))
    if foreign.factor > 1:
        constants["roi"] = np.zeros(0, np.float32)
        constants["scales"] = np.array([1, 1, foreign.factor, foreign.factor], np.float32)
        behind.append(("Resize", "roi scales", {"mode": "linear"}))
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
        constants["channel"] = np.array(channels.keep, np.int64)
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
    sizes[1] = channels.count if channels.keep is None else len(channels.keep)
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
    """Return nodes from one value to another: operator, names of constants, and attributes."""
    from onnx import helper

    nodes, at = [], first
    for number, (operator, constants, attributes) in enumerate(steps):
        to = last if number == len(steps) - 1 else f"{_OURS}{last}_{number}"
        inputs = [at, *(_OURS + name for name in constants.split())]
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
    refuse_options(
        f"{path} is an ONNX file, which holds its network",
        {"--architecture": options.architecture, "--encoder": options.encoder,
         "--set": options.overrides},
    )  # fmt: skip
    data, source = path.read_bytes(), str(path)
    foreign = read_foreign_graph(data, source, options.output, len(options.bands))
    if foreign.shape[1] not in (None, len(options.bands)):
        raise ConfigError(
            f"{source} takes {plural(foreign.shape[1] or 0, 'band')}, but --bands names "
            f"{len(options.bands)}: {', '.join(options.bands)}.",
            remedy="Give --bands in the order of its input.",
        )
    multiple_px, input_px = _input_size(foreign, options)
    side = input_px or multiple_px * -(-_PROBE_PX // multiple_px)
    image = np.zeros((1, len(options.bands), side, side), np.float32)
    (values,) = _run_images(data, foreign, [image])
    foreign = with_output(foreign, values, image)
    lists = [v.name for v in foreign.model.graph.output if len(_shape(v)) == 3]
    if lists and foreign.channels not in (1, len(options.classes)):
        raise BundleError(
            f"The output {foreign.output} of {source} has {foreign.channels} channels beside a "
            f"list, {lists[0]}: expected one for each class. In YOLO these are parts of masks.",
            remedy=_NO_CLASSES,
        )
    if foreign.channels == 1 and np.issubdtype(values.dtype, np.integer):
        is_given = options.activation not in (None, "none")
        refuse_options(f"the output of {source} holds class indices", {"--activation": is_given})
        found = resolve_channels(len(options.classes), options, "sigmoid", source)
        assert found.keep is not None
        foreign = replace(foreign, class_index=found.keep[0])
        channels = replace(found, count=1, activation="none", keep=None)
    elif options.activation is None:
        nodes = foreign.model.graph.node
        last = next((node.op_type for node in nodes if foreign.output in node.output), "")
        raise ConfigError(
            f"The activation of {source} is not known; its last operator is {last}.",
            remedy="Give --activation none if its output is a probability, sigmoid or softmax.",
        )
    else:
        channels = resolve_channels(foreign.channels, options, options.activation, source)
    spec = make_spec(options, channels, multiple_px=multiple_px, input_px=input_px, training={})
    tiles = draw(spec)
    outputs = _run_original(data, foreign, spec, channels, tiles.images)
    expected = np.concatenate([_probabilities(one, foreign, channels) for one in outputs])
    graph = wrap_graph(foreign, spec.mean, spec.std, channels)
    output = _run_wrapped(graph, spec, np.stack(tiles.images), source)
    record = {"kind": "onnx", "output": foreign.output, "activation": channels.activation}
    notes = ["the model has no weights that training can start from: only its graph is known"]
    if input_px is None and options.multiple_px is None:
        notes.append(
            f"height and width of its input are taken to be multiples of {_MULTIPLE_PX}: give "
            "--multiple for another number"
        )
    if foreign.class_index is not None:
        notes.append("its output holds class indices: scores are 0 or 1")
    if foreign.factor > 1:
        notes.append(f"its output of 1/{foreign.factor} of the size of its input is interpolated")
    return ImportedModel(
        spec, {GRAPH_NAME: graph}, "onnxruntime", expected, output, tiles, record, tuple(notes),
        # ONNX Runtime rounds the values of a graph of halves, OpenVINO does not.
        max_difference=4e-3 if outputs[0].dtype == np.float16 else MAX_DIFFERENCE,
    )  # fmt: skip


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
) -> list[NDArray[Any]]:
    """Return an output of a graph, or its only one, for each batch, by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    names = None if output is None else [output]
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return [np.asarray(session.run(names, {name: batch})[0]) for batch in batches]
    except Exception as error:  # ONNX Runtime raises kinds of its own
        count = len(batches[0])
        raise BundleError(
            f"{source} cannot be run on {plural(count, 'image')} at once: {first_line(error)}.",
            remedy=_DYNAMIC if count > 1 else _REMEDY,
        ) from error


def _run_images(
    data: bytes, foreign: ForeignGraph, images: Sequence[NDArray[np.float32]]
) -> list[NDArray[Any]]:
    """Return the output of the original for normalised images (1, band, y, x), one by one."""
    axes = (0, 2, 3, 1) if foreign.is_nhwc else (0, 1, 2, 3)
    batches = [image.transpose(axes).astype(_NUMPY[foreign.dtype]) for image in images]
    return _run(data, batches, foreign.output, foreign.source)


def _run_original(
    data: bytes, foreign: ForeignGraph, spec: BundleSpec, channels: Channels,
    tiles: Sequence[NDArray[Any]],
) -> list[NDArray[Any]]:  # fmt: skip
    """Return the output of the original for each tile, which is what the options say."""
    source, mean, std = foreign.source, _per_band(spec.mean), _per_band(spec.std)
    images = [(tile[None].astype(np.float32) - mean) / std for tile in tiles]
    outputs = _run_images(data, foreign, images)
    for image, output in zip(images, outputs):
        if with_output(foreign, output, image) != foreign:
            raise BundleError(
                f"{source} has an output of {output.shape} for an image of {image.shape}: the "
                "number of classes, or the scale, depends on the size.",
                remedy="Give the size of its export: --input-px N.",
            )
        check_finite(output, source)
    low, high = min(map(np.min, outputs)), max(map(np.max, outputs))
    if foreign.class_index is not None:
        return outputs
    is_whole = high > 1 and all((output == np.rint(output)).all() for output in outputs)
    is_none = channels.activation == "none"
    if is_whole or (is_none and (low < -_ROUNDING or high > 1 + _ROUNDING)):
        what = "class indices in fractions" if is_whole else "not probabilities"
        raise ConfigError(
            f"The output of {source} has values from {low:.4g} to {high:.4g}, which are {what}.",
            remedy="Export logits, or integers." if is_whole else
            "Give --activation sigmoid or softmax.",
        )  # fmt: skip
    if not is_none and low >= 0 and high <= 1:
        raise ConfigError(
            f"The output of {source} is from {low:.4g} to {high:.4g}: it is a "
            f"probability, to which --activation {channels.activation} would be applied again.",
            remedy="Give --activation none.",
        )
    return outputs


def _probabilities(
    output: NDArray[Any], foreign: ForeignGraph, channels: Channels
) -> NDArray[np.float32]:
    """Return what the bundle should return, computed from the original's output by NumPy."""
    if foreign.class_index is not None:
        output = output == foreign.class_index
    values = output.astype(np.float32)
    values = np.moveaxis(values, 3, 1) if foreign.channel_axis == 3 else values
    values = values if foreign.channel_axis else values[:, None]
    if foreign.factor > 1:
        by = foreign.factor
        values = np.stack([cv2.resize(one, None, fx=by, fy=by) for one in values[0]])[None]
    if channels.activation == "sigmoid":
        values = np.asarray((1 + np.tanh(values / 2)) / 2, np.float32)  # does not overflow
    elif channels.activation == "softmax":
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    return values if channels.keep is None else values[:, list(channels.keep)]


def _run_wrapped(
    graph: bytes, spec: BundleSpec, tiles: NDArray[Any], source: str
) -> NDArray[np.float32]:
    """Return the probabilities of the bundle's graph for all tiles as one batch.

    Raises:
        BundleError: The graph is for one image only, or its output is not a probability. That a
            batch of one is stated does not show it: most graphs take any number all the same.
    """
    # By ONNX Runtime first, which raises an error where OpenVINO ends the process.
    (batch,) = _run(graph, [tiles.astype(np.float32)], None, source)
    bundle = ModelBundle(spec, {GRAPH_NAME: graph}, source)
    engine = load_engine(bundle, engine="openvino", precision="fp32")
    single, output = engine.run(tiles[:1]), engine.run(tiles)
    # The classes of one image may be shared out among the batch.
    is_one = len(batch) == len(tiles) and output.shape[1:] == single.shape[1:]
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


def _per_band(values: Sequence[float]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32).reshape(1, -1, 1, 1)
