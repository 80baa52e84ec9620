"""Shapes are drawn in any window of the image."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import rasterize
from shapely import Polygon, affinity, box

from rooftrace.core.types import GeoGrid, Window
from rooftrace.labels.mask_values import IGNORED
from rooftrace.labels.shapes import ShapesLabel

SIDE = 24
# Eighths are exact in floating point, so that a tie is one in every window.
EIGHTHS = st.integers(-40, 8 * SIDE + 40).map(lambda n: n / 8)
SMALL = st.integers(0, 60).map(lambda n: n / 8)


@st.composite
def polygons(draw: st.DrawFn) -> shapely.Geometry:
    """Draw valid boxes, triangles, rings and shapes of two parts; some are slivers."""
    x, y, width, height = draw(EIGHTHS), draw(EIGHTHS), draw(SMALL) + 0.125, draw(SMALL) + 0.125
    shape = draw(st.sampled_from(["box", "triangle", "ring", "two", "thin"]))
    whole = box(x, y, x + width, y + height)
    if shape == "triangle":
        return Polygon([(x, y), (x + width, y), (x, y + height)])
    if shape == "ring":
        return whole.difference(box(x + width / 4, y + height / 4, x + width / 2, y + height / 2))
    if shape == "two":
        return shapely.union_all([whole, affinity.translate(whole, width + 1, 0.5)])
    if shape == "thin":
        return Polygon([(x, y), (x + width, y + height), (x + width + 0.125, y + height)])
    return whole


@given(
    st.lists(st.tuples(polygons(), st.sampled_from([0, 1, 2, IGNORED])), max_size=6),
    st.integers(0, SIDE - 1), st.integers(0, SIDE - 1), st.integers(1, SIDE), st.integers(1, SIDE),
)  # fmt: skip
def test_a_window_is_a_part_of_the_whole(
    drawn: list[tuple[shapely.Geometry, int]], row: int, col: int, height: int, width: int
) -> None:
    grid = GeoGrid((SIDE, SIDE))
    label = ShapesLabel(
        np.array([shape for shape, _ in drawn], dtype=object), [c for _, c in drawn], grid
    )
    window = Window(row, col, min(height, SIDE - row), min(width, SIDE - col))
    whole, part = label.read(), label.read(window)
    np.testing.assert_array_equal(part.data, whole.data[window.slices()])
    np.testing.assert_array_equal(part.valid, whole.valid[window.slices()])
    assert part.grid == grid.crop(window)
    # The whole is what one would draw by hand, in the drawing order.
    expected = np.zeros(grid.shape, np.int16)
    for shape, index in zip(label.geometry, label.classes):
        expected[rasterize([shape], (SIDE, SIDE), dtype="uint8") > 0] = index
    np.testing.assert_array_equal(whole.valid, expected != IGNORED)
    np.testing.assert_array_equal(whole.data, np.where(whole.valid, expected, 0))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_panel_lies_on_its_roof_in_any_order_of_the_file(order: tuple[int, ...]) -> None:
    # The panel is in the roof but for a sliver, and has a box on it.
    shapes = [(box(2, 2, 12, 12), 1), (box(8, 4, 12.25, 8), 2), (box(9, 5, 11, 6), 3)]
    geometry, classes = zip(*(shapes[number] for number in order))
    found = ShapesLabel(np.array(geometry, object), classes, GeoGrid((SIDE, SIDE))).read()
    expected = np.zeros((SIDE, SIDE))
    expected[2:12, 2:12], expected[4:8, 8:12], expected[5:6, 9:11] = 1, 2, 3
    np.testing.assert_array_equal(found.data, expected)
