"""Nodata values that occur on the ground, and fill that no file declares."""

from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from raster_files import write_geotiff
from rooftrace.core.types import Window
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.nodata import SPECK_M, NodataRule, without_specks
from rooftrace.io.pixels import PreparedSource, prepare
from rooftrace.io.raster import RasterFile, open_raster

PLACE = {"crs": "EPSG:32645", "transform": Affine(0.25, 0, 5e5, 0, -0.25, 3e6)}
SPECK_PX = round(SPECK_M / 0.25)


def prepared(source: object, stretch: str = "auto") -> PreparedSource:
    usual = ((120.0, 60.0),) * 3
    made = prepare(source, ("red", "green", "blue"), np.dtype(np.uint8), usual, stretch=stretch)
    assert isinstance(made, PreparedSource)
    return made


def scene(
    side: int = 400, dtype: str = "uint8", *, is_warped: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return grey ground, and where a footprint leaves the frame empty; if warped, by wedges."""
    image = np.random.default_rng(3).integers(40, 200, (3, side, side)).astype(dtype)
    rows, cols = np.mgrid[:side, :side]
    if not is_warped:
        return image, cols + 0.35 * rows < 0.4 * side
    wedges = [(cols, rows), (rows, side - cols), (side - cols, side - rows), (side - rows, cols)]
    return image, np.any([depth < 0.04 * along for depth, along in wedges], axis=0)


@pytest.fixture
def white_roofs(tmp_path: Path) -> tuple[RasterFile, np.ndarray]:
    """Return a file that declares white as nodata, with white on roofs, and its empty part."""
    image, empty = scene()
    for row, col, size in ((50, 300, 1), (80, 250, 5), (200, 330, SPECK_PX - 3), (395, 380, 6)):
        image[:, row : row + size, col : col + size] = 255
    image[:, 0, 300:] = 255  # a narrow edge that a warp left
    image[:, empty] = 255
    empty[0, 300:] = True
    return open_raster(write_geotiff(tmp_path / "white.tif", image, nodata=255, **PLACE)), empty


@pytest.mark.parametrize("side", [37, 128, 400])
def test_enclosed_specks_of_the_nodata_value_are_ground_in_any_window(
    white_roofs: tuple[RasterFile, np.ndarray], side: int
) -> None:
    file, empty = white_roofs
    for row in range(0, 400, side):
        for col in range(0, 400, side):
            window = Window(row, col, min(side, 400 - row), min(side, 400 - col))
            found = file.read(window).valid
            np.testing.assert_array_equal(found, ~empty[window.slices()])
    assert file.speck_px > 100
    assert "value lie scattered in the picture" in prepared(file).choices[0]


@pytest.mark.parametrize("fill", [0, 255])
def test_fill_that_lossy_compression_changed_is_nodata(tmp_path: Path, fill: int) -> None:
    image, empty = scene()
    image = image // 4 + 80
    image[:, empty] = fill
    rule = NodataRule(value=fill)
    lossy = {"compress": "jpeg", "photometric": "ycbcr", **PLACE}
    file = open_raster(write_geotiff(tmp_path / "lossy.tif", image, **lossy), nodata=rule)
    whole, stored = file.read().valid, file.read().data
    assert np.count_nonzero(empty & (stored != fill).any(axis=0)) > 1000
    assert np.count_nonzero(empty & whole) < 10
    assert np.count_nonzero(~empty & ~whole) < 0.05 * np.count_nonzero(empty)
    for row, col in product(range(0, 400, 50), repeat=2):
        window = Window(row, col, 50, 50)
        np.testing.assert_array_equal(file.read(window).valid, whole[window.slices()])
    exact = open_raster(write_geotiff(tmp_path / "exact.tif", stored, **PLACE), nodata=rule)
    assert np.count_nonzero(empty & exact.read().valid) > 1000


@pytest.mark.parametrize("rule", [{"nodata": 255}, {}])
def test_nodata_of_an_image_that_stores_white_as_0(tmp_path: Path, rule: dict[str, int]) -> None:
    image, empty = scene()
    image = np.where(empty, 0, image[:1] // 4 + 80).astype(np.uint8)
    stored = {"photometric": "miniswhite", "compress": "jpeg", **rule, **PLACE}
    path = write_geotiff(tmp_path / "scan.tif", 255 - image, **stored)
    file = open_raster(path, nodata=None if rule else NodataRule(value=0))
    assert np.count_nonzero(file.read().valid != ~empty) < 0.05 * np.count_nonzero(empty)


def test_large_areas_of_nodata_inside_stay(tmp_path: Path) -> None:
    image, _ = scene()
    image[:, 100:130, 100:140] = 0
    path = write_geotiff(tmp_path / "hole.tif", image, nodata=0, **PLACE)
    valid = open_raster(path).read().valid
    assert np.argwhere(~valid).min(axis=0).tolist() == [100, 100]
    assert np.count_nonzero(~valid) == 30 * 40
    assert without_specks(valid, 31).all()


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_values_that_no_picture_has_are_nodata_in_specks_too(tmp_path: Path, dtype: str) -> None:
    image, _ = scene(dtype=dtype)
    image[:, 100:103, 100:103] = -9999
    path = write_geotiff(tmp_path / "gap.tif", image, nodata=-9999, **PLACE)
    assert np.count_nonzero(~open_raster(path).read().valid) == 9


@pytest.mark.parametrize("way", ["value", "mask", "alpha"])
def test_none_drops_what_the_file_declares(tmp_path: Path, way: str) -> None:
    image, empty = scene(100)
    image[:, empty] = 255
    path = tmp_path / "a.tif"
    if way == "value":
        write_geotiff(path, image, nodata=255)
    elif way == "alpha":
        alpha = np.where(empty, 0, 255).astype(np.uint8)[None]
        write_geotiff(path, np.concatenate([image, alpha]), photometric="RGB", alpha="yes")
    else:
        write_geotiff(path, image)
        with rasterio.open(path, "r+") as file:
            file.write_mask(~empty)
    np.testing.assert_array_equal(open_raster(path).read().valid, ~empty)
    dropped = open_raster(path, nodata=NodataRule(declared=False))
    assert dropped.read().valid.all()
    assert (dropped.bands, dropped.is_empty(Window(0, 0, 2, 2))) == (3, False)


@pytest.mark.parametrize(
    ("dtype", "fill", "stated"),
    [
        ("int16", -9999, "-9999"), ("float32", -3.4e38, "-3.4e+38"), ("uint16", 0, "black"),
        ("uint8", 0, "black"), ("uint8", 255, "white"), ("float32", 255, "white"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("side", "is_warped"), [(400, False), (1500, False), (1500, True)])
def test_undeclared_fill_is_named_and_not_stretched_over(
    dtype: str, fill: float, stated: str, side: int, is_warped: bool
) -> None:
    image, empty = scene(side, dtype, is_warped=is_warped)
    if dtype in ("uint16", "int16"):
        image *= 20  # no values of 8 bits
    without = prepared(ArraySource(image, valid=~empty))
    image[:, empty] = fill
    found = prepared(ArraySource(image))
    notes = [note for note in found.choices if "not marked as nodata" in note]
    assert len(notes) == 1
    share = float(notes[0].partition("%")[0].split()[-1])
    assert share == pytest.approx(100 * empty.mean(), abs=2)
    assert f"of the pixels are {stated}" in notes[0]
    assert f"give --nodata {'none' if fill == 255 else f'{fill:g}'}." in notes[0]
    np.testing.assert_array_equal(found.read().valid, ~(empty & (fill == 255)))
    assert "not marked as nodata" in prepared(ArraySource(image), "none").choices[0]
    assert (found.stretch is None) == (without.stretch is None)
    if without.stretch is not None:
        assert found.stretch is not None
        assert found.stretch.low == pytest.approx(without.stretch.low, rel=0.05)
        assert found.stretch.high == pytest.approx(without.stretch.high, rel=0.05)


def test_collars_do_not_make_an_image_dark() -> None:
    image = scene()[0]
    image[:, :, 15:] = 0
    image[:, :, :15] = np.maximum(image[:, :, :15], 90)
    assert prepared(ArraySource(image)).stretch is None


def test_a_picture_with_empty_edges_is_decoded_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    image, empty = scene(1100, is_warped=True)
    source, asked = ArraySource(image, valid=~empty), []
    read = source.read
    monkeypatch.setattr(source, "read", lambda window: asked.append(window) or read(window))
    monkeypatch.setattr(source, "is_sequential", True, raising=False)
    assert prepared(source).choices == ()
    assert sum(after.row < before.row for before, after in pairwise(asked)) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda image: image,
        lambda image: np.where(np.hypot(*np.mgrid[-200:200, -200:200]) < 120, image, 30),
        lambda image: np.where(np.arange(400) < 30, 30, image),
        lambda image: image * 0,
        lambda image: np.where(np.arange(400) < 8, 0, image),
        lambda image: np.where((np.arange(400) // 40 % 2 == 1)[:, None], image, 128),
    ],
    ids=["ground", "an island", "a dark edge", "black alone", "too little", "no extreme"],
)
def test_ordinary_images_have_no_fill(make) -> None:
    assert prepared(ArraySource(make(scene()[0]).astype(np.uint8))).choices == ()


def test_a_white_collar_is_left_out_and_white_roofs_are_not(tmp_path: Path) -> None:
    image, empty = scene(1500, is_warped=True)
    image = image // 4 + 80
    for row, col in ((0, 700), (600, 700)):
        image[:, row : row + 150, col : col + 150] = 255
    image[:, empty] = 255
    lossy = {"compress": "jpeg", "photometric": "ycbcr", **PLACE}
    file = open_raster(write_geotiff(tmp_path / "white.tif", image, **lossy))
    source = prepared(file)
    assert "are left out as fill" in source.choices[0]
    valid = source.read().valid
    assert np.count_nonzero(valid & empty) < 0.02 * np.count_nonzero(empty)
    assert valid[600:750, 700:850].all()
    for row, col in product(range(0, 1500, 250), repeat=2):
        window = Window(row, col, 250, 250)
        np.testing.assert_array_equal(source.read(window).valid, valid[window.slices()])
    in_file = open_raster(file.path, nodata=NodataRule(declared=False))
    for kept in map(prepared, (in_file, ArraySource(image, keeps_fill=True))):
        assert kept.read().valid.all()
        assert "predicted as if they were ground" in kept.choices[0]
