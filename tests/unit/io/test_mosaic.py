import pickle
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rooftrace.core.errors import DataError
from rooftrace.core.types import GeoGrid, Raster, RasterSource, Window
from rooftrace.io import mosaic as mosaics
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.mosaic import TileMosaic
from rooftrace.io.raster import open_raster

ROWS, COLS, SIDE = 3, 4, 5
GRID = GeoGrid((ROWS * SIDE, COLS * SIDE), Affine(2, 0, 10, 0, -2, 50))


def whole_and_tiles(missing: set[tuple[int, int]]) -> tuple[Raster, dict]:
    """A picture with holes, and its tiles; one in grey, one with nodata."""
    rng = np.random.default_rng(0)
    data = rng.integers(1, 255, (3, *GRID.shape), np.uint8)
    valid = np.ones(GRID.shape, np.bool_)
    tiles: dict[tuple[int, int], RasterSource] = {}
    for row in range(ROWS):
        for col in range(COLS):
            part = (slice(row * SIDE, (row + 1) * SIDE), slice(col * SIDE, (col + 1) * SIDE))
            if (row, col) in missing:
                data[:, *part], valid[part] = 0, False
                continue
            if (row, col) == (1, 1):
                data[:, *part] = data[:1, *part]
                tiles[row, col] = ArraySource(data[:1, *part])
                continue
            if (row, col) == (2, 0):
                valid[part] = rng.random((SIDE, SIDE)) > 0.5
            tiles[row, col] = ArraySource(data[:, *part].copy(), valid=valid[part].copy())
    return Raster(data, valid, GRID), tiles


WINDOWS = st.builds(
    lambda r, c: Window(min(r), min(c), abs(r[0] - r[1]) + 1, abs(c[0] - c[1]) + 1),
    st.tuples(*[st.integers(0, GRID.height - 1)] * 2),
    st.tuples(*[st.integers(0, GRID.width - 1)] * 2),
)
PLACES = st.sets(st.sampled_from([(r, c) for r in range(ROWS) for c in range(COLS)]), max_size=11)


@given(PLACES, st.lists(WINDOWS, min_size=1, max_size=4), st.sampled_from([0, 200, 10**6]))
def test_windows_are_those_of_the_whole(
    missing: set[tuple[int, int]], windows: list[Window], cache_bytes: int
) -> None:
    whole, tiles = whole_and_tiles(missing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mosaics, "_CACHE_BYTES", cache_bytes)
        mosaic = TileMosaic(tiles, (SIDE, SIDE), GRID, "m")
    for window in windows:
        found = mosaic.read(window)
        np.testing.assert_array_equal(found.valid, whole.valid[window.slices()])
        expected = np.broadcast_to(whole.data, (3, *GRID.shape))[: mosaic.bands]
        np.testing.assert_array_equal(found.data, expected[:, *window.slices()])
        assert found.grid == GRID.crop(window)


def test_an_image_that_cannot_be_read_loses_only_its_own_ground(tmp_path: Path) -> None:
    whole, tiles = whole_and_tiles(set())
    bad = tmp_path / "a.jpg"
    bad.write_text("<html>404</html>")
    for place in ((0, 0), (1, 2)):
        mosaic = TileMosaic(tiles | {place: open_raster(bad)}, (SIDE, SIDE), GRID, "m")
        with pytest.raises(DataError, match=r"a\.jpg"):
            mosaic.read()
        mosaic.is_forgiving = True
        lost = Window(place[0] * SIDE, place[1] * SIDE, SIDE, SIDE).slices()
        expected = whole.valid.copy()
        expected[lost] = False
        for _ in range(2):
            np.testing.assert_array_equal(mosaic.read().valid, expected)
        (message,) = mosaic.take_lost()
        assert "a.jpg" in message
        assert "is nodata" in message
        assert mosaic.take_lost() == ()


class _Counted:
    """Counts how often each tile is decoded."""

    def __init__(self, source: RasterSource, counts: list[str]) -> None:
        self.source, self.counts = source, counts

    def __getattr__(self, name: str) -> object:
        return getattr(self.source, name)

    def read(self, window: Window | None = None) -> Raster:
        self.counts.append(self.source.name)
        return self.source.read(window)


def test_a_tile_is_decoded_once_while_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[str] = []
    tiles = {
        (row, col): _Counted(ArraySource(np.zeros((3, SIDE, SIDE), np.uint8)), counts)
        for row in range(ROWS)
        for col in range(COLS)
    }
    mosaic = TileMosaic(tiles, (SIDE, SIDE), GRID, "m")
    mosaic.read()
    mosaic.read(Window(2, 2, 9, 9))
    assert len(counts) == ROWS * COLS
    mosaic.close()
    mosaic.read(Window(0, 0, 1, 1))
    assert len(counts) == ROWS * COLS + 1
    # Room for a row of tiles: bands of rows decode each tile once.
    monkeypatch.setattr(mosaics, "_CACHE_BYTES", COLS * SIDE * SIDE * 4)
    small = TileMosaic(tiles, (SIDE, SIDE), GRID, "m")
    counts.clear()
    for row in range(GRID.height):
        small.read(Window(row, 0, 1, GRID.width))
    assert len(counts) == ROWS * COLS


def test_a_huge_mosaic_costs_what_its_window_costs() -> None:
    side, count = 256, 100_000
    tile = ArraySource(np.full((3, side, side), 7, np.uint8))
    grid = GeoGrid((side * count, side * count))
    mosaic = TileMosaic({(0, 0): tile, (count - 1, count - 1): tile}, (side, side), grid, "world")
    last = Window(side * count - 300, side * count - 300, 300, 300)
    assert mosaic.read(last).valid.sum() == side * side
    assert not mosaic.read(Window(side * 500, side * 700, 500, 500)).valid.any()


def test_files_of_all_kinds(tmp_path: Path) -> None:
    """JPEG data under .png, RGB beside RGBA, a grey tile first; pickled, it still reads."""
    picture = np.random.default_rng(1).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(picture[..., 0]).save(tmp_path / "a.png")
    Image.fromarray(picture).save(tmp_path / "b.png", format="JPEG")
    alpha = np.full((8, 8, 1), 255, np.uint8)
    alpha[:4] = 0
    Image.fromarray(np.concatenate([picture, alpha], axis=2)).save(tmp_path / "c.png")
    tiles = {(0, n): open_raster(tmp_path / f"{name}.png") for n, name in enumerate("abc")}
    mosaic = TileMosaic(tiles, (8, 8), GeoGrid((8, 24)), "m")
    mosaic.read(Window(0, 0, 1, 1))
    found = pickle.loads(pickle.dumps(mosaic)).read()
    assert mosaic.bands == 3
    np.testing.assert_array_equal(found.data[:, :, :8], np.stack([picture[..., 0]] * 3))
    np.testing.assert_array_equal(found.data[:, 4:, 16:], np.moveaxis(picture, -1, 0)[:, 4:])
    assert found.valid.sum() == 8 * 24 - 4 * 8


def test_a_tile_unlike_the_others_is_named() -> None:
    one = ArraySource(np.zeros((3, 8, 8), np.uint8), name="one")
    for other in (
        ArraySource(np.zeros((3, 16, 16), np.uint8), name="other"),
        ArraySource(np.zeros((2, 8, 8), np.uint8), name="other"),
        ArraySource(np.zeros((3, 8, 8), np.uint16), name="other"),
    ):
        mosaic = TileMosaic({(0, 0): one, (0, 1): other}, (8, 8), GeoGrid((8, 16)), "m")
        with pytest.raises(DataError, match=r"The tile other has .*the other tiles of m"):
            mosaic.read()
