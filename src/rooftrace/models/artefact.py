"""An exported model: one file of an engine's own kind that carries the contract of its bundle.

    model.onnx             the contract is the entry `rooftrace` of its `metadata_props`
    model.xml, model.bin   OpenVINO's two files; the contract is in the `rt_info` of the first
    model.engine           a TensorRT plan behind a line that names it, and the contract

The contract is one JSON object: from which bundle it was made, how, and the bundle's own
`BundleSpec` with the sha256 of the graph as it is without the contract. What is read becomes a
`ModelBundle`, so that all that takes a bundle takes an exported model.

ONNX and OpenVINO files from strangers are as safe as bundles: nothing in them names another file
that is opened. A TensorRT plan holds code for one GPU, which runs when it is loaded: load only
those that you made.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Annotated, Literal, get_args
from xml.sax.saxutils import escape

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rooftrace.core.errors import BundleError
from rooftrace.engines.graph import cut_metadata, refuse_external_data, with_metadata
from rooftrace.models.bundle import (
    GRAPH_NAME,
    MAX_PART_BYTES,
    MAX_SPEC_BYTES,
    ModelBundle,
    read_bundle,
)
from rooftrace.models.spec import BundleSpec, Part, Precision

__all__ = ["SUFFIXES", "Contract", "Target", "artefact_files", "part_names", "read_model"]

Target = Literal["onnx", "openvino", "tensorrt"]
"""What a bundle can be exported to."""

SUFFIXES: dict[Target, str] = {"onnx": ".onnx", "openvino": ".xml", "tensorrt": ".engine"}

_READ_BY: dict[Target, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "openvino"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt",),
}
"""Engines that can take a file of each kind."""

_KEY = "rooftrace"
_PLAN_LINE = b"rooftrace tensorrt 1\n"
_PLAN_LENGTH = struct.Struct("<I")
_IN_XML = re.compile(rb'\t\t<info name="rooftrace" value="([^"<>]*)" />\n')
_XML_END = re.compile(rb"\t</rt_info>\s*</net>\s*\Z")
_REMEDY = "Make it again from its bundle: rooftrace export BUNDLE --to …"


class Contract(BaseModel):
    """What an exported model says of itself.

    Args:
        to: which kind of file it is.
        precision: as it was asked for; `spec.variants` says what each engine computes in.
        bundle_sha256: fingerprint of the bundle that it was made from.
        made_with: versions of packages and, of a TensorRT plan, the GPU that it was made for.
        spec: of the bundle; its parts and variants are those of this file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    to: Target
    precision: Precision
    bundle_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    made_with: dict[str, str] = {}
    spec: BundleSpec

    def holding(self, parts: Mapping[str, bytes]) -> Contract:
        """The same with the sizes and hashes of its parts."""
        hashed = {
            name: Part(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
            for name, data in parts.items()
        }
        return self.model_copy(update={"spec": self.spec.model_copy(update={"parts": hashed})})


def part_names(to: Target, precision: Precision) -> tuple[str, ...]:
    """What the parts of an exported model are called in its bundle."""
    if to == "onnx":
        # In fp32 it is the bundle's graph, of which engines may make what they make of that.
        return (GRAPH_NAME,) if precision == "fp32" else ("variants/model.onnx",)
    if to == "openvino":
        return "variants/model.xml", "variants/model.bin"
    return ("variants/model.engine",)


def artefact_files(contract: Contract, parts: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of an exported model, by their ending.

    Args:
        contract: its parts need not be filled in.
        parts: under the names of `part_names`; an OpenVINO model without a contract.
    """
    names = part_names(contract.to, contract.precision)
    if contract.to == "openvino":
        parts = {**parts, names[0]: _with_rt_info(parts[names[0]])}
    contract = contract.holding(parts)
    text = contract.model_dump_json()
    if contract.to == "onnx":
        return {".onnx": with_metadata(parts[names[0]], _KEY, text)}
    if contract.to == "openvino":
        return {".xml": _with_contract(parts[names[0]], text), ".bin": parts[names[1]]}
    told = text.encode()
    return {".engine": _PLAN_LINE + _PLAN_LENGTH.pack(len(told)) + told + parts[names[0]]}


def read_model(path: Path) -> ModelBundle:
    """Open a bundle, or an exported model, whichever the file is, and check it.

    Raises:
        BundleError: it is neither, is damaged, or is a graph that carries no contract.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except (OSError, ValueError):
        # Its errors tell why.
        return read_bundle(path)
    if head.startswith(_PLAN_LINE):
        return _bundle_of(path, "tensorrt", *_cut_plan(_read(path), path))
    if path.suffix.lower() == ".onnx" or head[:1] == b"\x08":
        return _bundle_of(path, "onnx", *_cut_onnx(_read(path), path))
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return _bundle_of(path, "openvino", *_cut_xml(_read(path), path))
    return read_bundle(path)


def _read(path: Path) -> bytes:
    limit = MAX_PART_BYTES + MAX_SPEC_BYTES
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except (OSError, MemoryError) as error:
        raise BundleError(f"{path} cannot be read: {error}.", remedy=_REMEDY) from error
    if len(data) > limit:
        raise BundleError(
            f"{path} is larger than the {limit} bytes that a model may have.", remedy=_REMEDY
        )
    return data


def _cut_onnx(data: bytes, path: Path) -> tuple[bytes, list[bytes]]:
    try:
        rest, told = cut_metadata(data, _KEY)
    except ValueError as error:
        raise BundleError(f"{path} is not an ONNX file: {error}.", remedy=_REMEDY) from error
    return _one(told, path, "ONNX graph"), [rest]


def _cut_xml(data: bytes, path: Path) -> tuple[bytes, list[bytes]]:
    told = [unescape(found.decode("utf-8", "replace")).encode() for found in _IN_XML.findall(data)]
    text = _one(told, path, "XML file")
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise BundleError(
            f"{path} has no {weights.name} beside it, which holds its weights.",
            remedy="Copy both files of the exported model.",
        )
    return text, [_IN_XML.sub(b"", data), _read(weights)]


def _cut_plan(data: bytes, path: Path) -> tuple[bytes, list[bytes]]:
    begin = len(_PLAN_LINE) + _PLAN_LENGTH.size
    if len(data) < begin:
        raise BundleError(f"{path} ends within its first line.", remedy=_REMEDY)
    (length,) = _PLAN_LENGTH.unpack(data[len(_PLAN_LINE) : begin])
    return data[begin : begin + length], [data[begin + length :]]


def _one(told: list[bytes], path: Path, kind: str) -> bytes:
    if not told:
        raise BundleError(
            f"{path} is an {kind} without rooftrace's contract: nothing says which bands and "
            "metres per pixel it takes, and what its answers mean.",
            remedy="Export it from its bundle: rooftrace export BUNDLE --to onnx -o model.onnx",
        )
    if len(told) > 1:
        raise BundleError(f"{path} holds {len(told)} contracts, expected one.", remedy=_REMEDY)
    return told[0]


def _bundle_of(path: Path, to: Target, text: bytes, parts: list[bytes]) -> ModelBundle:
    if len(text) > MAX_SPEC_BYTES:
        raise BundleError(
            f"{path} holds a contract of {len(text)} bytes; at most {MAX_SPEC_BYTES} are read.",
            remedy=_REMEDY,
        )
    try:
        contract = Contract.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "contract"
        raise BundleError(
            f"{path}: its contract cannot be read: {where}: {first['msg']} "
            f"(received {str(first.get('input'))[:80]!r}).",
            remedy="Update rooftrace if the file is newer than it; else export it again.",
        ) from error
    names = part_names(to, contract.precision)
    spec = contract.spec
    readers = {variant.engine for variant in spec.variants}
    files = {variant.files for variant in spec.variants}
    if contract.to != to or set(spec.parts) != set(names) or not spec.variants:
        raise BundleError(
            f"{path} is a file for {to}, and its contract is of {contract.to} with the parts "
            f"{sorted(spec.parts)[:4]}; expected {list(names)}.",
            remedy=_REMEDY,
        )
    if not readers <= set(_READ_BY[to]) or files != {names}:
        raise BundleError(
            f"{path} names the engines {sorted(readers)} with the files {sorted(files)[:4]}; "
            f"expected some of {list(_READ_BY[to])} with {list(names)}.",
            remedy=_REMEDY,
        )
    for name, data in zip(names, parts):
        said, digest = spec.parts[name], hashlib.sha256(data).hexdigest()
        if (said.size, said.sha256) != (len(data), digest):
            raise BundleError(
                f"{path}: its {name.rpartition('/')[2]} is not the one that was exported: "
                f"{len(data)} bytes with sha256 {digest[:12]}…, expected {said.size} with "
                f"{said.sha256[:12]}….",
                remedy=_REMEDY,
            )
    if to == "onnx":
        refuse_external_data(parts[0], str(path))
    return ModelBundle(spec, dict(zip(names, parts)), str(path))


def _with_rt_info(xml: bytes) -> bytes:
    """The same with room for a contract at its end."""
    if _XML_END.search(xml):
        return xml
    body, end, _ = xml.rpartition(b"</net>")
    if not end:
        raise BundleError("An OpenVINO model without </net> was to be exported.", remedy=_REMEDY)
    return body + b"\t<rt_info>\n\t</rt_info>\n</net>\n"


def _with_contract(xml: bytes, text: str) -> bytes:
    end = _XML_END.search(xml)
    assert end is not None, "made by _with_rt_info"
    value = escape(text, {'"': "&quot;"}).encode("ascii", "xmlcharrefreplace")
    line = b'\t\t<info name="rooftrace" value="' + value + b'" />\n'
    return xml[: end.start()] + line + xml[end.start() :]


assert set(SUFFIXES) == set(_READ_BY) == set(get_args(Target))
