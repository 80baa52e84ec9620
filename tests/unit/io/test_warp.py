import numpy as np
import pytest
from affine import Affine
from pyproj import CRS

from rooftrace.core.types import GeoGrid, Raster, RasterSource, Window
from rooftrace.io import resample as warp
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.reproject import outline_bounds
from rooftrace.io.resample import warped

UTM = CRS.from_epsg(32736)
MERCATOR = CRS.from_epsg(3857)
AT = Affine(0.5, 0, 500_000, 0, -0.5, 9_300_000)


def source(dtype: str = "uint8", side: int = 64, valid: np.ndarray | None = None) -> ArraySource:
    data = np.random.default_rng(3).integers(0, np.iinfo(dtype).max, (3, side, side), dtype, True)
    return ArraySource(data, GeoGrid((side, side), AT, UTM), valid)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_its_own_grid_changes_nothing(dtype: str) -> None:
    valid = np.random.default_rng(4).random((64, 64)) > 0.3
    image = source(dtype, valid=valid)
    for window in (Window(0, 0, 64, 64), Window(10, 20, 30, 17), Window(-5, 60, 12, 12)):
        found = warped(image, image.grid.crop(window))
        here = window.intersection(Window(0, 0, 64, 64))
        assert here is not None
        inner = here.slices(window)
        assert found.valid.sum() == valid[here.slices()].sum()
        np.testing.assert_array_equal(found.valid[inner], valid[here.slices()])
        same = image.read(here)
        np.testing.assert_array_equal(
            np.where(same.valid, found.data[:, *inner], 0), np.where(same.valid, same.data, 0)
        )


def test_coarser_pixels_are_means_of_what_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    valid = np.ones((64, 64), np.bool_)
    valid[:8, :8], valid[8:11, 8:16], valid[16:21, 16:24] = False, False, False
    image = source(valid=valid)
    grid = image.grid.resampled((8, 8), (8.0, 8.0))
    blocks = image.read().data.reshape(3, 8, 8, 8, 8).astype(float)
    weight = valid.reshape(8, 8, 8, 8).astype(float)
    with np.errstate(invalid="ignore"):
        mean = (blocks * weight).sum(axis=(2, 4)) / weight.sum(axis=(1, 3))
    for most_px in (2**22, 100):  # at once, and piece by piece
        monkeypatch.setattr(warp, "_MAX_READ_PX", most_px)
        found = warped(image, grid)
        np.testing.assert_array_equal(found.valid, weight.mean(axis=(1, 3)) >= 0.5)
        assert np.abs(found.data - mean)[:, found.valid].max() <= 0.51


class _Watched:
    """Remembers the largest window that was read."""

    def __init__(self, source: RasterSource) -> None:
        self.source, self.most = source, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.source, name)

    def read(self, window: Window | None = None) -> Raster:
        assert window is not None
        self.most = max(self.most, window.area_px)
        return self.source.read(window)


def test_little_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warp, "_MAX_READ_PX", 32 * 32)
    image = _Watched(source(side=512))
    warped(image, image.grid.resampled((16, 16), (32.0, 32.0)))
    # A single pixel of the target is never divided: it and its margins.
    assert image.most < (32 * 5 + 6) ** 2


def test_another_system_keeps_its_place() -> None:
    """A bright square stays where it is on the ground, to a pixel."""
    data = np.zeros((1, 200, 200), np.uint8)
    data[:, 80:120, 60:100] = 255
    image = ArraySource(data, GeoGrid((200, 200), AT, UTM))
    bounds = outline_bounds(image.grid, MERCATOR)
    assert bounds is not None
    left, bottom, right, top = bounds
    grid = GeoGrid(
        (220, 220), Affine((right - left) / 220, 0, left, 0, (bottom - top) / 220, top), MERCATOR
    )
    found = warped(image, grid)
    bright = outline_bounds(image.grid.crop(Window(80, 60, 40, 40)), MERCATOR)
    assert bright is not None
    inverse = ~grid.transform
    rows, cols = np.nonzero(found.data[0] > 127)
    expected = [inverse @ (bright[0], bright[3]), inverse @ (bright[2], bright[1])]
    assert (cols.min(), rows.min()) == pytest.approx(expected[0], abs=1.5)
    assert (cols.max() + 1, rows.max() + 1) == pytest.approx(expected[1], abs=1.5)
    assert found.valid.mean() > 0.99


def test_elsewhere_there_is_nothing() -> None:
    image = source()
    far = GeoGrid((8, 8), Affine(1, 0, 0, 0, -1, 0), MERCATOR)
    assert not warped(image, far).valid.any()


def test_class_indices_are_never_mixed() -> None:
    rng = np.random.default_rng(3)
    data = rng.choice(np.array([0, 1, 7], np.uint8), (1, 64, 64))
    valid = rng.random((64, 64)) > 0.2
    grid = GeoGrid((64, 64), Affine(1, 0, 500_000, 0, -1, 9_000_000), CRS.from_epsg(32736))
    source = ArraySource(data, grid, valid)
    # Three pixels of each: their centres lie in the second, in rows and in columns.
    coarse = grid.resampled((21, 21), (3, 3))
    found = warped(source, coarse, nearest=True)
    assert np.array_equal(found.data[0][found.valid], data[0, 1:63:3, 1:63:3][found.valid])
    assert np.array_equal(found.valid, valid[1:63:3, 1:63:3])
    assert set(np.unique(warped(source, coarse).data).tolist()) > {0, 1, 7}
