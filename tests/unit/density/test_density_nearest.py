"""Distances to the nearest neighbour equal the minimum over all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.density.buildings import nearest_neighbour


def by_all_pairs(xy: np.ndarray) -> np.ndarray:
    distance = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    return distance.min(axis=1, initial=np.inf)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 80),
    spread=st.sampled_from([0.0, 1e-3, 1.0, 1e6]),
    towns=st.integers(1, 4),
)
def test_equals_all_pairs(seed: int, count: int, spread: float, towns: int) -> None:
    """Points lie in clusters near one another or far apart, or all at one position."""
    rng = np.random.default_rng(seed)
    centres = rng.random((towns, 2)) * 1e5
    xy = centres[rng.integers(0, towns, count)] + rng.normal(size=(count, 2)) * spread
    np.testing.assert_array_equal(nearest_neighbour(xy), by_all_pairs(xy))


@pytest.mark.parametrize("line", [(1.0, 0.0), (0.0, 1.0)])
def test_points_on_a_line(line: tuple[float, float]) -> None:
    xy = np.arange(50.0)[:, None] ** 2 * line
    np.testing.assert_array_equal(nearest_neighbour(xy), by_all_pairs(xy))
