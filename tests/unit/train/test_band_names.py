"""A trained model records the names of its training images' bands, and finds them in others."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import rasterio

pytest.importorskip("torch")

from raster_files import write_geotiff
from rooftrace.core.config import parse_config
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.flows.train import run_train
from rooftrace.models.bundle import read_bundle
from rooftrace.predict.predictor import load
from rooftrace.train.config import TrainConfig
from rooftrace.train.datamodule import TrainingData, open_data
from rooftrace.train.loop import _as_in_start
from tiny_training import SQUARES

SIDE = 64
RGBN = ("red", "green", "blue", "nir")


def write_image(path: Path, seed: int, names: tuple[str, ...], order: list[int]) -> Path:
    """Write 16-bit bands of a seed in an order, with their descriptions.

    Bright buildings stand out in the last band alone.
    """
    rng = np.random.default_rng(seed)
    data = rng.integers(1, 3000, (len(order), SIDE, SIDE)).astype(np.uint16)
    data[-1, 16:48, 16:48] += 9000
    path.parent.mkdir(parents=True, exist_ok=True)
    write_geotiff(path, data[order])
    with rasterio.open(path, "r+") as file:
        file.descriptions = [names[band] if names else None for band in order]
    return path


def write_set(folder: Path, *kinds: tuple[str, ...], bands: int = 4) -> None:
    """Write two labelled images of each kind of descriptions."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    for number, names in enumerate(kinds * 2):
        write_image(folder / f"images/{number}.tif", number, names, list(range(bands)))
        (folder / "masks").mkdir(exist_ok=True)
        write_geotiff(folder / f"masks/{number}.tif", mask)


def config() -> TrainConfig:
    return parse_config(tomllib.loads(SQUARES), TrainConfig, source="test")


def opened(folder: Path, *kinds: tuple[str, ...], bands: int = 4) -> TrainingData:
    write_set(folder / "data", *kinds, bands=bands)
    return open_data(config(), folder)


def test_names_are_those_of_the_images(tmp_path: Path) -> None:
    infrared = opened(tmp_path, ("NIR", "Red", "Green"), bands=3)
    assert infrared.bands == ("nir", "red", "green")
    assert not any("bands" in note for note in infrared.notes)
    # The start model of the fine-tuning was trained on other colours.
    _, notes = _as_in_start(infrared, config(), tiny_bundle().spec)
    assert "the bands are nir, red, green, but the start model was trained on red, green, blue" in (
        notes
    )


def test_images_that_differ_leave_the_bands_without_names(tmp_path: Path) -> None:
    data = opened(tmp_path, RGBN, ("blue", "green", "red", "nir"))
    assert data.bands == ("band1", "band2", "band3", "band4")
    (note,) = (note for note in data.notes if "without names" in note)
    assert "are red, green, blue, nir, but those of" in note
    assert "are blue, green, red, nir" in note


@pytest.mark.campaign
def test_a_trained_model_finds_its_bands_in_another_order(tmp_path: Path) -> None:
    write_set(tmp_path / "data", RGBN)
    (tmp_path / "train.toml").write_text(SQUARES, encoding="utf-8")
    run_train(tmp_path / "train.toml", tmp_path / "run")
    path = tmp_path / "run/best_iou.rooftrace"
    assert read_bundle(path).spec.bands == RGBN
    predictor = load(path, precision="fp32")
    same = write_image(tmp_path / "rgbn.tif", 9, RGBN, [0, 1, 2, 3])
    other = write_image(tmp_path / "bgrn.tif", 9, RGBN, [2, 1, 0, 3])
    infrared_first = write_image(tmp_path / "nrgb.tif", 9, RGBN, [3, 0, 1, 2])
    expected = predictor.predict(same).mask.data
    assert 0 < expected.mean() < 1
    for image in (other, infrared_first):
        found = predictor.predict(image)
        assert np.array_equal(found.mask.data, expected)
        assert any("are read as red, green, blue, nir" in note for note in found.summary.notes)
