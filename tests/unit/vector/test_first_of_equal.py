"""Polygons that repeat another one, however their files write them."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.vector.match import first_of_equal


def drawn(corner: int, start: int, reverse: bool, parts: int) -> shapely.Geometry:
    ring = [(corner, 0), (corner + 2, 0), (corner + 2, 1), (corner, 1)]
    ring = ring[start:] + ring[:start]
    polygon = shapely.Polygon(ring[::-1] if reverse else ring)
    if not parts:
        return polygon
    beside = [shapely.box(corner, 5, corner + 1, 6)] * (parts - 1)
    return shapely.MultiPolygon([polygon, *beside])


WAYS = st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans(), st.integers(0, 2))


@given(st.lists(WAYS, max_size=12))
def test_the_first_of_each_outline_is_kept(ways: list[tuple[int, int, bool, int]]) -> None:
    polygons = np.array([drawn(*way) for way in ways], np.object_)
    first = first_of_equal(shapely.bounds(polygons).reshape(-1, 4), polygons.__getitem__)
    # Neither the start, nor the direction, nor a single part makes a difference.
    same = [(corner, parts == 2) for corner, _, _, parts in ways]
    assert first.tolist() == [same.index(one) == at for at, one in enumerate(same)]
