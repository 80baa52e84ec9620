"""Figures of zones are exact, also for zones that overlap or exceed the observed area."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.density.accumulate import density_of_polygons, density_of_zones
from rooftrace.density.cells import CellGrid


def boxes(*bounds: tuple[float, float, float, float]) -> np.ndarray:
    return np.array([shapely.box(*b) for b in bounds], object)


@given(seed=st.integers(0, 2**32 - 1))
def test_cells_as_zones_have_the_figures_of_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.random((9, 2)) * 30
    houses = shapely.box(*corner.T, *(corner + 1 + rng.random((9, 2)) * 9).T)
    cells = CellGrid.over((0, 0, 40, 40), 10.0, None)
    by_cell = density_of_polygons(houses, cells).figures
    by_zone, *_ = density_of_zones(cells.polygons(np.arange(cells.count)), houses)
    for name in ("built_m2", "observed_m2", "buildings_m2", "nearest_m"):
        expected = getattr(by_cell, name).ravel()
        np.testing.assert_allclose(getattr(by_zone, name), expected, atol=1e-5)
    np.testing.assert_array_equal(by_zone.buildings, by_cell.buildings.ravel())


def test_zones_that_overlap_and_exceed_the_observed_area() -> None:
    # The last one shares a sliver with the observed area, as a ward beside that of --area.
    zones = boxes((0, 0, 10, 10), (5, 0, 15, 10), (20, 0, 30, 10), (10 - 1e-7, 0, 20, 10))
    houses = boxes((6, 2, 8, 4), (8, 5, 11, 6))
    figures, *_ = density_of_zones(zones[:3], houses, boxes((0, 0, 6, 10), (6, 0, 10, 10)))
    np.testing.assert_allclose(figures.built_m2, [6, 7, 0])
    np.testing.assert_allclose(figures.observed_share, [1, 0.5, 0])
    np.testing.assert_array_equal(figures.buildings, [2, 2, 0])
    beside, *_ = density_of_zones(zones[2:], houses[:1], boxes((0, 0, 10, 10)))
    assert np.ma.getmaskarray(beside.known(beside.buildings)).all()


def test_a_built_up_area_other_than_the_counted_buildings() -> None:
    zones, houses = boxes((0, 0, 10, 10)), boxes((1, 1, 3, 3), (6, 6, 9, 9))
    figures, *_ = density_of_zones(zones, houses, boxes((0, 0, 5, 10)), boxes((1, 1, 2, 2)))
    assert figures.built_up_share.tolist() == [pytest.approx(1 / 50)]
    assert figures.buildings.tolist() == [2]
    assert figures.mean_area_m2.tolist() == [pytest.approx(6.5)]


def test_a_centroid_on_a_border_counts_in_one_of_the_adjacent_zones() -> None:
    zones = boxes((0, 0, 10, 10), (10, 0, 20, 10), (0, 10, 10, 20), (10, 10, 20, 20))
    houses = boxes((8, 4, 12, 6), (4, 8, 6, 12), (8, 8, 12, 12), (18, 4, 22, 6), (-2, 8, 2, 12))
    figures, *_ = density_of_zones(zones, houses)
    assert figures.buildings.tolist() == [0, 2, 2, 1]
    # Zones that overlap count it each.
    twice = boxes((0, 0, 10, 10), (10, 0, 20, 10), (5, 0, 15, 10))
    figures, building, zone = density_of_zones(twice, houses[:1])
    assert figures.buildings.tolist() == [0, 1, 1]
    assert (building.tolist(), zone.tolist()) == ([0, 0], [1, 2])
