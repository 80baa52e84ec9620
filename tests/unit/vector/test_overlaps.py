"""The common area of outlines equals that of an overlay."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.vector import simplify as overlaps
from rooftrace.vector.simplify import common_area
from rooftrace.vector.trace import trace


def overlaid(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return shapely.area(shapely.intersection(one, other))


def stairs(seed: int) -> np.ndarray:
    """Outlines of noise, some with holes, far from the origin."""
    rng = np.random.default_rng(seed)
    mask = (rng.random((40, 60)) < 0.65).astype(np.uint8)
    polygons = trace(mask).polygons
    assert shapely.get_num_interior_rings(polygons).any()
    return shapely.transform(polygons, lambda xy: xy + 50_000)


@pytest.mark.campaign
@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(-3, 3))
def test_equals_the_area_of_the_intersection(seed: int, across: float, down: float) -> None:
    raw = stairs(seed)
    moved = shapely.transform(raw, lambda xy: xy + np.array([across, down]))
    simple = shapely.simplify(moved, 0.8)
    for polygons in (simple, moved, shapely.reverse(simple), shapely.convex_hull(moved)):
        np.testing.assert_allclose(common_area(polygons, raw), overlaid(polygons, raw), atol=1e-6)


def test_disjoint_and_equal_outlines() -> None:
    raw = stairs(1)
    assert common_area(raw, raw) == pytest.approx(shapely.area(raw))
    away = shapely.transform(raw, lambda xy: xy + np.array([1000, 0]))
    assert not common_area(away, raw).any()
    assert len(common_area(raw[:0], raw[:0])) == 0


def test_slopes_and_many_edges_are_overlaid(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = stairs(2)
    turned = shapely.transform(raw, lambda xy: xy @ [[0.8, 0.6], [-0.6, 0.8]])
    hulls = shapely.convex_hull(turned)
    np.testing.assert_allclose(common_area(hulls, turned), overlaid(hulls, turned), atol=1e-6)
    expected = common_area(shapely.convex_hull(raw), raw)
    for name, value in (("_AT_ONCE", 7), ("_MAX_PAIRS", 30)):
        monkeypatch.setattr(overlaps, name, value)
        found = common_area(shapely.convex_hull(raw), raw)
        np.testing.assert_allclose(found, expected, atol=1e-6)
