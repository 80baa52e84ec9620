"""Images are converted to files that browsers show."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rooftrace.core.errors import DataError
from rooftrace.core.types import GeoGrid
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.raster import open_raster
from rooftrace.labels.labelstudio import BrowserImage, browser_image, is_shown_by_browsers


def pixels(picture: BrowserImage) -> np.ndarray:
    with Image.open(io.BytesIO(picture.content)) as image:
        return np.asarray(image)


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("b.JPG", "JPEG"), ("c.png", "JPEG")])
def test_what_is_shown_as_it_lies_goes_as_it_lies(tmp_path: Path, name: str, kind: str) -> None:
    file = tmp_path / name
    Image.new("RGB", (30, 20), (9, 80, 70)).save(file, format=kind)
    assert is_shown_by_browsers(file) == kind
    picture = browser_image(open_raster(file), file, "scene")
    assert picture.content == file.read_bytes()
    assert picture.media_type == f"image/{kind.lower()}"
    # The suffix fits the content, also if that of the file does not.
    assert picture.name == {"a.png": "scene.png", "b.JPG": "scene.JPG", "c.png": "scene.jpg"}[name]


def test_a_photograph_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20), (9, 80, 70)).save(file, exif=exif)
    assert is_shown_by_browsers(file) is None
    picture = browser_image(open_raster(file), file, "a")
    assert (picture.name, pixels(picture).shape) == ("a.png", (30, 20, 3))


@pytest.mark.parametrize("bands", [1, 2, 3, 5])
def test_values_of_more_bits_are_stretched(bands: int) -> None:
    ramp = np.linspace(1000, 3000, 64 * 64).reshape(64, 64)
    data = np.stack([ramp] * bands).astype(np.uint16)
    valid = np.ones((64, 64), dtype=bool)
    valid[:4] = False
    data[:, :4] = 65535  # nodata takes no part
    shown = pixels(browser_image(ArraySource(data, GeoGrid((64, 64)), valid), None, "x"))
    assert shown.shape == ((64, 64, 3) if bands >= 3 else (64, 64))
    assert shown[4:].min() == 0
    assert shown[4:].max() == 255
    assert abs(float(shown[34].mean()) - 127) < 8


def test_too_large_for_an_editor() -> None:
    giant = np.broadcast_to(np.uint8(0), (1, 8001, 8000))
    with pytest.raises(DataError, match="has 64 million pixels"):
        browser_image(ArraySource(giant), None, "x")
