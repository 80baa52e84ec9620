"""Bounds of layers on both sides of longitude 180, and of the same ground a turn away."""

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from rooftrace.core.types import GeoGrid
from rooftrace.io.reproject import bounds_meet, bounds_of, joint_bounds, split_at_180

DEGREES, WEB_MERCATOR, UTM = map(CRS.from_epsg, (4326, 3857, 32760))


@given(
    st.floats(-180, 180), st.floats(0.1, 170),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8),
)  # fmt: skip
def test_the_rectangle_around_a_layer_is_as_narrow_as_the_layer(
    west: float, width: float, places: list[tuple[float, float]]
) -> None:
    boxes = np.array(
        [
            shapely.box(west + x * width, y, west + x * width + 0.01, y + 0.01)
            for x, y in [(0.0, 0.0), (1.0, 1.0), *places]
        ]
    )
    found = joint_bounds(bounds_of(split_at_180(boxes), DEGREES), DEGREES)
    assert found[2] - found[0] == pytest.approx(width + 0.01, abs=1e-6)
    assert (found[0] - west) % 360 == pytest.approx(0, abs=1e-6) or (
        found[0] - west
    ) % 360 == pytest.approx(360, abs=1e-6)
    assert found[1] == pytest.approx(0, abs=1e-9)
    assert found[3] == pytest.approx(1.01, abs=1e-9)


@pytest.mark.parametrize(
    ("one", "other", "crs", "meet"),
    [
        ((179, 0, 181, 1), (-180, 0, -179.5, 1), DEGREES, True),
        ((199, 0, 201, 1), (-160.5, 0, -159, 1), DEGREES, True),
        ((199, 0, 201, 1), (-150, 0, -149, 1), DEGREES, False),
        ((0, 0, 1, 1), (360, 0, 361, 1), UTM, False),
        ((0, 0, 1, 1), (0.5, 2, 3, 4), DEGREES, False),
    ],
)
def test_rectangles_a_turn_apart_meet(
    one: tuple[float, ...], other: tuple[float, ...], crs: CRS, meet: bool
) -> None:
    assert bounds_meet(one, other, crs) == meet  # type: ignore[arg-type]
    assert bounds_meet(other, one, crs) == meet  # type: ignore[arg-type]


@pytest.mark.parametrize("turns", [-1, 0, 1])
def test_pixels_are_those_nearest_to_the_grid(turns: int) -> None:
    grid = GeoGrid((10, 20), Affine(0.1, 0, 179, 0, -0.1, 5), DEGREES)
    col, row = np.meshgrid(np.arange(21.0), np.arange(11.0))
    x, y = grid.to_world(col.ravel(), row.ravel())
    pixels = grid.to_pixels(np.stack([x + 360 * turns, y], axis=1))
    np.testing.assert_allclose(pixels, np.stack([col.ravel(), row.ravel()], axis=1), atol=1e-9)
    assert not np.isfinite(grid.to_pixels(np.array([[np.inf, np.inf]]))).any()
