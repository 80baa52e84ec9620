"""Metadata and security checks of ONNX files, read from their bytes without the onnx package."""

from __future__ import annotations

from collections.abc import Iterator

from rooftrace.core.errors import BundleError
from rooftrace.core.text import plural

__all__ = ["cut_metadata", "refuse_external_data", "refuse_missing_inputs", "with_metadata"]

# Field numbers of onnx.proto3 that lead from a model to every tensor in it.
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTIONS = 7, 14, 25
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_FUNCTION_NODE = 7
_NODE_INPUT, _NODE_OPERATOR = 1, 4
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


def refuse_missing_inputs(graph: bytes, source: str) -> None:
    """Raise BundleError if a node of an ONNX graph lacks inputs that OpenVINO reads unchecked."""
    for node in _nodes(memoryview(graph), "model"):
        fields = [*_fields(node)]
        operators = [value for number, value in fields if number == _NODE_OPERATOR]
        operator = bytes(operators[-1]).decode("utf-8", "replace") if operators else ""
        least = _LEAST_INPUTS.get(operator, 0)
        # An empty name stands for an input that is left out.
        given = [len(value) > 0 for number, value in fields if number == _NODE_INPUT][:least]
        if sum(given) < least:
            raise BundleError(
                f"The graph in {source} has a node {operator} with {plural(sum(given), 'input')}; "
                f"expected at least {least}.",
                remedy="Get the bundle again from where it was trained.",
            )


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


def _nodes(message: memoryview, kind: str) -> Iterator[memoryview]:
    """Yield the nodes of a model that `refuse_external_data` has accepted."""
    below = _BELOW.get(kind, {})
    for field, value in _fields(message):
        if field in below:
            if below[field] == "node":
                yield value
            yield from _nodes(value, below[field])


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
