"""Polygons that cross themselves by rounding are valid again, and nothing else is changed."""

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
from rooftrace.vector.mend import mended
from rooftrace.vector.prepare import VectorOptions

HOUSE = shapely.box(0, 0, 20, 10)
SPIKE = shapely.Polygon([(0, 0), (10, 0), (10, 10), (10, 15), (10, 10), (0, 10)])
BOW = shapely.Polygon([(0, 0), (10, 0), (10, 10), (9.999, 10.001), (10.001, 10.001), (0, 10)])


def test_valid_ones_stay_the_same_objects() -> None:
    given = np.array([HOUSE, shapely.box(1, 1, 2, 2)])
    assert mended(given) is given


def test_of_the_others_the_largest_part_is_left() -> None:
    given = np.array([HOUSE, SPIKE, BOW])
    made = mended(given)
    assert made[0] is HOUSE
    assert shapely.is_valid(made).all()
    assert {one.geom_type for one in made} == {"Polygon"}
    assert made[1].equals(shapely.box(0, 0, 10, 10))
    assert made[2].area == pytest.approx(100, rel=1e-3)
    assert all(one.exterior.is_ccw for one in made)
    # What was given is not touched.
    assert not given[1].is_valid


def test_what_has_no_area_or_no_place_stays() -> None:
    line = shapely.Polygon([(0, 0), (5, 5), (10, 10)])
    nowhere = shapely.Polygon([(0, 0), (np.inf, 0), (1, 1)])
    made = mended(np.array([line, nowhere, SPIKE]))
    assert made[0] is line
    assert made[1] is nowhere
    assert made[2].is_valid
    assert len(mended(np.zeros(0, np.object_))) == 0


@given(st.integers(0, 2**32), st.sampled_from([0.3, 0.1 * 3, 1 / 7, 0.5971642835]))
def test_holes_that_touch_their_wall_are_valid_on_the_ground(seed: int, gsd_m: float) -> None:
    """A hole whose tip lies on a wall with a slope is valid in pixels; rounded it may cross it."""
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


def test_polygons_of_blobs_are_valid() -> None:
    """Of these ten were not, before they were mended."""
    side, gsd_m = 1200, 0.2985821417
    noise = np.random.default_rng(0).standard_normal((side, side))
    mask = (ndimage.gaussian_filter(noise, 1.5) > 0).astype(np.uint8)
    grid = GeoGrid(mask.shape, Affine(gsd_m, 0, 4107309.3, 0, -gsd_m, -145797.7), CRS(3857))
    with FootprintAssembler(grid, (1,), 1, VectorOptions()) as assembler:
        score = np.full(mask.shape, 200, np.uint8)
        assembler.feed(Window(0, 0, side, side), mask, score, [0, 1], None)
        with assembler.finish() as found:
            polygons = np.concatenate([chunk.geometry for chunk in found.chunks()])
    assert len(polygons) > 1000
    assert shapely.is_valid(polygons).all()
