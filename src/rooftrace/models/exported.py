"""An exported model: one file in the format of an engine that carries the contract of its bundle.

    model.onnx             the contract is the entry `rooftrace` of its `metadata_props`; further
                           entries are for Deepness, a plugin of QGIS
    model.xml, model.bin   OpenVINO's two files; the contract is in the `rt_info` of the first
    model.engine           a TensorRT plan behind a line that names it, and the contract

The contract is one JSON object: the bundle that it was made from, how it was made, and the bundle's
own `BundleSpec` with the sha256 of the graph without the contract. Reading returns a `ModelBundle`,
so that an exported model can be used wherever a bundle can.

ONNX and OpenVINO files of any origin are as safe as bundles: nothing in them names another file
that is opened. A TensorRT plan holds code for one GPU, which runs when it is loaded: load only
plans that you made yourself.

The second half reads and writes the wire format of ONNX as far as this needs, without the onnx
package: metadata, references to other files, and inputs that OpenVINO reads unchecked.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from html import unescape
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, get_args
from xml.sax.saxutils import escape

from pydantic import Field, ValidationError

from rooftrace.core.config import Config, invalid_values
from rooftrace.core.errors import BundleError
from rooftrace.core.text import plural, reason_of
from rooftrace.io.files import read_head
from rooftrace.models.bundle import (
    BUNDLED_MODELS,
    GRAPH_NAME,
    MAX_PART_BYTES,
    MAX_SPEC_BYTES,
    ModelBundle,
    bundled_model,
    read_bundle,
)
from rooftrace.models.spec import BundlePart, BundleSpec, Precision

__all__ = [
    "READ_BY",
    "SUFFIXES",
    "Contract",
    "Target",
    "cut_metadata",
    "exported_files",
    "part_names",
    "read_model",
    "refuse_external_data",
    "refuse_unsound",
    "with_metadata",
]

Target = Literal["onnx", "openvino", "tensorrt"]
"""Formats that a bundle can be exported to."""

SUFFIXES: dict[Target, str] = {"onnx": ".onnx", "openvino": ".xml", "tensorrt": ".engine"}

READ_BY: dict[Target, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "openvino"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt",),
}
"""Engines that can read each format; the first one is the main engine."""

_KEY = "rooftrace"
_DEEPNESS_KEYS = (
    "model_type", "class_names", "resolution", "tile_size", "tiles_overlap", "seg_thresh",
    "standardization_mean", "standardization_std", "normalization",
)  # fmt: skip
_DEEPNESS_TILE_PX = 512
"""Side of Deepness' tiles in pixels for a graph that accepts several."""

_PLAN_LINE = b"rooftrace tensorrt 1\n"
_PLAN_LENGTH = struct.Struct("<I")
_IN_XML = re.compile(rb'\t\t<info name="rooftrace" value="([^"<>]*)" />\n')
_XML_END = re.compile(rb"\t</rt_info>\s*</net>\s*\Z")
_REMEDY = "Make it again from its bundle: rooftrace export BUNDLE --to …"


class Contract(Config):
    """The contract inside an exported model.

    Args:
        to: Format of the file.
        precision: Precision that was asked for; `spec.variants` has the one that each engine uses.
        bundle_sha256: Hash of the bundle that it was made from.
        made_with: Versions of packages and, for a TensorRT plan, the GPU that it was made for.
        spec: Contract of the bundle, with the parts and variants of this file.
    """

    schema_version: Literal[1] = 1
    to: Target
    precision: Precision
    bundle_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    made_with: dict[str, str] = Field(default_factory=dict)
    spec: BundleSpec

    def with_parts(self, parts: Mapping[str, bytes]) -> Contract:
        """Return the contract with the sizes and hashes of its parts."""
        hashed = {
            name: BundlePart(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
            for name, data in parts.items()
        }
        return self.model_copy(update={"spec": self.spec.model_copy(update={"parts": hashed})})


def part_names(to: Target, precision: Precision) -> tuple[str, ...]:
    """Return the names of the parts of an exported model in its bundle."""
    if to == "onnx":
        # In fp32 it is the bundle's graph, which engines may optimise as they do that graph.
        return (GRAPH_NAME,) if precision == "fp32" else ("variants/model.onnx",)
    if to == "openvino":
        return "variants/model.xml", "variants/model.bin"
    return ("variants/model.engine",)


def exported_files(contract: Contract, parts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of an exported model by their suffix.

    Args:
        contract: The contract; its parts need not be filled in.
        parts: Parts under the names of `part_names`; an OpenVINO model without a contract.
    """
    names = part_names(contract.to, contract.precision)
    if contract.to == "openvino":
        parts = {**parts, names[0]: _with_rt_info(parts[names[0]])}
    if contract.to == "onnx":
        parts = {names[0]: _without_deepness(parts[names[0]])}
    contract = contract.with_parts(parts)
    text = contract.model_dump_json()
    if contract.to == "onnx":
        graph = parts[names[0]]
        for key, value in _for_deepness(contract.spec).items():
            graph = with_metadata(graph, key, json.dumps(value))
        return {".onnx": with_metadata(graph, _KEY, text)}
    if contract.to == "openvino":
        return {".xml": _with_contract(parts[names[0]], text), ".bin": parts[names[1]]}
    encoded = text.encode()
    return {".engine": _PLAN_LINE + _PLAN_LENGTH.pack(len(encoded)) + encoded + parts[names[0]]}


def read_model(path: Path) -> ModelBundle:
    """Open a bundle or an exported model, and check it.

    Args:
        path: Path of the file, or one of `BUNDLED_MODELS`.

    Raises:
        BundleError: The file is neither, is damaged, or is a graph without a contract.
    """
    if str(path) in BUNDLED_MODELS:
        return bundled_model(str(path))
    try:
        head = read_head(path, 64)
    except (OSError, ValueError):
        # It raises an error that gives the reason.
        return read_bundle(path)
    if head.startswith(_PLAN_LINE):
        return _bundle_of(path, "tensorrt", *_cut_plan(_read(path), path))
    if path.suffix.lower() == ".onnx" or head[:1] == b"\x08":
        return _bundle_of(path, "onnx", *_cut_onnx(_read(path), path))
    if head.lstrip().startswith(b"<"):
        return _bundle_of(path, "openvino", *_cut_xml(_read(path), path))
    return read_bundle(path)


def _read(path: Path) -> bytes:
    limit = MAX_PART_BYTES + MAX_SPEC_BYTES
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except (OSError, MemoryError) as error:
        raise BundleError(f"{path} cannot be read: {reason_of(error)}.", remedy=_REMEDY) from error
    if len(data) > limit:
        raise BundleError(
            f"{path} is larger than the {limit} bytes that a model may have.", remedy=_REMEDY
        )
    return data


def _cut_onnx(data: bytes, path: Path) -> tuple[bytes, list[bytes]]:
    try:
        rest, contracts = cut_metadata(data, _KEY)
    except ValueError as error:
        raise BundleError(f"{path} is not an ONNX file: {error}.", remedy=_REMEDY) from error
    return _single_contract(contracts, path, "ONNX graph"), [_without_deepness(rest)]


def _for_deepness(spec: BundleSpec) -> dict[str, object]:
    """Return the metadata by which Deepness sets its options; none for models that it cannot run.

    Names and types are those of its `ModelBase` and `Segmentor`:
    https://github.com/PUTvision/qgis-plugin-deepness. It gives 8-bit pixels divided by 255, less a
    mean, divided by a deviation. The values here undo the division, as normalisation is inside the
    graph. Of several classes it takes the most probable one, to which no threshold applies.
    The threshold of two classes is that of probabilities which are not rounded to 255ths first.
    """
    if spec.dtype != "uint8" or spec.separation is not None:
        return {}
    multiple = spec.input_multiple_px
    tile_px = spec.input_px or -(-_DEEPNESS_TILE_PX // multiple) * multiple
    names = dict(enumerate(spec.classes))
    resolution = {} if spec.gsd_m is None else {"resolution": round(spec.gsd_m * 100, 4)}
    return {
        "model_type": "Segmentor",
        "class_names": [names, names] if spec.is_refined else names,
        **resolution,
        "tile_size": tile_px,
        # Per cent of the tile; half of the overlap is cut off on each side.
        "tiles_overlap": min(math.ceil(200 * spec.context_px / tile_px), 90),
        "seg_thresh": _unrounded(spec.threshold) if spec.is_binary else 0.0,
        "standardization_mean": [0.0] * len(spec.bands),
        "standardization_std": [1 / 255] * len(spec.bands),
        "normalization": "inside the graph, which takes pixel values of 0 to 255",
    }


def _unrounded(threshold: float) -> float:
    """Return the smallest probability that is at least a threshold when rounded to 255ths."""
    return round(max(math.ceil(threshold * 255) - 0.5, 0) / 255, 6)


def _without_deepness(graph: bytes) -> bytes:
    for key in _DEEPNESS_KEYS:
        graph, _ = cut_metadata(graph, key)
    return graph


def _cut_xml(data: bytes, path: Path) -> tuple[bytes, list[bytes]]:
    found = [unescape(one.decode("utf-8", "replace")).encode() for one in _IN_XML.findall(data)]
    text = _single_contract(found, path, "XML file")
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise BundleError(
            f"{path} has no {weights.name} beside it, which must hold its weights.",
            remedy="Copy both files of the exported model.",
        )
    return text, [_IN_XML.sub(b"", data), _read(weights)]


def _cut_plan(data: bytes, path: Path) -> tuple[bytes, list[bytes]]:
    begin = len(_PLAN_LINE) + _PLAN_LENGTH.size
    if len(data) < begin:
        raise BundleError(f"{path} ends within its first line.", remedy=_REMEDY)
    (length,) = _PLAN_LENGTH.unpack(data[len(_PLAN_LINE) : begin])
    return data[begin : begin + length], [data[begin + length :]]


def _single_contract(found: list[bytes], path: Path, kind: str) -> bytes:
    if not found:
        raise BundleError(
            f"{path} is an {kind} without rooftrace's contract, which gives its bands, its metres "
            "per pixel and the meaning of its outputs.",
            remedy="Export it from its bundle: rooftrace export BUNDLE --to onnx -o model.onnx",
        )
    if len(found) > 1:
        raise BundleError(f"{path} holds {len(found)} contracts, expected one.", remedy=_REMEDY)
    return found[0]


def _bundle_of(path: Path, to: Target, text: bytes, parts: list[bytes]) -> ModelBundle:
    if len(text) > MAX_SPEC_BYTES:
        raise BundleError(
            f"{path} holds a contract of {len(text)} bytes; at most {MAX_SPEC_BYTES} are read.",
            remedy=_REMEDY,
        )
    try:
        contract = Contract.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(
            f"{path}: its contract cannot be read: {invalid_values(error, Contract, 1)}.",
            remedy="Update rooftrace if the file is newer than it; else export it again.",
        ) from error
    names = part_names(to, contract.precision)
    spec = contract.spec
    readers = {variant.engine for variant in spec.variants}
    files = {variant.files for variant in spec.variants}
    if contract.to != to or set(spec.parts) != set(names) or not spec.variants:
        raise BundleError(
            f"{path} is a file for {to}, but its contract is for {contract.to} with the parts "
            f"{sorted(spec.parts)[:4]}; expected {list(names)}.",
            remedy=_REMEDY,
        )
    if not readers <= set(READ_BY[to]) or files != {names}:
        raise BundleError(
            f"{path} names the engines {sorted(readers)} with the files {sorted(files)[:4]}; "
            f"expected some of {list(READ_BY[to])} with {list(names)}.",
            remedy=_REMEDY,
        )
    for name, data in zip(names, parts):
        said, digest = spec.parts[name], hashlib.sha256(data).hexdigest()
        if (said.size, said.sha256) != (len(data), digest):
            raise BundleError(
                f"{path}: its {name.rpartition('/')[2]} has changed since it was exported: "
                f"{len(data)} bytes with sha256 {digest[:12]}…, expected {said.size} with "
                f"{said.sha256[:12]}….",
                remedy=_REMEDY,
            )
    if to == "onnx":
        refuse_external_data(parts[0], str(path))
    return ModelBundle(spec, dict(zip(names, parts)), str(path))


def _with_rt_info(xml: bytes) -> bytes:
    """Return an OpenVINO model with an empty `rt_info` at its end, for a contract."""
    if _XML_END.search(xml):
        return xml
    body, end, _ = xml.rpartition(b"</net>")
    if not end:
        raise BundleError("The OpenVINO model to export has no </net>.", remedy=_REMEDY)
    return body + b"\t<rt_info>\n\t</rt_info>\n</net>\n"


def _with_contract(xml: bytes, text: str) -> bytes:
    end = _XML_END.search(xml)
    assert end is not None, "made by _with_rt_info"
    value = escape(text, {'"': "&quot;"}).encode("ascii", "xmlcharrefreplace")
    line = b'\t\t<info name="rooftrace" value="' + value + b'" />\n'
    return xml[: end.start()] + line + xml[end.start() :]


assert set(SUFFIXES) == set(READ_BY) == set(get_args(Target))


# Field numbers of onnx.proto3 that lead from a model to every tensor in it.
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTIONS = 7, 14, 25
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_FUNCTION_NODE = 7
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR = 1, 2, 4
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_ATTRIBUTE_SPARSE, _ATTRIBUTE_SPARSES = 22, 23
_SPARSE_VALUES, _SPARSE_INDICES = 1, 2
_TENSOR_EXTERNAL = 13

_BELOW: dict[str, dict[int, str]] = {
    "model": {_MODEL_GRAPH: "graph", _MODEL_FUNCTIONS: "function"},
    "graph": {_GRAPH_NODE: "node", _GRAPH_INITIALIZER: "tensor", _GRAPH_SPARSE: "sparse"},
    "function": {_FUNCTION_NODE: "node"},
    "node": {_NODE_ATTRIBUTE: "attribute"},
    "attribute": {
        _ATTRIBUTE_TENSOR: "tensor",
        _ATTRIBUTE_GRAPH: "graph",
        _ATTRIBUTE_TENSORS: "tensor",
        _ATTRIBUTE_GRAPHS: "graph",
        _ATTRIBUTE_SPARSE: "sparse",
        _ATTRIBUTE_SPARSES: "sparse",
    },
    "sparse": {_SPARSE_VALUES: "tensor", _SPARSE_INDICES: "tensor"},
}

_LEAST_INPUTS = {
    "Conv": 2, "Pad": 2, "GlobalAveragePool": 1, "GlobalMaxPool": 1, "LogSoftmax": 1, "Max": 1,
    "Mean": 1, "Min": 1, "Sum": 1,
}  # fmt: skip
"""Least number of inputs of the operators without which OpenVINO 2026.4 ends the process. All
operators of ONNX were tried; OpenVINO raises an error for the others."""

_DEEPEST = 64
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


def refuse_external_data(graph: bytes, source: str) -> None:
    """Raise BundleError if an ONNX graph refers to weights in other files, or is damaged.

    Such a graph would make an engine open local files whose names the author of the graph chose.
    """
    try:
        external = _has_external(memoryview(graph), "model", 0)
    except (IndexError, ValueError) as error:
        raise BundleError(
            f"The graph in {source} is not an ONNX file: {error}.",
            remedy="Get the bundle again from where it was trained.",
        ) from error
    if external:
        raise BundleError(
            f"The graph in {source} refers to weights in other files; "
            "expected all of them inside the graph.",
            remedy="Export it again with the weights inside.",
        )


def refuse_unsound(graph: bytes, source: str) -> None:
    """Raise BundleError if OpenVINO should not read an ONNX graph.

    It would open local files whose names the author of the graph chose, or crash, or never end.
    """
    refuse_external_data(graph, source)
    _refuse_missing_inputs(graph, source)
    _refuse_cycles(graph, source)


def _refuse_missing_inputs(graph: bytes, source: str) -> None:
    """Raise BundleError if a node of an ONNX graph lacks inputs that OpenVINO reads unchecked."""
    for node in chain.from_iterable(_bodies(memoryview(graph), "model")):
        operator = b"".join(_names(node, _NODE_OPERATOR)[-1:]).decode("utf-8", "replace")
        least = _LEAST_INPUTS.get(operator, 0)
        given = sum(map(bool, _names(node, _NODE_INPUT)[:least]))
        if given < least:
            raise BundleError(
                f"The graph in {source} has a node {operator} with {plural(given, 'input')}; "
                f"expected at least {least}.",
                remedy="Get the bundle again from where it was trained.",
            )


def _refuse_cycles(graph: bytes, source: str) -> None:
    """Raise BundleError if nodes of an ONNX graph need each other; OpenVINO would read for ever."""
    for nodes in _bodies(memoryview(graph), "model"):
        makers: dict[bytes, list[int]] = {}
        for number, node in enumerate(nodes):
            for name in filter(None, _names(node, _NODE_OUTPUT)):
                makers.setdefault(name, []).append(number)
        needed = {
            number: [one for name in _names(node, _NODE_INPUT) for one in makers.get(name, ())]
            for number, node in enumerate(nodes)
        }
        try:
            TopologicalSorter(needed).prepare()
        except CycleError as error:
            raise BundleError(
                f"The graph in {source} has a cycle of {plural(len(set(error.args[1])), 'node')}; "
                "expected nodes of which none needs its own output.",
                remedy="Get the bundle again from where it was trained.",
            ) from error


def with_metadata(graph: bytes, key: str, value: str) -> bytes:
    """Return the graph with a further entry in its `metadata_props`, at the end of the file."""
    entry = _field(_ENTRY_KEY, key.encode()) + _field(_ENTRY_VALUE, value.encode())
    return graph + _field(_MODEL_METADATA, entry)


def cut_metadata(graph: bytes, key: str) -> tuple[bytes, list[bytes]]:
    """Return a graph without the `metadata_props` entries of one name, and their values.

    It is the exact inverse of `with_metadata`.

    Raises:
        ValueError: the bytes are not an ONNX file.
    """
    whole, values, kept, done = memoryview(graph), [], [], 0
    try:
        for field, start, begin, stop in _spans(whole):
            if field != _MODEL_METADATA:
                continue
            entry = {number: bytes(value) for number, value in _fields(whole[begin:stop])}
            if entry.get(_ENTRY_KEY) == key.encode():
                values.append(entry.get(_ENTRY_VALUE, b""))
                kept.append(graph[done:start])
                done = stop
    except IndexError:
        raise ValueError("it ends within a field") from None
    return b"".join([*kept, graph[done:]]), values


def _field(number: int, content: bytes) -> bytes:
    """Return an encoded length-delimited field."""
    return _as_varint(number << 3 | _LENGTH) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _has_external(message: memoryview, kind: str, depth: int) -> bool:
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} deep")
    below = _BELOW.get(kind, {})
    for field, value in _fields(message):
        if kind == "tensor" and field == _TENSOR_EXTERNAL:
            return True
        if field in below and _has_external(value, below[field], depth + 1):
            return True
    return False


def _bodies(message: memoryview, kind: str) -> Iterator[list[memoryview]]:
    """Yield the nodes of each graph and function of a model, and of the graphs in nodes.

    `refuse_external_data` has accepted the model.
    """
    below = _BELOW.get(kind, {})
    found = [(below[field], value) for field, value in _fields(message) if field in below]
    yield [value for what, value in found if what == "node"]
    for what, value in found:
        yield from _bodies(value, what)


def _names(node: memoryview, field: int) -> list[bytes]:
    """Return the names in a field of a node; an empty one stands for what is left out."""
    return [bytes(value) for number, value in _fields(node) if number == field]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and the bytes of the length-delimited fields of a message."""
    return ((field, message[begin:stop]) for field, _, begin, stop in _spans(message))


def _spans(message: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, start, content start and content stop of the length-delimited fields.

    Raises:
        ValueError: a field is damaged.
    """
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == _VARINT:
            _, at = _varint(message, at)
        elif wire == _EIGHT_BYTES:
            at += 8
        elif wire == _FOUR_BYTES:
            at += 4
        elif wire == _LENGTH:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError(f"a field of {length} bytes ends after the file does")
            yield tag >> 3, start, at, at + length
            at += length
        else:
            raise ValueError(f"it holds the wire type {wire}")
    if at != len(message):
        raise ValueError("it ends within a field")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number in it is too long")
