"""An exported model: one file in the format of an engine that carries the contract of its bundle.

    model.onnx             the contract is the entry `rooftrace` of its `metadata_props`
    model.xml, model.bin   OpenVINO's two files; the contract is in the `rt_info` of the first

The contract is one JSON object: the bundle that it was made from, how it was made, and the bundle's
own `BundleSpec` with the sha256 of the graph without the contract. Reading returns a `ModelBundle`,
so that an exported model can be used wherever a bundle can.

Files of any origin are as safe as bundles.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Annotated, Literal, get_args
from xml.sax.saxutils import escape

from pydantic import Field, ValidationError

from rooftrace.core.config import Config, invalid_values
from rooftrace.core.errors import BundleError
from rooftrace.core.text import reason_of
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

Target = Literal["onnx", "openvino"]
"""Formats that a bundle can be exported to."""

SUFFIXES: dict[Target, str] = {"onnx": ".onnx", "openvino": ".xml"}

READ_BY: dict[Target, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "openvino"),
    "openvino": ("openvino",),
}
"""Engines that can read each format; the first one is the main engine."""

_KEY = "rooftrace"
_IN_XML = re.compile(rb'\t\t<info name="rooftrace" value="([^"<>]*)" />\n')
_XML_END = re.compile(rb"\t</rt_info>\s*</net>\s*\Z")
_REMEDY = "Make it again from its bundle: rooftrace export BUNDLE --to …"


class Contract(Config):
    """The contract inside an exported model.

    Args:
        to: Format of the file.
        precision: Precision that was asked for; `spec.variants` has the one that each engine uses.
        bundle_sha256: Hash of the bundle that it was made from.
        made_with: Versions of packages.
        spec: Contract of the bundle, with the parts and variants of this file.
    """

    schema_version: Literal[1] = 1
    to: Target
    precision: Precision
    bundle_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    made_with: dict[str, str] = Field(default_factory=dict)
    spec: BundleSpec


def part_names(to: Target, precision: Precision) -> tuple[str, ...]:
    """Return the names of the parts of an exported model in its bundle."""
    if to == "onnx":
        # In fp32 it is the bundle's graph, which engines may optimise as they do that graph.
        return (GRAPH_NAME,) if precision == "fp32" else ("variants/model.onnx",)
    return "variants/model.xml", "variants/model.bin"


def exported_files(contract: Contract, parts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files of an exported model by their suffix.

    Args:
        contract: The contract; its parts need not be filled in.
        parts: Parts under the names of `part_names`; an OpenVINO model without a contract.
    """
    names = part_names(contract.to, contract.precision)
    if contract.to == "openvino":
        parts = {**parts, names[0]: _with_rt_info(parts[names[0]])}
    hashed = {
        name: BundlePart(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for name, data in parts.items()
    }
    spec = contract.spec.model_copy(update={"parts": hashed})
    text = contract.model_copy(update={"spec": spec}).model_dump_json()
    if contract.to == "onnx":
        return {".onnx": with_metadata(parts[names[0]], _KEY, text)}
    return {".xml": _with_contract(parts[names[0]], text), ".bin": parts[names[1]]}


def read_model(path: Path | None) -> ModelBundle:
    """Open a bundle or an exported model, and check it.

    Args:
        path: Path of the file, or of the folder of a run; or one of `BUNDLED_MODELS`; None for the
            default model.

    Raises:
        BundleError: The file is neither, is damaged, or is a graph without a contract.
    """
    if path is None or str(path) in BUNDLED_MODELS:
        return bundled_model(str(path or "default"))
    try:
        head = read_head(path, 64)
    except (OSError, ValueError):
        # It opens the bundle in a folder, or raises an error that gives the reason.
        return read_bundle(path)
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
    # The contract is an entry at the very end of the graph.
    _, start, rest = data.rpartition(_field(1, _KEY.encode()) + b"\x12")
    # The value lies behind its length, of which all bytes but the last have the high bit.
    begin = next((i for i, byte in enumerate(rest[:8], 1) if byte < 0x80), 0)
    is_whole = start and begin and _field(2, rest[begin:]) == b"\x12" + rest
    return _single_contract([rest[begin:]] if is_whole else [], path, "ONNX graph"), [data]


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
            f"{path}: its contract cannot be read: {invalid_values(error, Contract, 1)}",
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
    if to == "onnx":
        parts = [parts[0][: spec.parts[names[0]].size]]
    for name, data in zip(names, parts):
        said, digest = spec.parts[name], hashlib.sha256(data).hexdigest()
        if (said.size, said.sha256) != (len(data), digest):
            raise BundleError(
                f"{path}: its {name.rpartition('/')[2]} has changed since it was exported: "
                f"{len(data)} bytes with sha256 {digest[:12]}…, expected {said.size} with "
                f"{said.sha256[:12]}….",
                remedy=_REMEDY,
            )
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


def with_metadata(graph: bytes, key: str, value: str) -> bytes:
    """Return an ONNX graph with a further entry in its `metadata_props`, at the end of the file.

    Protocol buffers allow fields in any order, so the entry (field 14 of a model, with a key and a
    value) is appended.
    """
    entry = _field(1, key.encode()) + _field(2, value.encode())
    return graph + _field(14, entry)


def _field(number: int, content: bytes) -> bytes:
    """Return an encoded length-delimited field of a protocol buffer."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
