"""Heights above ground as a band: a model is trained on it and predicts with it."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

pytest.importorskip("torch")

from command_line import call, command
from raster_files import write_geotiff
from rooftrace.io.elevation import WithHeights
from rooftrace.io.raster import open_raster
from rooftrace.models.bundle import read_bundle
from tiny_training import SQUARES

SIDE = 64
WEST, NORTH = 500_000.0, 5_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write two images of noise beside each other, on which only the heights show buildings.

    The models have pixels of 1 m, the images of 0.5 m; the surface lacks its first column.
    """
    rng = np.random.default_rng(3)
    ground = np.full((SIDE // 2, SIDE), 40.0, np.float32) + np.arange(SIDE, dtype=np.float32)
    surface = ground.copy()
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    for number in range(2):
        left = number * SIDE / 2
        surface[8:24, int(left) + 8 : int(left) + 24] += 10
        place = {"crs": "EPSG:32631", "transform": Affine(0.5, 0, WEST + left, 0, -0.5, NORTH)}
        noise = rng.integers(1, 255, (3, SIDE, SIDE)).astype(np.uint8)
        for kind, pixels in (("images", noise), ("masks", mask)):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            write_geotiff(tmp_path / "data" / kind / f"{number}.tif", pixels, **place)
    surface[:, 0] = -9999
    place = {"crs": "EPSG:32631", "transform": Affine(1, 0, WEST, 0, -1, NORTH)}
    write_geotiff(tmp_path / "dsm.tif", surface, nodata=-9999, **place)
    write_geotiff(tmp_path / "dtm.tif", ground, nodata=-9999, **place)
    models = 'path = "data"\nsurface = "dsm.tif"\nterrain = "dtm.tif"'
    (tmp_path / "train.toml").write_text(SQUARES.replace('path = "data"', models))
    return tmp_path


def test_the_band_counts_steps_of_20_cm(folder: Path) -> None:
    models = [str(folder / "dsm.tif")], [str(folder / "dtm.tif")]
    image = WithHeights(open_raster(folder / "data/images/0.tif"), *models)
    raster = image.read()
    assert raster.data.dtype == np.uint8
    assert (raster.data[3, 20:44, 20:44] == 50).all()
    assert (raster.data[3, :12, 4:] == 0).all()
    assert not raster.valid[:, 0].any()
    assert raster.valid[:, 4:].all()


@pytest.mark.campaign
def test_a_model_is_trained_on_heights_and_finds_buildings_by_them(folder: Path) -> None:
    code, answer = call("train", folder / "train.toml", "-o", folder / "run")
    assert code == 0, answer
    bundle = folder / "run" / "best_iou.rooftrace"
    assert read_bundle(bundle).spec.bands == ("red", "green", "blue", "height")
    with rasterio.open(folder / "data/images/1.tif") as file:
        profile, pixels = file.profile | {"dtype": "uint16"}, file.read()
    with rasterio.open(folder / "16bit.tif", "w", **profile) as file:
        file.write(pixels.astype(np.uint16) * 90)
    with rasterio.open(folder / "data/masks/1.tif") as file:
        built = file.read(1) == 255
    models = ("--surface", folder / "dsm.tif", "--terrain", folder / "dtm.tif")
    # Colours of 16 bits are stretched, heights are not.
    for image in (folder / "data/images/1.tif", folder / "16bit.tif"):
        given = ("predict", image, "-m", bundle, "-o", folder / "out", "--outputs", "mask")
        code, answer = call(*given, *models)
        assert code == 0, answer
        with rasterio.open(answer["outputs"][0]["mask"]) as file:
            predicted = file.read(1) == 1
        assert (predicted & built).sum() / (predicted | built).sum() > 0.8
    assert "Give a surface and a terrain model" in command(*given).err
