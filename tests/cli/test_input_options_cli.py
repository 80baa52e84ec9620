"""Commands that predict labelled images take the input options of `rooftrace predict`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

from bright_squares import write_squares
from command_line import call
from raster_files import write_geotiff
from tiny_models import write_tiny_bundle

OPTIONS = ("--bands", "2,3,4", "--stretch", "0,2550")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose probability is the brightness of a pixel."""
    return write_tiny_bundle(tmp_path_factory.mktemp("model") / "m.rooftrace", gsd_m=0.5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three 16-bit images whose first band is dark; bright squares are buildings."""
    folder = tmp_path_factory.mktemp("squares")
    write_squares(folder, 3, lambda level, _: level > 180)
    for path in folder.glob("*/*.png"):
        pixels = np.asarray(Image.open(path))
        if path.parent.name == "images":
            bands = np.moveaxis(pixels, -1, 0).astype(np.uint16) * 10
            pixels = np.concatenate([np.zeros_like(bands[:1]), bands])
        write_geotiff(path.with_suffix(".tif"), pixels)
        path.unlink()
    return folder


def evaluated(*arguments: object) -> dict[str, Any]:
    code, answer = call("evaluate", *arguments, "--precision", "fp32")
    assert code == 0, answer
    return answer


def test_evaluate_reads_the_given_bands_and_values(model: Path, data: Path) -> None:
    found = evaluated(model, data, *OPTIONS, "--threshold", 0.7)
    assert found["pixel"]["iou"] > 0.95
    assert found["images_read"] == {"bands": "2,3,4", "stretch": "0,2550", "scale": None}
    dark = evaluated(model, data, "--bands", "1,1,1", "--stretch", "0,2550", "--threshold", 0.7)
    assert dark["pixel"]["iou"] == 0


@pytest.mark.campaign
def test_fit_reads_them(model: Path, data: Path, tmp_path: Path) -> None:
    better = tmp_path / "better.rooftrace"
    code, answer = call("fit", model, data, "-o", better, *OPTIONS, "--precision", "fp32")
    assert code == 0, answer
    assert answer["data"][0]["after"]["iou"] > 0.95
    again = tmp_path / "c.rooftrace"
    code, answer = call("fit", "--keep-threshold", better, data, "-o", again, *OPTIONS,
                        "--precision", "fp32")  # fmt: skip
    assert code == 0, answer
    for command in (
        ("fit", model, data, "-o", better),
        ("fit", "--keep-threshold", model, data, "-o", better),
        ("evaluate", model, data),
    ):  # fmt: skip
        code, answer = call(*command, "--bands", "7,3,2", "--precision", "fp32")
        assert code == 2
        assert "has no band 7" in answer["error"]["message"] or "7" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "Scale: 3 images at 0.5 m per pixel."),
        (("--gsd", 0.4), "Scale: 3 images at 0.4 m per pixel."),
        (("--scale", 0.8), "Scale: 3 images resized by the factor 0.8, as given."),
    ],
)
def test_evaluate_says_what_scale_it_assumed(
    model: Path, data: Path, options: tuple[object, ...], expected: str
) -> None:
    assert expected in evaluated(model, data, *OPTIONS, *options)["notes"]


def test_images_without_metres_are_named(model: Path, data: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        with rasterio.open(data / part / "0.tif") as file:
            write_geotiff(tmp_path / part / "0.tif", file.read(), crs=None, transform=None)
    (note,) = (
        one for one in evaluated(model, tmp_path, *OPTIONS)["notes"] if one.startswith("Scale")
    )
    assert "1 image without metres per pixel, assumed to have the model's 0.5 m" in note
    assert "--gsd" in note


@pytest.mark.parametrize(
    "command", [("predict", "a.tif"), ("train", "a.toml"), ("finetune", "data"), ("demo",)]
)
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("s3://mine/a", "expected a folder on this machine"),
        ("new.gpkg", "expected a folder, since there are several"),
        ("new.rooftrace", "expected a folder, since there are several"),
        ("there", "is a file; expected a folder"),
    ],
)
def test_a_result_of_several_files_needs_a_folder(
    command: tuple[str, ...], out: str, message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("there").touch()
    code, answer = call(*command, "-o", out)
    assert code == 2
    assert message in answer["error"]["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("command", ["vectorize mask.tif", "split data", "video flight.mp4"])
def test_a_result_of_one_file_needs_a_file(command: str) -> None:
    for out, message in (("s3://mine/a.gpkg", "a file on this machine"), (".", "is a folder;")):
        code, answer = call(*command.split(), "-o", out)
        assert (code, message in answer["error"]["message"]) == (2, True)
