"""Angles between outlines against such as are known, and against a plain loop over the steps."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import shapely
from shapely import affinity, box
from shapely.ops import nearest_points

from rooftrace.metrics.polygons import max_tangent_angles


def angle(predicted: shapely.Polygon, truth: shapely.Polygon, spacing: float = 2.0) -> float:
    return max_tangent_angles(np.array([predicted]), np.array([truth]), spacing).item()


def test_an_outline_that_is_the_same_or_only_moved_has_no_angle() -> None:
    home = box(0, 0, 20, 12)
    assert angle(home, home) == pytest.approx(0, abs=1e-5)
    assert angle(box(-0.5, -0.5, 20.5, 12.5), home) == pytest.approx(0, abs=1e-5)
    # The direction of travel is no matter.
    assert angle(home.reverse(), home) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("degrees", [3, 10, 20])
def test_a_turned_outline_has_the_angle_of_its_turn(degrees: float) -> None:
    # Long sides, so that points beside the corners are few: those on a side stay on it.
    disc = shapely.Point(0, 0).buffer(100, quad_segs=1)
    turned = affinity.rotate(disc, degrees)
    inner = shapely.Polygon([(x * 0.5, y * 0.5) for x, y in turned.exterior.coords])
    assert angle(inner, disc) == pytest.approx(degrees, abs=1e-6)


def test_a_step_that_is_squeezed_says_nothing() -> None:
    # Every point of the small square that is beyond a corner moves to that corner.
    assert math.isnan(angle(box(5, 5, 7, 7), box(0, 0, 3, 3)))
    both = max_tangent_angles(
        np.array([box(5, 5, 7, 7), box(0, 0, 9, 9)]), np.array([box(0, 0, 3, 3), box(0, 0, 9, 9)])
    )
    assert np.isnan(both).tolist() == [True, False]
    assert len(max_tangent_angles(both[:0].astype(object), both[:0].astype(object))) == 0


def test_holes_are_outlines() -> None:
    court = box(0, 0, 40, 40).difference(box(10, 10, 30, 30))
    askew = box(0, 0, 40, 40).difference(affinity.rotate(box(12, 12, 28, 28), 5))
    assert angle(askew, court) == pytest.approx(5, abs=1e-6)
    assert angle(box(0, 0, 40, 40), court) == pytest.approx(0, abs=1e-5)


def plainly(predicted: shapely.Polygon, truth: shapely.Polygon, spacing: float) -> float:
    """Return the figure as the authors' script does: ring by ring, side by side, point by point."""
    cosines = []
    outline = truth.boundary
    for ring in (predicted.exterior, *predicted.interiors):
        corners = list(ring.coords)
        points = [corners[0]]
        for start, stop in pairwise(corners):
            parts = max(1, round(math.dist(start, stop) / spacing))
            points += [
                tuple(a + (b - a) * k / parts for a, b in zip(start, stop))
                for k in range(1, parts + 1)
            ]
        moved = [nearest_points(shapely.Point(p), outline)[1].coords[0] for p in points]
        for a, b, c, d in zip(points[:-1], points[1:], moved[:-1], moved[1:]):
            own, image = np.subtract(b, a), np.subtract(d, c)
            lengths = np.hypot(*own), np.hypot(*image)
            if min(lengths) > 0 and 0.5 < lengths[0] / lengths[1] < 2:
                cosines.append(abs(own @ image) / (lengths[0] * lengths[1]))
    return math.degrees(math.acos(min(1, *cosines))) if cosines else math.nan


@pytest.mark.parametrize("spacing", [0.7, 2.0])
def test_all_at_once_is_as_one_by_one(spacing: float) -> None:
    rng = np.random.default_rng(5)
    at = rng.normal(size=(25, 9, 2)) * 10
    truth = shapely.convex_hull(shapely.multipoints(at))
    predicted = shapely.convex_hull(shapely.multipoints(at + rng.normal(size=at.shape) * 0.8))
    predicted[::5] = [p.difference(p.centroid.buffer(2, quad_segs=2)) for p in predicted[::5]]
    found = max_tangent_angles(predicted, truth, spacing)
    expected = [plainly(*pair, spacing) for pair in zip(predicted, truth)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.ptp(found) > 20
