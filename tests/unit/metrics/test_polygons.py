import math

import numpy as np
import pytest
import shapely
from shapely import affinity, box

from rooftrace.metrics.polygons import OutlineFigures, match_polygons, polis, vertex_counts


def array(*polygons: shapely.Polygon) -> np.ndarray:
    return np.array(polygons, dtype=object)


def test_polis_of_a_square_and_one_that_is_larger() -> None:
    inner, outer = box(0, 0, 4, 4), box(-3, -4, 7, 8)
    # Inside, a corner is as far as the nearest side; outside, as the nearest corner.
    assert polis(array(inner), array(outer))[0] == pytest.approx((3 + 5) / 2)


def test_polis_by_hand() -> None:
    # Two corners of the triangle lie on the square, the third is one above its upper side.
    square = box(0, 0, 2, 2)
    triangle = shapely.Polygon([(0, 0), (2, 0), (1, 3)])
    # The square's upper corners are 2 / sqrt(10) from the triangle's sides, 3 x + y = 6 and its
    # mirror image.
    expected = ((0 + 0 + 1) / 3 + (0 + 0 + 2 * 2 / math.sqrt(10)) / 4) / 2
    assert polis(array(triangle), array(square))[0] == pytest.approx(expected)


def test_polis_is_a_distance_of_outlines() -> None:
    rng = np.random.default_rng(0)
    shapes = shapely.convex_hull(shapely.multipoints(rng.normal(size=(20, 9, 2)) * 10))
    assert polis(shapes, shapes).max() == pytest.approx(0, abs=1e-12)
    others = np.roll(shapes, 1)
    np.testing.assert_allclose(polis(shapes, others), polis(others, shapes))
    step = 0.01
    moved = shapely.transform(shapes, lambda xy: xy + np.array([step, 0]))
    assert (polis(shapes, moved) <= step + 1e-12).all()
    larger = [shapely.transform(each, lambda xy: 3 * xy) for each in (shapes, others)]
    np.testing.assert_allclose(polis(*larger), 3 * polis(shapes, others))


def test_holes_have_corners_and_distances() -> None:
    whole = box(0, 0, 10, 10)
    court = whole.difference(box(4, 4, 6, 6))
    np.testing.assert_array_equal(vertex_counts(array(whole, court)), [4, 8])
    # The hole's corners are 4 from the outer ring; the other way there is nothing between.
    assert polis(array(whole), array(court))[0] == pytest.approx((0 + 4 * 4 / 8) / 2)


def test_pairs_are_the_best_and_each_polygon_is_in_one() -> None:
    truth = array(box(0, 0, 10, 10), box(0, 0, 10, 9), box(50, 0, 60, 10), box(80, 0, 90, 10))
    predicted = array(box(50, 0, 60, 5), box(0, 0, 10, 10), box(80, 0, 84, 10), box(0, 0, 10, 9.5))
    pairs = match_polygons(truth, predicted)
    assert list(zip(pairs.truth, pairs.predicted)) == [(0, 1), (1, 3), (2, 0)]
    np.testing.assert_allclose(pairs.iou, [1, 9 / 9.5, 0.5])
    assert (pairs.recall, pairs.precision) == (0.75, 0.75)
    assert len(match_polygons(truth, predicted, 0.6)) == 2


def test_figures_are_means_over_pairs() -> None:
    truth = array(box(0, 0, 10, 10), box(20, 0, 30, 10))
    cut = shapely.Polygon([(20, 0), (30, 0), (30, 10), (25, 10), (20, 5)])
    figures = OutlineFigures.of(truth, array(affinity.translate(truth[0], 1), cut))
    assert (figures.labelled, figures.found, figures.matched) == (2, 2, 2)
    assert figures.iou == pytest.approx((9 / 11 + 0.875) / 2)
    assert (figures.corners, figures.corners_labelled) == (4.5, 4)
    # Of the one that moved only half of the corners leave the outline.
    nearest = math.sqrt(12.5)
    assert figures.polis == pytest.approx((0.5 + nearest / 4 / 2) / 2)


def test_nothing_found() -> None:
    none = np.zeros(0, np.object_)
    figures = OutlineFigures.of(array(box(0, 0, 1, 1)), none)
    assert (figures.labelled, figures.found, figures.matched) == (1, 0, 0)
    assert math.isnan(figures.iou)
    assert math.isnan(match_polygons(array(box(0, 0, 1, 1)), none).precision)
    assert match_polygons(none, none).labelled == 0
