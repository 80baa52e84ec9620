"""Folders in, complete files out; what fails is told and costs nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from rooftrace.core.errors import BandMismatch, ConfigError, DataError, ExportError
from rooftrace.engines.selftest import tiny_bundle
from rooftrace.flows.doctor import run_doctor
from rooftrace.flows.inputs import find_images
from rooftrace.flows.predict import run_predict
from rooftrace.models.bundle import write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = tiny_bundle()
    path = tmp_path_factory.mktemp("model") / "tiny.rooftrace"
    write_bundle(path, tiny.spec, tiny.parts)
    return path


def draw(path: Path, shape: tuple[int, int], mode: str = "RGB") -> Path:
    pixels = np.full((*shape, len(mode)), 40, dtype=np.uint8)
    pixels[5:25, 10:40] = 200
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels if len(mode) > 1 else pixels[..., 0]).save(path, format="PNG")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draw(tmp_path / "in" / "b.png", (64, 80))
    draw(tmp_path / "in" / "a.jpg", (224, 224))
    (tmp_path / "in" / "notes.txt").write_text("flown in May")
    data = np.full((3, 100, 90), 40, dtype=np.uint8)
    data[:, 5:25, 10:40] = 200
    with rasterio.open(
        tmp_path / "in" / "c.tif", "w", driver="GTiff", count=3, height=100, width=90,
        dtype="uint8", crs="EPSG:32737", transform=Affine(0.5, 0, 5e5, 0, -0.5, 9e6),
    ) as out:  # fmt: skip
        out.write(data)
    return tmp_path / "in"


def test_a_folder_of_different_images(folder: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    told: list[tuple[int, int, int]] = []
    report = run_predict([folder], bundle, out, progress=lambda *now: told.append(now))
    assert [Path(output.input).name for output in report.outputs] == ["a.jpg", "b.png", "c.tif"]
    assert [output.buildings for output in report.outputs] == [1, 1, 1]
    assert report.outputs[1].built_up_share == pytest.approx(600 / (64 * 80))
    assert {path.name for path in out.iterdir()} == {
        "a_mask.png", "a_buildings.geojson", "a_preview.png",
        "b_mask.png", "b_buildings.geojson", "b_preview.png",
        "c_mask.tif", "c_buildings.gpkg", "c_preview.png", "run.json",
    }  # fmt: skip
    assert any("notes.txt" in note for note in report.notes)
    assert told[-1] == (224 * 224 + 64 * 80 + 9000, 224 * 224 + 64 * 80 + 9000, 3)
    told_json = json.loads(json.dumps(report.to_json()))
    assert set(told_json) == {
        "outputs", "mpx_per_s", "peak_rss_mb", "resumed_images", "resumed_blocks",
    }  # fmt: skip
    assert set(told_json["outputs"][0]) == {
        "input", "mask", "polygons", "preview", "density", "buildings", "built_up_share", "pixels",
        "seconds", "classes",
    }  # fmt: skip
    land, building = told_json["outputs"][1]["classes"]
    assert (land["name"], land["polygons"], land["pixels"]) == ("background", 0, 64 * 80 - 600)
    assert (building["name"], building["polygons"], building["pixels"]) == ("building", 1, 600)
    assert told_json["peak_rss_mb"] > 20
    record = json.loads((out / "run.json").read_text())
    assert record["bundle"]["name"] == "brightness"
    assert len(record["bundle"]["sha256"]) == 64
    assert record["engine"]["name"] == "openvino"
    assert record["options"]["threshold"] == 0.5
    assert record["outputs"] == told_json["outputs"]
    assert "gdal" in record["versions"]


def test_one_bad_image_costs_nothing_else(folder: Path, bundle: Path, tmp_path: Path) -> None:
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[: len(whole) // 2])
    draw(folder / "d.png", (50, 50), mode="L")
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"b\.png.* 2 of 4 images failed, as run\.json tells"):
        run_predict([folder], bundle, out)
    names = {path.name for path in out.iterdir()}
    assert {"a_mask.png", "c_mask.tif", "run.json"} <= names
    assert not [name for name in names if name.startswith((".a", ".b", ".c", "b_", "d_"))]
    record = json.loads((out / "run.json").read_text())
    assert len(record["outputs"]) == 2
    assert [failed["type"] for failed in record["failed"]] == ["DataError", "BandMismatch"]


def test_other_bands_are_named(bundle: Path, tmp_path: Path) -> None:
    grey = draw(tmp_path / "grey.png", (50, 50), mode="L")
    with pytest.raises(BandMismatch, match=r"grey\.png has 1 bands.*red, green, blue") as caught:
        run_predict([grey], bundle, tmp_path / "out")
    assert caught.value.exit_code == 4


def test_what_would_collide_is_refused_at_once(bundle: Path, tmp_path: Path) -> None:
    one, two = draw(tmp_path / "x" / "a.png", (20, 50)), draw(tmp_path / "y" / "a.png", (20, 50))
    with pytest.raises(ConfigError, match=r"would both be written as a_"):
        run_predict([one, two], bundle, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    mask = draw(tmp_path / "x" / "a_mask.png", (20, 50))
    with pytest.raises(ConfigError, match=r"written over the input .*a_mask\.png"):
        run_predict([one, mask], bundle, tmp_path / "x")


def test_empty_and_absent_are_told(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match="has no image among its 1 files"):
        run_predict([tmp_path / "empty"], bundle, tmp_path / "out")
    with pytest.raises(DataError, match="no image at"):
        run_predict([tmp_path / "absent.tif"], bundle, tmp_path / "out")


def test_an_unwritable_folder_is_told_before_the_work(bundle: Path, tmp_path: Path) -> None:
    image = draw(tmp_path / "a.png", (20, 50))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ExportError, match="could not be written"):
        run_predict([image], bundle, tmp_path / "file" / "out")


def test_a_file_named_twice_is_predicted_once(folder: Path) -> None:
    images, skipped = find_images([folder / "b.png", folder])
    assert [path.name for path in images] == ["b.png", "a.jpg", "c.tif"]
    assert [path.name for path in skipped] == ["notes.txt"]


def test_doctor_tells_what_runs() -> None:
    report = run_doctor(seconds=0.05)
    engines = {engine.name: engine for engine in report.engines}
    assert engines["openvino"].runs
    assert engines["openvino"].mpx_per_s > 0
    assert report.missing == ()
    rows = dict(report.rows())
    assert rows["gdal"] == rasterio.__gdal_version__
    assert "Mpx/s" in rows["engine openvino"]
    told = json.loads(json.dumps(report.to_json()))
    assert told["healthy"] == report.healthy == report.has_default_model


def test_doctor_names_the_extra_of_a_missing_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    report = run_doctor(seconds=0)
    onnx = next(engine for engine in report.engines if engine.name == "onnxruntime")
    assert not onnx.runs
    assert "rooftrace[onnx]" in onnx.problem
