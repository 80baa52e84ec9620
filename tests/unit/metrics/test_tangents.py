"""Angles between outlines against such as are known, and against a plain loop over the steps."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from shapely import affinity, box

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
