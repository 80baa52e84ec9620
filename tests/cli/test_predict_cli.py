"""The options of `rooftrace predict`, through the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine

from command_line import call
from raster_files import write_geotiff
from rooftrace.io.vector_read import VectorFile
from rooftrace.models.bundle import read_bundle, write_bundle
from tiny_models import write_tiny_bundle
from town import generate_scene

SIDE, GSD_M, LEFT, TOP = 400, 1.0, 500_000, 9_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, and a scene of nine bright houses of 20 × 30 m, one with a yard of 4 m²."""
    write_tiny_bundle(tmp_path / "tiny.rooftrace")
    data = np.full((3, SIDE, SIDE), 30, dtype=np.uint8)
    for row in range(40, SIDE - 60, 100):
        for col in range(20, SIDE - 60, 130):
            data[:, row : row + 20, col : col + 30] = 220
    data[:, 48:50, 30:32] = 30
    write_geotiff(
        tmp_path / "scene.tif", data, crs="EPSG:32737",
        transform=Affine(GSD_M, 0, LEFT, 0, -GSD_M, TOP),
    )  # fmt: skip
    return tmp_path


def predict(folder: Path, *options: object) -> tuple[int, dict[str, Any]]:
    given = ("-m", folder / "tiny.rooftrace", "-o", folder / "out")
    return call("predict", folder / "scene.tif", *given, *options)


def test_everything_is_written(folder: Path) -> None:
    code, done = predict(folder)
    assert code == 0
    (output,) = done["outputs"]
    assert output["buildings"] == 9
    names = {path.name for path in (folder / "out").iterdir()}
    assert names == {
        "scene_mask.tif", "scene_mask.qml", "scene_buildings.gpkg", "scene_preview.png",
        "scene_density.tif", "scene_density.qml", "scene_density.gpkg", "scene_density.png",
        "run.json",
    }  # fmt: skip
    with rasterio.open(output["density"]) as density:
        share = density.read(1)
    cell = share[np.isfinite(share)]
    # 9 houses of 600 m², but for the yard, on 16 ha.
    assert cell.mean() == pytest.approx((9 * 600 - 4) / SIDE**2, rel=0.02)


def test_polygons_are_written_in_the_formats_that_are_asked_for(folder: Path) -> None:
    formats = ("kml", ".shp.zip", "csv", "fgb", "parquet", "gdb", "gdb.zip")
    given = [part for name in formats for part in ("--format", name)]
    _, done = predict(folder, "--outputs", "polygons", *given)
    named = Path(done["outputs"][0]["polygons"])
    truth = gpd.read_file(named, layer=named.stem).to_crs(32737).union_all()
    for name in formats:
        layer = VectorFile(named.with_suffix(f".{name.removeprefix('.')}")).read(["id", "score"])
        assert (len(layer), layer.counts.repaired) == (9, 0)
        assert sorted(map(int, layer.values["id"])) == [*range(1, 10)]
        found = gpd.GeoSeries(list(layer.geometry), crs=layer.crs).to_crs(32737).union_all()
        assert found.symmetric_difference(truth).area < 9
    assert call("predict", folder / "scene.tif", "-o", folder / "x", "--format", "dwg")[0] == 5
    only = ("--outputs", "mask", "--format", "kml")
    assert predict(folder, *only)[0] == 2
    # A format that cannot hold the polygons fails the run.
    bare = np.array(rasterio.open(folder / "scene.tif").read())
    write_geotiff(folder / "scene.tif", bare, crs=None, transform=None)
    code, answer = predict(folder, "--gsd", "1", "--format", "kml", "-o", folder / "bare")
    assert (code, "in pixels of an image" in str(answer)) == (3, True)


def test_the_demo_predicts_its_scene_with_the_default_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, _ = generate_scene(3, (256, 256), gsd_m=0.3).write(tmp_path, "demo")
    monkeypatch.setattr("rooftrace.io.files.demo_scene_path", lambda: image)
    monkeypatch.chdir(tmp_path)
    code, done = call("demo")
    assert code == 0, done
    assert done["outputs"][0]["buildings"] > 5
    assert Path("rooftrace-demo/run.json").is_file()


if TYPE_CHECKING:
    from tests.conftest import TinyRun


@pytest.fixture
def sure(tiny_run: TinyRun, tmp_path: Path) -> Path:
    """The tiny model at a threshold that nothing reaches."""
    bundle = read_bundle(tiny_run.bundle)
    path = tmp_path / "sure.rooftrace"
    write_bundle(path, bundle.spec.model_copy(update={"threshold": 1.0}), bundle.parts)
    return path


@pytest.mark.campaign
@pytest.mark.parametrize("how", ["average", "weighted"])
def test_several_models_predict_and_are_judged_as_one(
    how: str, tiny_run: TinyRun, sure: Path, tmp_path: Path
) -> None:
    image = next((tiny_run.data / "images").iterdir())
    three = (tiny_run.bundle, sure, sure)
    given = [word for path in three for word in ("-m", path)]
    code, _ = call("predict", image, *given, "--ensemble", how, "-o", tmp_path / "out")
    assert code == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["engine"]["settings"]["combined_by"] == how
    assert len(record["engine"]["settings"]["members"]) == 3
    assert any("weighted by the IoU" in note for note in record["notes"]) is (how == "weighted")
    code, judged = call("evaluate", *three, tiny_run.data, "--ensemble", how)
    assert code == 0
    assert judged["bundle"]["name"].startswith(f"{how} of tiny")
    assert judged["images"] == 6


@pytest.mark.parametrize("command", ["predict a.tif", "compare a b", "heights a", "evaluate a"])
def test_a_file_in_the_place_of_a_folder(command: str) -> None:
    code, answer = call(*command.split(), "-o", "out/houses.gpkg")
    assert (code, answer["error"]["remedy"]) == (2, "Name a folder: -o out/houses")


def test_what_becomes_of_them_has_to_be_said(bundle: Path, tmp_path: Path) -> None:
    code, answer = call("predict", "a.tif", "-m", bundle, "-m", "default", "-o", tmp_path)
    message = answer["error"]["message"]
    assert (code, message) == (2, "2 models were given without a method to combine them.")
    assert "--ensemble average" in answer["error"]["remedy"]
    code, answer = call("evaluate", bundle, tmp_path, "--ensemble", "average")
    assert code == 2
    assert "combines several models, but 1 model was given" in answer["error"]["message"]
