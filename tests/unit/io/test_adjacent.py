"""Images side by side are one scene: every window equals that of the whole."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from raster_files import write_geotiff
from rooftrace.core.errors import DataError, GeoreferenceError
from rooftrace.core.types import SparseSource, Window
from rooftrace.io import mosaic as adjacent
from rooftrace.io import raster as raster_module
from rooftrace.io.mosaic import AdjacentImages, check_dense
from rooftrace.io.raster import open_raster

ORIGIN = Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
SHAPE = (150, 200)

PLACES = {
    "a": Window(0, 0, 64, 70),
    "b": Window(0, 70, 50, 40),
    "c": Window(64, 0, 86, 33),
    # Over "b", and later by name.
    "d": Window(30, 90, 60, 110),
}


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (3, *SHAPE), dtype=np.uint8)


def write(path: Path, data: np.ndarray, window: Window, **options: object) -> Path:
    profile: dict[str, object] = {"crs": "EPSG:32633", "transform": ORIGIN, "nodata": 0} | options
    profile["transform"] = profile["transform"] @ Affine.translation(window.col, window.row)
    write_geotiff(path, data, **profile)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scene: np.ndarray) -> Path:
    """The scene cut into four, the last a little brighter and with a hole."""
    folder = tmp_path_factory.mktemp("tiles")
    for name, window in PLACES.items():
        data = scene[:, *window.slices()].copy()
        if name == "d":
            data = np.maximum(data, 2)
            data[:, 10:20, :30] = 0
        write(folder / f"{name}.tif", data, window)
    return folder


def opened(folder: Path) -> AdjacentImages:
    return AdjacentImages([open_raster(p) for p in sorted(folder.glob("*.tif"))], "town")


@pytest.fixture(scope="module")
def expected(scene: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    data, valid = np.zeros_like(scene), np.zeros(SHAPE, bool)
    for name, window in PLACES.items():
        part = scene[:, *window.slices()].copy()
        known = np.ones(window.shape_yx, bool)
        if name == "d":
            part = np.maximum(part, 2)
            known[10:20, :30] = False
        rows, cols = window.slices()
        data[:, rows, cols] = np.where(known, part, data[:, rows, cols])
        valid[rows, cols] |= known
    return data, valid


@pytest.mark.parametrize("small_px", [2**20, 0])
def test_windows_are_those_of_the_whole(
    folder: Path,
    expected: tuple[np.ndarray, np.ndarray],
    small_px: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(raster_module, "_SMALL_PX", small_px)
    monkeypatch.setattr(raster_module, "_MAX_OPEN", 2)
    monkeypatch.setattr(adjacent, "_CACHE_BYTES", 20_000)
    source = opened(folder)
    assert isinstance(source, SparseSource)
    assert (source.grid.shape, source.grid.transform) == (SHAPE, ORIGIN)
    data, valid = expected

    @given(st.integers(0, 149), st.integers(0, 199), st.integers(1, 150), st.integers(1, 200))
    def check(row: int, col: int, height: int, width: int) -> None:
        window = Window(row, col, height, width).intersection(Window.whole(SHAPE))
        assert window is not None
        raster = source.read(window)
        part = window.slices()
        np.testing.assert_array_equal(raster.valid, valid[part])
        np.testing.assert_array_equal(raster.data, data[:, *part])
        assert raster.grid == source.grid.crop(window)
        if source.is_empty(window):
            assert not raster.valid.any()

    check()
    assert source.is_empty(Window(100, 50, 50, 150))
    source.close()


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        (("2024:05:17 10:31:00", "2024:05:17 10:33:20"), "2024-05-17"),
        (("2024:06:01 00:10:00", "2024:05:17 10:31:00"), "2024-05-17/2024-06-01"),
        (("2024:05:17 10:31:00", None), None),
    ],
)
def test_the_days_of_the_images_are_those_of_the_scene(
    dates: tuple[str | None, ...], expected: str | None, tmp_path: Path, scene: np.ndarray
) -> None:
    images = []
    for name, date in zip("ab", dates):
        window = PLACES[name]
        path = write(tmp_path / f"{name}.tif", scene[:, *window.slices()], window)
        if date is not None:
            with rasterio.open(path, "r+") as file:
                file.update_tags(TIFFTAG_DATETIME=date)
        images.append(open_raster(path))
    provenance = AdjacentImages(images, str(tmp_path / "flight")).provenance
    assert (provenance.imagery_date, provenance.image) == (expected, "flight")


@pytest.mark.parametrize(("nodata", "expected"), [(None, ["give --nodata 0."]), (0, [])])
def test_fill_over_other_images_has_a_note(
    folder: Path, tmp_path: Path, scene: np.ndarray, nodata: int | None, expected: list[str]
) -> None:
    data = scene[:, *PLACES["d"].slices()].copy()
    data[:, [-1, -1], [0, -1]] = 0
    images, tiff = [folder / "b.tif", tmp_path / "d.png"], tmp_path / "d.tif"
    rasterio.shutil.copy(write(tiff, data, PLACES["d"], nodata=nodata), images[1], driver="PNG")
    notes = AdjacentImages([*map(open_raster, images)], "town").notes
    assert [note.partition("If it is fill, ")[2] for note in notes] == expected


def test_what_does_not_fit_is_named(folder: Path, tmp_path: Path, scene: np.ndarray) -> None:
    part = scene[:, :20, :20]
    window = Window(0, 0, 20, 20)
    first = open_raster(folder / "a.tif")

    def refused(kind: type[DataError], pattern: str, data: np.ndarray, **options: object) -> None:
        path = write(tmp_path / "z.tif", data, window, **options)
        with pytest.raises(kind, match=pattern) as caught:
            AdjacentImages([first, open_raster(path)], "town")
        assert "z.tif" in caught.value.message
        assert caught.value.remedy

    beside = ORIGIN @ Affine.translation(0.4, 0)
    refused(GeoreferenceError, r"0\.40 pixels off", part, transform=beside)
    refused(GeoreferenceError, "pixel size", part, transform=ORIGIN @ Affine.scale(1.01))
    refused(GeoreferenceError, "is in EPSG:32634", part, crs="EPSG:32634")
    refused(GeoreferenceError, "a position, but no coordinate system", part, crs=None)
    refused(DataError, "the bands band1 of uint8", part[:1])
    refused(DataError, "red, green, blue of uint16", part.astype(np.uint16))
    far = ORIGIN @ Affine.translation(10**7, 10**7)
    # Tiles of a map are smaller, so that fewer pixels may lie between them.
    check_dense((2**17, 2**17), 2**16, "images", "images", 2**37)
    with pytest.raises(DataError, match=r"tiles lie scattered .* 3\.8e-06.*folder or file"):
        check_dense((2**17, 2**17), 2**16, "tiles", "tiles")
    with pytest.raises(DataError, match="scattered"):
        AdjacentImages([first, open_raster(write(tmp_path / "y.tif", part, window, transform=far))],
                      "town")  # fmt: skip


def test_bands_in_another_order_are_refused(tmp_path: Path, scene: np.ndarray) -> None:
    """The bands of the scene are those of its first image: others had red and blue exchanged."""
    orders = {"a": ("red", "green", "blue"), "b": ("blue", "green", "red"), "c": (None,) * 3}
    images = {}
    for name, order in orders.items():
        path = write(tmp_path / f"{name}.tif", scene[:, *PLACES[name].slices()], PLACES[name])
        with rasterio.open(path, "r+") as file:
            file.descriptions = order
        images[name] = open_raster(path)
    with pytest.raises(
        DataError, match=r"b\.tif has the bands blue, green, red of uint8; .*a\.tif has red"
    ):
        AdjacentImages([images["a"], images["b"]], "scene")
    # Without names the bands are taken to be in the usual order, as in one image.
    AdjacentImages([images["a"], images["c"]], "scene")


def test_coordinates_may_be_rounded_a_little(
    folder: Path, tmp_path: Path, scene: np.ndarray
) -> None:
    window = Window(0, 70, 50, 40)
    nearly = ORIGIN @ Affine.translation(0.01, -0.01)
    path = write(tmp_path / "b.tif", scene[:, *window.slices()], window, transform=nearly)
    source = AdjacentImages([open_raster(folder / "a.tif"), open_raster(path)], "town")
    np.testing.assert_array_equal(source.read(window).data, scene[:, *window.slices()])
