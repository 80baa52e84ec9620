"""Outlines that cross themselves after georeferencing are repaired."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS
from scipy import ndimage

from rooftrace.core.types import GeoGrid, Window
from rooftrace.vector.assemble import FootprintAssembler
from rooftrace.vector.footprints import make_footprints
from rooftrace.vector.prepare import VectorOptions
from rooftrace.vector.watershed import WatershedOptions


@given(st.integers(0, 2**32), st.sampled_from([0.3, 0.1 * 3, 1 / 7, 0.5971642835]))
def test_holes_that_touch_their_wall_are_valid_on_the_ground(seed: int, gsd_m: float) -> None:
    """A hole whose tip lies on a sloped wall is valid in pixels; rounding may make it cross
    the wall.
    """
    rng = np.random.default_rng(seed)
    touching = []
    for x, rise in zip(rng.integers(2, 20, 50).tolist(), rng.integers(1, 9, 50).tolist()):
        shell = [(0, 0), (2 * x, 2 * rise), (2 * x, 40), (0, 40)]
        touching.append(shapely.Polygon(shell, [[(x, rise), (x + 1, 30), (x - 1, 30)]]))
    polygons = np.array(touching)
    assert shapely.is_valid(polygons).all()
    grid = GeoGrid((100, 100), Affine(gsd_m, 0, 4107309.3, 0, -gsd_m, -145797.7), CRS(3857))
    made = make_footprints(polygons, np.ones(len(polygons), np.float32), grid)
    assert shapely.is_valid(made.geometry).all()
    areas = shapely.area(polygons) * gsd_m**2
    np.testing.assert_allclose(shapely.area(made.geometry), areas, rtol=1e-6)


@pytest.mark.campaign
@pytest.mark.parametrize("watershed", [None, WatershedOptions()], ids=["whole", "separated"])
def test_polygons_of_blobs_are_valid(watershed: WatershedOptions | None) -> None:
    """Without repair ten of these were invalid, and 77 of those that are separated."""
    side, gsd_m = 1200, 0.2985821417
    noise = np.random.default_rng(0).standard_normal((side, side))
    mask = (ndimage.gaussian_filter(noise, 1.5) > 0).astype(np.uint8)
    grid = GeoGrid(mask.shape, Affine(gsd_m, 0, 4107309.3, 0, -gsd_m, -145797.7), CRS(3857))
    with FootprintAssembler(grid, (1,), 1, VectorOptions(watershed=watershed)) as assembler:
        score = np.full(mask.shape, 200, np.uint8)
        assembler.feed(Window(0, 0, side, side), mask, score, [0, 1], None)
        with assembler.finish() as found:
            polygons = np.concatenate([chunk.geometry for chunk in found.chunks()])
    assert len(polygons) > 1000
    assert shapely.is_valid(polygons).all()
