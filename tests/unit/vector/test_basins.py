"""Peaks of a raster and the saddles between them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.vector.trace_blocks import components
from rooftrace.vector.watershed import Peaks, merge_basins


def test_two_peaks_and_the_saddle_between_them() -> None:
    height = np.array(
        [
            [0, 0, 0, 0, 0, 0, 0],
            [0, 5, 3, 2, 4, 0, 0],
            [0, 1, 1, 3, 1, 0, 0],
            [0, 0, 0, 0, 0, 7, 0],
            [0, 0, 0, 0, 0, 0, 0],
        ],
        np.uint8,
    )
    peaks = Peaks.of(height)
    assert peaks.pixel.tolist() == [8, 11, 17, 26], "the 3 below stands by itself"
    assert peaks.land.tolist() == [8, 9, 10, 11, 15, 16, 17, 18, 26]
    assert peaks.of_land.tolist() == [0, 0, 1, 1, 0, 0, 2, 1, 3]
    saddles = zip(peaks.one.tolist(), peaks.other.tolist(), peaks.height.tolist())
    assert sorted(saddles) == [(0, 1, 2), (0, 2, 1), (1, 2, 2)], "corners are no way"


def test_a_raster_without_land() -> None:
    peaks = Peaks.of(np.zeros((3, 4), np.uint8))
    assert len(peaks.pixel) == len(peaks.land) == len(peaks.one) == 0


@pytest.mark.campaign
@pytest.mark.parametrize("blur", [0, 2])
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 100_000), highest=st.integers(1, 255))
def test_islands_above_any_height_are_those_that_passes_join(
    seed: int, highest: int, blur: int
) -> None:
    generator = np.random.default_rng(seed)
    rows, cols = generator.integers(3, 40, 2)
    values = generator.random((rows, cols))
    if blur:
        values = cv2.GaussianBlur(values, (0, 0), blur)
        values = (values - values.min()) / np.ptp(values)
    height = np.rint(values * highest).astype(np.uint8)
    height[[0, -1]] = height[:, [0, -1]] = 0
    peaks, flat = Peaks.of(height), height.reshape(-1)
    assert (peaks.land == np.flatnonzero(flat)).all()
    assert (flat[peaks.pixel[peaks.of_land]] >= flat[peaks.land]).all()
    assert len(np.unique(np.stack([peaks.one, peaks.other]), axis=1).T) == len(peaks.one)
    for level in range(highest):
        island = cv2.connectedComponents((height > level).view(np.uint8), connectivity=4)[1]
        island = island.reshape(-1)
        high = flat[peaks.land] > level
        assert (island[peaks.land[high]] == island[peaks.pixel[peaks.of_land[high]]]).all()
        joins = peaks.height > level
        group = components(len(peaks.pixel), peaks.one[joins], peaks.other[joins])
        above = flat[peaks.pixel] > level
        pairs = np.stack([group[above], island[peaks.pixel[above]]])
        count = len(np.unique(pairs, axis=1).T)
        assert count == len(np.unique(pairs[0])) == len(np.unique(pairs[1])), level


def test_islands_are_separated_where_the_saddle_is_low() -> None:
    # Peaks 0 and 1 separate at 5. Peak 2 merges at 9 and peak 3 at 2. Peak 4 has no saddle.
    rank, limit = np.array([20, 10, 12, 4, 8]), np.array([11, 6, 7, -1, 5])
    one, other, height = np.array([[0, 2, 9], [2, 1, 5], [3, 1, 2]]).T
    level, owner, fell = merge_basins(rank, limit, one, other, height)
    assert level.tolist() == [5, 5, -1, -1, -1]
    assert owner[[0, 1, 2, 4]].tolist() == [0, 1, 0, 4]
    assert fell[2] == 9, "of the island above 5"
    assert owner[3] in (0, 1)
    assert fell[3] == 2, "of none"


def test_a_part_of_a_plateau_is_no_peak() -> None:
    one, other, height = np.array([[0, 1, 3], [1, 2, 2]]).T
    level, owner, _ = merge_basins(np.array([3, 3, 3]), np.array([2, 2, 2]), one, other, height)
    assert level.tolist() == [2, -1, 2]
    assert owner.tolist() == [0, 0, 2]


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_separated_peaks_share_no_island(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 12))
    rank = generator.integers(1, 9, count)
    limit = np.minimum(rank - 1, generator.integers(-1, 8))
    one, other = np.triu_indices(count, 1)
    kept = generator.random(len(one)) < 0.4
    one, other = one[kept], other[kept]
    height = np.minimum(np.minimum(rank[one], rank[other]), generator.integers(1, 9, len(one)))
    level, owner, fell = merge_basins(rank, limit, one, other, height)
    islands = {
        bound: components(count, one[height > bound], other[height > bound])
        for bound in range(-1, 9)
    }
    for peak in np.flatnonzero(level >= 0).tolist():
        above, below = (islands[level[peak] - down] for down in (0, 1))
        alone = np.flatnonzero((above == above[peak]) & (level >= 0))
        assert alone.tolist() == [peak]
        assert ((below == below[peak]) & (level >= 0)).sum() > 1, "but parts the next lower"
        reached = (owner == peak) & (fell > level[peak])
        assert (reached == (above == above[peak])).all()
