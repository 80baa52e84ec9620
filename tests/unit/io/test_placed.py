"""An image that lies elsewhere, or is a part of another, reads as the pixels that it stands for."""

import pickle
from pathlib import Path

import numpy as np
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyproj import CRS

from memory_sets import ArrayLabel
from rooftrace.core.types import GeoGrid, RasterSource, Window
from rooftrace.io.georeferenced import ArraySource, GeoreferencedSource, WindowSource
from rooftrace.io.raster import open_raster
from rooftrace.io.web_mercator import TileName
from rooftrace.labels.derived import ShiftedLabel

GRID = GeoGrid((6, 9), Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000), CRS.from_epsg(32633))
VALUES = np.arange(2 * 6 * 9, dtype=np.uint16).reshape(2, 6, 9)
LABEL = ArrayLabel(VALUES[0].astype(np.uint8), VALUES[0] > 3, GRID)


def source() -> ArraySource:
    return ArraySource(VALUES, GRID, VALUES[0] % 5 > 0, name="scene")


@st.composite
def windows(draw: st.DrawFn, height: int, width: int) -> Window:
    row, col = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return Window(row, col, draw(st.integers(1, height - row)), draw(st.integers(1, width - col)))


@given(st.data())
def test_a_window_of_a_chip_is_that_part_of_the_scene(data: st.DataObject) -> None:
    outer = data.draw(windows(6, 9))
    inner = data.draw(windows(outer.height, outer.width))
    chip = WindowSource(source(), outer)
    label = ShiftedLabel(LABEL, chip.grid, -outer.row, -outer.col, GRID.shape)
    assert isinstance(chip, RasterSource)
    assert (chip.bands, chip.dtype, chip.grid) == (2, np.uint16, GRID.crop(outer))
    assert "scene" in chip.name
    for window, rows, cols in (
        (None, slice(0, outer.height), slice(0, outer.width)),
        (inner, *inner.slices()),
    ):
        raster, mask = chip.read(window), label.read(window)
        expected = VALUES[:, *outer.slices()][:, rows, cols]
        np.testing.assert_array_equal(raster.data, expected)
        np.testing.assert_array_equal(raster.valid, expected[0] % 5 > 0)
        np.testing.assert_array_equal(mask.data, expected[0])
        place = GRID.crop(outer) if window is None else GRID.crop(outer).crop(window)
        assert raster.grid == mask.grid == place


def test_a_chip_is_empty_where_that_part_of_the_scene_is() -> None:
    class Sparse(ArraySource):
        def is_empty(self, window: Window) -> bool:
            return not self.read(window).valid.any()

    valid = np.zeros((6, 9), np.bool_)
    valid[2, 3] = True
    chip = WindowSource(Sparse(VALUES, GRID, valid), Window(1, 2, 3, 4))
    assert [chip.is_empty(Window(row, 1, 1, 1)) for row in range(3)] == [True, False, True]
    assert not WindowSource(source(), Window(1, 2, 3, 4)).is_empty(Window(0, 0, 1, 1))


def test_an_image_lies_where_its_name_says_unless_it_says_so_itself(tmp_path: Path) -> None:
    tile = TileName(19, 3, 5)
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    placed = GeoreferencedSource(open_raster(path), tile.placed)
    assert placed.grid == tile.grid((4, 4))
    window = Window(1, 1, 2, 3)
    assert placed.read(window).grid == placed.grid.crop(window)
    assert placed.read().grid == placed.grid
    again: GeoreferencedSource = pickle.loads(pickle.dumps(placed))
    assert again.grid == placed.grid
    assert (again.name, again.bands, again.dtype) == (str(path), 3, np.uint8)
    again.close()
    assert GeoreferencedSource(source(), tile.placed).grid == GRID
    WindowSource(placed, window).close()
