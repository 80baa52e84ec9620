import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.core.errors import DataError
from rooftrace.core.types import GeoGrid, Window
from rooftrace.io.georeferenced import ArraySource


def _source(bands=2, height=9, width=12):
    array = np.arange(bands * height * width, dtype=np.uint16).reshape(bands, height, width)
    valid = (array[0] % 5) != 0
    grid = GeoGrid((height, width), Affine(0.5, 0, 100, 0, -0.5, 200), None)
    return ArraySource(array, grid, valid, name="a"), array, valid


@given(st.integers(0, 8), st.integers(0, 11), st.integers(1, 9), st.integers(1, 12))
def test_a_window_is_the_crop_of_the_whole(row, col, height, width):
    source, array, valid = _source()
    window = Window(row, col, height, width).intersection(Window(0, 0, 9, 12))
    assert window is not None
    part = source.read(window)
    assert np.array_equal(part.data, array[:, *window.slices()])
    assert np.array_equal(part.valid, valid[window.slices()])
    assert part.grid.shape == window.shape_yx
    assert part.grid.transform.c == 100 + 0.5 * window.col
    assert part.grid.transform.f == 200 - 0.5 * window.row


@pytest.mark.parametrize("window", [Window(0, 0, 10, 2), Window(-1, 0, 2, 2), Window(0, 0, 0, 2)])
def test_a_window_outside_is_refused(window):
    source, _, _ = _source()
    with pytest.raises(DataError, match="expected one inside"):
        source.read(window)
