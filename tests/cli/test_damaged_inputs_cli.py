"""Damaged images, and models without probabilities, through the real command."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.rpc import RPC

from command_line import call
from raster_files import write_geotiff
from rooftrace.io.legend import NODATA
from tiny_models import write_tiny_bundle, write_with_weight


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A grey scene of 96 × 96 pixels with a bright house."""
    data = np.full((3, 96, 96), 30, dtype=np.uint8)
    data[:, 20:60, 20:60] = 220
    return write_geotiff(tmp_path / "scene.tif", data)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny.rooftrace")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, 1.0])
def test_a_model_that_answers_no_probabilities_fails_with_its_tile_named(
    scene: Path, tmp_path: Path, engine: str, weight: float
) -> None:
    model = write_with_weight(tmp_path / "model.rooftrace", weight)
    given = ("predict", scene, "-m", model, "-o", tmp_path / "out", "--engine", engine)
    code, done = call(*given)
    assert (code, done["error"]["type"]) == (5, "PredictError")
    message = done["error"]["message"]
    assert "scene.tif: the network failed on the tile at rows 0:96, columns 0:96" in message
    assert "(model brightness)" in message
    assert "expected probabilities from 0 to 1" in message
    assert "--precision fp32" in done["error"]["remedy"]
    code, done = call(*given, "--on-error", "nodata")
    assert code == 0
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert "became nodata" in str(run["notes"])
    with rasterio.open(done["outputs"][0]["mask"]) as mask:
        assert (mask.read(1) == NODATA).all()


@pytest.mark.parametrize("how", ["tta", "ensemble"])
def test_several_answers_do_not_hide_nan(scene: Path, tiny: Path, tmp_path: Path, how: str) -> None:
    model = write_with_weight(tmp_path / "model.rooftrace", math.nan)
    options = {"tta": ("--tta", "flips"), "ensemble": ("-m", tiny, "--ensemble", "average")}[how]
    code, done = call("predict", scene, "-m", model, *options, "-o", tmp_path / "out")
    assert (code, done["error"]["type"]) == (5, "PredictError")
    assert "gave NaN" in done["error"]["message"]


def predicted(image: Path, model: Path, *options: object) -> tuple[int, str]:
    """Return the exit code, and the message of the error with its remedy."""
    code, done = call("predict", image, "-m", model, "-o", image.parent / "out", *options)
    error = done.get("error", {"message": "", "remedy": ""})
    return code, f"{error['message']} {error['remedy']}"


def with_mask(scene: Path) -> Path:
    """Write the lower half of a scene as nodata into a mask beside it."""
    valid = np.full((96, 96), 255, np.uint8)
    valid[48:] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(scene, "r+") as file:
        file.write_mask(valid)
    return scene.with_name(scene.name + ".msk")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_mask_that_was_cut_off_is_named_and_nodata_never_becomes_ground(
    scene: Path, tiny: Path, share: float
) -> None:
    mask = with_mask(scene)
    data = mask.read_bytes()
    assert predicted(scene, tiny)[0] == 0
    mask.write_bytes(data[: int(len(data) * share)])
    code, text = predicted(scene, tiny, "-o", scene.parent / "again")
    assert code == 3
    assert "scene.tif.msk" in text


@pytest.mark.parametrize("content", ["", "<PAMDataset>", "<PAMDataset><SRS>EPSG:3"])
def test_metadata_that_was_cut_off_is_named(scene: Path, tiny: Path, content: str) -> None:
    scene.with_name("scene.tif.aux.xml").write_text(content)
    code, text = predicted(scene, tiny)
    assert code == 3
    assert "scene.tif.aux.xml is damaged" in text


@pytest.mark.campaign
@pytest.mark.parametrize(
    "content",
    ["", "a\nb\nc\nd\ne\nf\n", "0.5\n0\n0\n", "nan\n0\n0\n-0.5\n100\n200\n", "\0\1\2",
     "0\n0\n0\n0\n100\n200\n", "0.5\n0\n0\n0\n100\n200\n", "inf\n0\n0\n-0.5\n100\n200\n"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["scene.jgw", "scene.jpgw", "scene.wld", "scene.JGW"])
def test_a_damaged_world_file_is_named(tiny: Path, tmp_path: Path, name: str, content: str) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "scene.jpg")
    (tmp_path / name).write_text(content)
    code, text = predicted(tmp_path / "scene.jpg", tiny, "--gsd", "0.4")
    assert code == 3
    assert f"{name} is damaged" in text


@pytest.mark.parametrize("height", ["2,000,000,000", "1"])
def test_a_small_file_that_states_an_impossible_size_is_refused(
    tiny: Path, tmp_path: Path, height: str
) -> None:
    bands = "".join(f'<VRTRasterBand dataType="Byte" band="{i}"/>' for i in (1, 2, 3))
    size = f'rasterXSize="2000000000" rasterYSize="{height.replace(",", "")}"'
    (tmp_path / "huge.vrt").write_text(f"<VRTDataset {size}>{bands}</VRTDataset>")
    code, text = predicted(tmp_path / "huge.vrt", tiny, "--gsd", "0.3")
    assert code == 3
    assert f"2,000,000,000 × {height} pixels" in text


def test_a_nodata_value_that_no_pixel_can_have_is_refused(scene: Path, tiny: Path) -> None:
    code, text = predicted(scene, tiny, "--nodata", "300")
    assert code == 3
    assert "whole numbers from 0 to 255 (uint8)" in text


def test_complex_pixels_are_refused(tiny: Path, tmp_path: Path) -> None:
    image = write_geotiff(tmp_path / "a.tif", np.zeros((3, 32, 32), np.complex64),
                          dtype="complex_int16")  # fmt: skip
    code, text = predicted(image, tiny)
    assert code == 3
    assert "complex_int16" in text


def test_a_camera_model_is_not_applied_silently(tiny: Path, tmp_path: Path) -> None:
    numerator, denominator = [0.0, 0.0, 1.0, *[0.0] * 17], [1.0, *[0.0] * 19]
    model = RPC(
        height_off=0, height_scale=500, lat_off=-9, lat_scale=0.1, long_off=39, long_scale=0.1,
        line_off=16, line_scale=16, samp_off=16, samp_scale=16, line_num_coeff=numerator,
        line_den_coeff=denominator, samp_num_coeff=[0.0, 1.0, *[0.0] * 18],
        samp_den_coeff=denominator,
    )  # fmt: skip
    image = write_geotiff(
        tmp_path / "a.tif", np.zeros((3, 32, 32), np.uint8), crs=None, transform=None, rpcs=model
    )
    assert predicted(image, tiny)[0] == 0
    notes = str(json.loads((tmp_path / "out" / "run.json").read_text())["notes"])
    assert "a camera model (RPC)" in notes
    assert "gdalwarp -rpc -to RPC_DEM=" in notes
