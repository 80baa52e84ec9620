"""Odd names of images, through the real command."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest

from command_line import call
from raster_files import write_geotiff
from tiny_models import write_tiny_bundle

ODD = (
    "(1) scene", "-a", "[b]", "{c}", "<d>", "#e", "+f", "@g", "~h", "%i", "it's", "x y", "http:i",
)  # fmt: skip
LATIN = os.fsdecode(b"caf\xe9.tif")
needs_bytes = pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux only")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, and a folder with one scene of a house under many names."""
    write_tiny_bundle(tmp_path / "tiny.rooftrace")
    (tmp_path / "scenes").mkdir()
    data = np.full((3, 64, 64), 30, dtype=np.uint8)
    data[:, 20:40, 20:40] = 220
    for name in (*ODD, "bang!x", "semi;x"):
        write_geotiff(tmp_path / "scenes" / f"{name}.tif", data)
    return tmp_path


def predict(folder: Path, *options: object) -> tuple[int, dict]:
    given = ("-m", folder / "tiny.rooftrace", "-o", folder / "out")
    return call("predict", folder / "scenes", *given, *options)


def run_record(folder: Path) -> dict:
    return json.loads((folder / "out" / "run.json").read_text())


@pytest.mark.campaign
def test_images_with_odd_names_have_results(folder: Path) -> None:
    code, done = predict(folder)
    assert code == 0
    assert len(done["outputs"]) == len(ODD) + 2
    for output in done["outputs"]:
        assert len(geopandas.read_file(output["polygons"])) == 1
    names = {Path(output["polygons"]).stem.removesuffix("_buildings") for output in done["outputs"]}
    assert names == {*ODD, "bang_x", "semi_x"}
    assert "bang!x.tif: its results are called bang_x" in str(run_record(folder)["notes"])


def test_two_images_with_the_same_results_are_refused_before_the_work(folder: Path) -> None:
    scenes = folder / "scenes"
    (scenes / "bang_x.tif").write_bytes((scenes / "bang!x.tif").read_bytes())
    code, done = predict(folder)
    assert (code, done["error"]["type"]) == (2, "ConfigError")
    assert "would both be written as bang_x_" in done["error"]["message"]
    assert not (folder / "out").exists()


@needs_bytes
def test_a_name_that_is_not_utf8_does_not_stop_the_others(folder: Path) -> None:
    scenes = folder / "scenes"
    (scenes / LATIN).write_bytes((scenes / "-a.tif").read_bytes())
    code, done = predict(folder, "--outputs", "mask")
    assert (code, done["error"]["type"]) == (3, "DataError")
    assert r"caf\xe9.tif has a name that is not UTF-8" in done["error"]["message"]
    assert "Rename the file" in done["error"]["remedy"]
    assert f"1 of {len(ODD) + 3} images failed" in done["error"]["message"]
    assert len(run_record(folder)["outputs"]) == len(ODD) + 2
    (scenes / LATIN).rename(scenes / "café.tif")
    code, done = predict(folder, "--outputs", "mask")
    assert (code, done["resumed_images"], len(done["outputs"])) == (0, len(ODD) + 2, len(ODD) + 3)


@pytest.mark.campaign
@needs_bytes
def test_a_file_that_is_no_image_and_not_utf8_is_skipped_with_a_note(folder: Path) -> None:
    (folder / "scenes" / LATIN).with_suffix(".txt").write_text("hello")
    assert predict(folder, "--outputs", "mask")[0] == 0
    assert r"skipped, because it is not an image: caf\xe9.txt" in run_record(folder)["notes"]


@pytest.mark.campaign
@needs_bytes
@pytest.mark.parametrize("verb", ["submit", "inspect", "convert", "catalogue"])
def test_other_commands_name_the_file_too(folder: Path, verb: str) -> None:
    scenes = folder / "scenes"
    (scenes / LATIN).write_bytes((scenes / "-a.tif").read_bytes())
    model = ("-m", folder / "tiny.rooftrace")
    given: dict[str, tuple[object, ...]] = {
        "submit": ("-o", folder / "table.csv", *model),
        "inspect": (),
        "convert": ("--to", "coco", "-o", folder / "labels.json"),
        "catalogue": ("-o", folder / "out", *model),
    }
    if verb == "catalogue":
        code, done = call(verb, scenes, *given[verb])
        said = json.dumps(done)
        assert r"caf\\xe9.tif has a name that is not UTF-8" in said
        assert json.loads((folder / "out" / "manifest.json").read_text())
        return
    code, done = call(verb, scenes, *given[verb])
    assert code == 3
    assert r"caf\xe9.tif has a name that is not UTF-8" in done["error"]["message"]


@needs_bytes
def test_an_argument_that_is_not_utf8_is_a_usage_error(folder: Path) -> None:
    code, done = call("predict", folder / "scenes" / LATIN, "-m", folder / "tiny.rooftrace")
    assert (code, done["error"]["type"]) == (2, "ConfigError")
    assert r"caf\xe9.tif is not UTF-8" in done["error"]["message"]


def test_a_folder_that_polygons_cannot_be_written_to_is_refused_before_the_work(
    folder: Path,
) -> None:
    given = ("-m", folder / "tiny.rooftrace", "-o", folder / "no!where")
    code, done = call("predict", folder / "scenes", *given)
    assert (code, done["error"]["type"]) == (5, "ExportError")
    assert "cannot be written to a path with !" in done["error"]["message"]
    assert not (folder / "no!where").exists()
