"""An exported model is read back as the bundle that it was, or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from rooftrace.core.errors import BundleError
from rooftrace.engines.select import load_engine
from rooftrace.flows.doctor import check_engine, tiny_bundle
from rooftrace.io.legend import Legend
from rooftrace.models.bundle import GRAPH_NAME
from rooftrace.models.exported import (
    Contract,
    Target,
    exported_files,
    part_names,
    read_model,
    with_metadata,
)
from rooftrace.models.spec import BundleSpec, Precision, Variant

TINY = tiny_bundle()
SPEC = TINY.spec.model_copy(
    update={
        # All that XML and JSON have rules about.
        "name": "<tiny> & \"quoted\" 'ä' \u2028 ]]>",
        "attribution": "© A & B\n\ttwo lines",
        "gsd_m": 0.3,
        "threshold": 0.42,
        "parts": {},
    }
)
ENGINE = {"onnx": "onnxruntime", "openvino": "openvino"}
ENDING = {"onnx": ".onnx", "openvino": ".xml"}


@dataclass(frozen=True)
class Made:
    path: Path
    contract: Contract
    parts: dict[str, bytes]


def xml_of_the_graph() -> tuple[bytes, bytes]:
    import tempfile

    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.xml"
        openvino.save_model(openvino.Core().read_model(TINY.part(GRAPH_NAME)), path)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def write(folder: Path, to: Target, precision: Precision = "fp32", spec: BundleSpec = SPEC) -> Made:
    names = part_names(to, precision)
    content = {"onnx": (TINY.part(GRAPH_NAME),), "openvino": xml_of_the_graph()}[to]
    variant = Variant.model_validate(
        {"engine": ENGINE[to], "precision": precision, "files": names, "parity": {"mask_iou": 0.9}}
    )
    spec = spec.model_copy(update={"variants": (variant,)})
    contract = Contract(to=to, precision=precision, bundle_sha256="0" * 64, spec=spec)
    parts = dict(zip(names, content))
    path = folder / f"model{ENDING[to]}"
    for ending, data in exported_files(contract, parts).items():
        path.with_suffix(ending).write_bytes(data)
    return Made(path, contract, parts)


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return write(tmp_path_factory.mktemp("made"), request.param)


def refused(path: Path, output: str) -> None:
    with pytest.raises(BundleError) as caught:
        read_model(path)
    assert output in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.remedy


def test_written_and_read_again(made: Made) -> None:
    read = read_model(made.path)
    assert read.spec.model_copy(update={"parts": {}}) == made.contract.spec
    assert read.source == str(made.path)
    assert read.spec.legend == Legend(SPEC.classes, ())
    assert set(read.parts) == set(made.parts) == set(read.spec.parts)
    for name, data in made.parts.items():
        if not name.endswith(".xml"):
            assert read.part(name) == data


def test_an_onnx_file_is_the_graph_and_its_entries(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(write(tmp_path, "onnx").path)
    onnx.checker.check_model(model)
    entries = {one.key: json.loads(one.value) for one in model.metadata_props}
    assert len(entries) == len(model.metadata_props)
    assert entries["rooftrace"]["spec"]["name"] == SPEC.name
    del model.metadata_props[:]
    assert model == onnx.load_from_string(TINY.part(GRAPH_NAME))


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_engines_run_what_was_read(to: Target, tmp_path: Path) -> None:
    bundle = read_model(write(tmp_path, to).path)
    check_engine(load_engine(bundle, engine=ENGINE[to], precision="fp32"))
    # The precision is chosen from the file.
    check_engine(load_engine(bundle))


# What a stranger may send.


def test_graphs_of_others_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    path.write_bytes(TINY.part(GRAPH_NAME))
    refused(path, "is an ONNX graph without rooftrace's contract")
    path = tmp_path / "foreign.xml"
    path.write_bytes(xml_of_the_graph()[0])
    refused(path, "is an XML file without rooftrace's contract")
    path = tmp_path / "noise.onnx"
    path.write_bytes(b"not a graph at all")
    refused(path, "without rooftrace's contract")


def cut(made: Made) -> tuple[bytes, str]:
    """Return the graph of an exported ONNX file, and the contract at its end."""
    whole = made.path.read_bytes()
    mark = b'{"schema_version":1,"to"'
    contract = mark + whole.rpartition(mark)[2]
    return TINY.part(GRAPH_NAME), contract.decode()


def test_an_exchanged_graph_is_noticed(tmp_path: Path) -> None:
    made = write(tmp_path, "onnx")
    graph, text = cut(made)
    other = graph.replace(b"\x56\xab\x3a", b"\x57\xab\x3a")
    assert other != graph
    made.path.write_bytes(with_metadata(other, "rooftrace", text))
    refused(made.path, "model.onnx has changed since it was exported")


def test_an_exchanged_weights_file_is_noticed(tmp_path: Path) -> None:
    made = write(tmp_path, "openvino")
    weights = made.path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    refused(made.path, "model.bin has changed since it was exported")
    weights.unlink()
    refused(made.path, "has no model.bin beside it")


def test_variants_of_other_engines_or_files(tmp_path: Path) -> None:
    made = write(tmp_path, "onnx")
    graph, text = cut(made)
    for files in (["model.xml"], ["model.onnx", "model.onnx"]):
        contract = json.loads(text)
        contract["spec"]["variants"][0]["files"] = files
        made.path.write_bytes(with_metadata(graph, "rooftrace", json.dumps(contract)))
        refused(made.path, "expected some of ['onnxruntime', 'openvino']")
