"""A bundle is read back as it was written, or not at all: every fault is a BundleError."""

import io
import json
import pickle
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rooftrace.core.errors import BundleError
from rooftrace.models import bundle as module
from rooftrace.models.bundle import (
    BUNDLED_MODELS,
    MAX_SPEC_BYTES,
    ModelBundle,
    bundled_model,
    read_bundle,
    write_bundle,
)
from rooftrace.models.exported import read_model
from rooftrace.models.spec import BundleSpec, MeasuredMetrics, Variant

SPEC = BundleSpec(
    name="tiny", bands=("red", "green", "blue"), gsd_m=0.3, mean=(1.0, 2.0, 3.0),
    std=(1.0, 1.0, 1.0), classes=("background", "building"),
    metrics=(MeasuredMetrics(data="here", split="val", protocol="pooled", values={"iou": 0.5}),),
    training={"seed": 3, "data": {"train": [{"path": "ä/ñ"}]}},
    variants=(Variant(engine="openvino", precision="int8", files=("variants/a.xml",)),),
)  # fmt: skip
PARTS = {
    "model.onnx": bytes(range(256)) * 2,
    "variants/a.xml": b"<net/>",
    "weights.safetensors": b"",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("bundle") / "a.rooftrace"
    write_bundle(path, SPEC, PARTS)
    return path.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "b.rooftrace"


def same(a: ModelBundle, b: ModelBundle) -> bool:
    return a.spec == b.spec and dict(a.parts) == dict(b.parts)


@pytest.mark.parametrize("field", ["finest_gsd_m", "interpolated_gsd_m"])
@pytest.mark.parametrize(
    ("gsd_m", "expected"), [(0.4, "is 0.5, above gsd_m, which is 0.4"), (None, "needs a gsd_m")]
)
def test_no_scale_is_coarser_than_the_coarsest_at_which_an_image_stays_as_it_is(
    field: str, gsd_m: float | None, expected: str
) -> None:
    with pytest.raises(ValidationError, match=f"{field} {expected}"):
        BundleSpec.model_validate(SPEC.model_dump() | {field: 0.5, "gsd_m": gsd_m})


@pytest.mark.parametrize("name", BUNDLED_MODELS)
def test_a_bundled_model_goes_by_its_name(name: str) -> None:
    bundle = read_model(Path(name))
    assert bundle.spec.name == f"rooftrace-{name}"
    assert bundle.sha256 == bundled_model(name).sha256


def test_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.rooftrace"
    written = write_bundle(path, SPEC, PARTS)
    read = read_bundle(path)
    assert same(read, written)
    assert dict(read.parts) == PARTS
    assert read.spec.model_copy(update={"parts": {}}) == SPEC
    assert {name: part.size for name, part in read.spec.parts.items()} == {
        name: len(data) for name, data in PARTS.items()
    }
    assert read.sha256 == written.sha256
    assert [p.name for p in path.parent.iterdir()] == ["a.rooftrace"]
    with pytest.raises(BundleError, match="has no part 'absent'"):
        read.part("absent")


def test_the_fingerprint_is_of_all_the_content(tmp_path: Path) -> None:
    variants = [
        (SPEC, PARTS),
        (SPEC.model_copy(update={"threshold": 0.6}), PARTS),
        (SPEC, PARTS | {"variants/a.xml": b"<net />"}),
    ]
    prints = [write_bundle(tmp_path / "b", spec, parts).sha256 for spec, parts in variants]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    "name",
    ["bundle.json", "../x", "/etc/x", "variants/../x", "variants/a/b", "variants/.x", "variants/",
     "model.onnx\n", "variants/a\n", "C:\\x", "", "Model.onnx", "weights.pt"],
)  # fmt: skip
def test_names_that_no_part_may_have(tmp_path: Path, whole: bytes, name: str) -> None:
    with pytest.raises(BundleError, match="cannot hold a part named"):
        write_bundle(tmp_path / "b", SPEC, PARTS | {name: b"x"})
    assert not (tmp_path / "b").exists()
    # A stranger's file may name it all the same, in its list and in the zip.
    spec = contract(whole)
    spec["parts"][name] = spec["parts"]["variants/a.xml"]
    path = tmp_path / "c.rooftrace"
    surplus = [(name, b"<net/>")] if name else []
    zipped(path, [("bundle.json", json.dumps(spec)), *PARTS.items(), *surplus])
    with pytest.raises(BundleError):
        read_bundle(path)


def test_a_bundle_without_what_it_promises_is_not_written(tmp_path: Path) -> None:
    for missing in ("model.onnx", "variants/a.xml"):
        parts = {name: data for name, data in PARTS.items() if name != missing}
        with pytest.raises(BundleError, match=f"no part '{missing}'"):
            write_bundle(tmp_path / "b", SPEC, parts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("best_iou", "best_loss"), "best_iou"), (("best_loss",), "best_loss"), (("best",), "best"),
        ((), "contains no .rooftrace file"), (("best_iou", "best_loss", "refined"), "refined"),
        (("best_iou", "other"), "contains 2 bundles"), (("east", "west"), "contains 2 bundles"),
    ],
)  # fmt: skip
def test_the_folder_of_a_run_stands_for_its_bundle(
    names: tuple[str, ...], taken: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".best_iou.1.part.rooftrace").touch()  # what a killed run was writing
    for name in names:
        write_bundle(run / f"{name}.rooftrace", SPEC, PARTS)
    with pytest.raises(BundleError, match="contains no") as caught:
        read_model(tmp_path)
    assert (str(run) in caught.value.remedy) == bool(names)
    if taken in names:
        assert read_model(run).source == str(run / f"{taken}.rooftrace")
        return
    with pytest.raises(BundleError, match=taken) as caught:
        read_model(run)
    assert all(str(run / name) in caught.value.remedy for name in names)


# What a stranger may send.


def contract(whole: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        found: dict[str, Any] = json.loads(archive.read("bundle.json"))
    return found


def zipped(
    path: Path, entries: list[tuple[str, bytes | str]], method: int = zipfile.ZIP_DEFLATED
) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore", UserWarning)  # of a name that comes twice
        for name, data in entries:
            archive.writestr(name, data)
    return path


def refused(path: Path, output: str, **options: int) -> None:
    with pytest.raises(BundleError) as caught:
        read_bundle(path, **options)
    assert output in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.remedy


def test_truncated_at_any_point(whole: bytes, scratch: Path) -> None:
    for length in {*range(0, len(whole), 13), *range(40), *range(len(whole) - 60, len(whole))}:
        scratch.write_bytes(whole[:length])
        with pytest.raises(BundleError):
            read_bundle(scratch)


@settings(max_examples=300)
@given(st.data())
def test_flipped_bits_are_noticed_or_change_nothing(
    whole: bytes, scratch: Path, data: st.DataObject
) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    scratch.write_bytes(damaged)
    try:
        found = read_bundle(scratch)
    except BundleError:
        return
    scratch.write_bytes(whole)
    assert same(found, read_bundle(scratch))


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s.update(schema_version=2), "schema_version"),
        (lambda s: s.update(task="detection"), "task"),
        (lambda s: s.update(surprise=1), "surprise"), (lambda s: s.pop("bands"), "bands"),
        (lambda s: s.update(mean=[1.0]), "mean has 1 value for 3 bands"),
        (lambda s: s.update(std=[1.0, 0.0, 1.0]), "std.1"), (lambda s: s.update(gsd_m=-1), "gsd_m"),
        (lambda s: s.update(threshold=1.5), "threshold"),
        (lambda s: s.update(building_class=2), "building_class is 2"),
        (lambda s: s.update(building_class=0), "building_class"),
        (lambda s: s.update(colours=["#102030"]), "colours has 1 value for 2 classes"),
        (lambda s: s.update(colours=["#102030", "red"]), "colours.1"),
        (lambda s: s.update(dtype="int16"), "dtype"),
        (lambda s: s.update(classes=["a"]), "classes"),
    ],
)  # fmt: skip
def test_a_contract_of_another_kind(
    tmp_path: Path, whole: bytes, change: Change, expected: str
) -> None:
    spec = contract(whole)
    change(spec)
    path = zipped(tmp_path / "c", [("bundle.json", json.dumps(spec)), *PARTS.items()])
    refused(path, expected)
    refused(path, "does not follow schema 1")


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "nope", "\ufeff{}", "[" * 50_000, '{"name": "\\ud800"}']
)
def test_a_contract_that_is_no_json(tmp_path: Path, text: str) -> None:
    path = zipped(tmp_path / "c", [("bundle.json", text), *PARTS.items()])
    refused(path, "does not follow schema 1")


def test_parts_that_are_missing_surplus_or_double(tmp_path: Path, whole: bytes) -> None:
    first = ("bundle.json", json.dumps(contract(whole)))
    parts = list(PARTS.items())
    refused(zipped(tmp_path / "a", [first, *parts[1:]]), "missing ['model.onnx']")
    refused(zipped(tmp_path / "b", [first, *parts, ("run.py", b"")]), "surplus ['run.py']")
    refused(zipped(tmp_path / "c", [first, *parts, parts[0]]), "['model.onnx'] more than once")
    refused(zipped(tmp_path / "d", [first, first, *parts]), "['bundle.json'] more than once")
    refused(zipped(tmp_path / "e", parts), "a zip without bundle.json")
    refused(zipped(tmp_path / "f", []), "a zip without bundle.json")


def test_a_part_that_was_exchanged(tmp_path: Path, whole: bytes) -> None:
    first = ("bundle.json", json.dumps(contract(whole)))
    other = PARTS | {"model.onnx": bytes(reversed(PARTS["model.onnx"]))}
    refused(zipped(tmp_path / "a", [first, *other.items()]), "model.onnx has changed since it was")
    shorter = PARTS | {"model.onnx": PARTS["model.onnx"][:-1]}
    refused(zipped(tmp_path / "b", [first, *shorter.items()]), "511 bytes")
    longer = PARTS | {"model.onnx": PARTS["model.onnx"] + b"\0"}
    refused(zipped(tmp_path / "c", [first, *longer.items()]), "more than the allowed 512 bytes")


def test_a_part_that_claims_too_much(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "a"
    spec = contract(whole)
    spec["parts"]["model.onnx"]["size"] = 2**62
    zipped(path, [("bundle.json", json.dumps(spec)), *PARTS.items()])
    refused(path, f"is listed with {2**62} bytes")


def test_bombs_are_not_unfolded(tmp_path: Path, whole: bytes) -> None:
    bomb = bytes(64 * 2**20)
    spec = zipped(tmp_path / "a", [("bundle.json", bomb), *PARTS.items()])
    first = ("bundle.json", json.dumps(contract(whole)))
    part = zipped(tmp_path / "b", [first, *(PARTS | {"model.onnx": bomb}).items()])
    del bomb
    tracemalloc.start()
    try:
        refused(spec, f"more than the allowed {MAX_SPEC_BYTES} bytes")
        refused(part, "more than the allowed 512 bytes")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * 2**20


def test_parts_of_an_installed_bundle_are_read_when_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.rooftrace"
    plain = write_bundle(path, SPEC, PARTS)
    read: list[str] = []
    read_part = module._read_part
    monkeypatch.setattr(
        module, "_read_part", lambda *given: read.append(given[1]) or read_part(*given)
    )
    bundle = read_bundle(path, is_installed=True)
    assert set(bundle.parts) == set(PARTS)
    assert ("model.onnx" in bundle.parts, "other" in bundle.parts) == (True, False)
    assert not read
    assert bundle.part("model.onnx") == bundle.part("model.onnx") == PARTS["model.onnx"]
    assert read == ["model.onnx"]
    assert pickle.loads(pickle.dumps(bundle.parts)) == plain.parts
    with pytest.raises(BundleError, match="has no part 'other'"):
        bundle.part("other")
