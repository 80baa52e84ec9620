"""Polygons that cross themselves by rounding are valid again, and nothing else is changed."""

from functools import partial

import geopandas
import numpy as np
import pytest
import shapely

from rooftrace.io.make_valid import made_valid, make_polygons_valid, rounded

HOUSE = shapely.box(0, 0, 20, 10)
SPIKE = shapely.Polygon([(0, 0), (10, 0), (10, 10), (10, 15), (10, 10), (0, 10)])
BOW = shapely.Polygon([(0, 0), (10, 0), (10, 10), (9.999, 10.001), (10.001, 10.001), (0, 10)])


def test_of_the_others_the_largest_part_is_left() -> None:
    given = np.array([HOUSE, SPIKE, BOW])
    made = make_polygons_valid(given)
    assert made[0] is HOUSE
    assert shapely.is_valid(made).all()
    assert {one.geom_type for one in made} == {"Polygon"}
    assert made[1].equals(shapely.box(0, 0, 10, 10))
    assert made[2].area == pytest.approx(100, rel=1e-3)
    assert all(one.exterior.is_ccw for one in made)
    # What was given is not touched.
    assert not given[1].is_valid


def test_a_ring_that_touches_another_in_utm_is_repaired() -> None:
    """GEOS raises "unable to assign free hole to a shell" at coordinates of this size."""
    shell = [(131.7, 982.777574439), (130.6712887238, 980.8), (130.5, 981.1),
             (130.8, 981.04743204), (130.98340176174, 981.4)]  # fmt: skip
    hole = [(131.1, 981.624146173), (131.13945828064, 981.7), (131.1, 981.7)]
    given = shapely.transform(shapely.Polygon(shell, [hole]), partial(np.add, (524e3, 9317e3)))
    made = make_polygons_valid(np.array([given]))[0]
    assert made.is_valid
    walls = shapely.LineString(shell[:2]), shapely.LineString([shell[4], shell[0]])
    largest = shapely.Polygon([*shell[1:4], shapely.intersection(*walls)])
    assert made.area == pytest.approx(largest.area, abs=1e-8)
    # No vertex is rounded on the way to the origin and back.
    angle = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, (3, 90)), axis=1)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=2) * 40
    valid = shapely.polygons(ring + np.array([(5e5, 9e6), (-70.3, -30), (0.1, 13)])[:, None])
    assert shapely.equals_identical(
        shapely.normalize(made_valid(valid)), shapely.normalize(valid)
    ).all()


def test_what_has_no_area_or_no_place_stays() -> None:
    line = shapely.Polygon([(0, 0), (5, 5), (10, 10)])
    nowhere = shapely.Polygon([(0, 0), (np.inf, 0), (1, 1)])
    made = make_polygons_valid(np.array([line, nowhere, SPIKE]))
    assert made[0] is line
    assert made[1] is nowhere
    assert made[2].is_valid
    assert len(make_polygons_valid(np.zeros(0, np.object_))) == 0


def slits(count: int) -> np.ndarray:
    """Houses with a passage into a yard that is as wide as some 1e-8 of a degree."""
    made = []
    for number in range(count):
        x, y = 4_107_309.3 + 50 * number, -145_797.7 + 7 * number
        shell = [(0, 0), (10, 1), (20, 2), (20, 20), (0, 20)]
        tip = 10 + 1e-4, 1.0 + 1e-3
        house = shapely.Polygon(shell, [[tip, (15, 15), (5, 15)]])
        made.append(shapely.transform(house, lambda xy, by=(x, y): xy + by))
    return np.array(made)


def test_polygons_are_valid_with_the_digits_of_a_geojson() -> None:
    houses = geopandas.GeoSeries(slits(200), crs=3857).to_crs(4326).to_numpy()
    assert shapely.is_valid(houses).all()
    plain = shapely.is_valid(shapely.transform(houses, lambda xy: np.round(xy, 7)))
    # Else this test would test nothing.
    assert 0 < np.count_nonzero(~plain) < len(houses)
    made = rounded(houses, 7)
    assert shapely.is_valid(made).all()
    assert shapely.is_valid(shapely.transform(made, lambda xy: np.round(xy, 7))).all()
    # They change by a few centimetres.
    assert shapely.hausdorff_distance(made, houses).max() < 5e-7


def test_multipolygons_and_pixels_are_valid_with_few_digits_too() -> None:
    pair = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(0.5, 0.5, 2, 2)])
    square = shapely.box(0, 0, 1, 1)
    made = rounded(np.array([square, pair, SPIKE]), 1)
    assert made[0].equals(square)
    assert made[1].equals(shapely.union_all(pair.geoms))
    assert made[1].geom_type == "MultiPolygon"
    assert made[2].equals(shapely.box(0, 0, 10, 10))
