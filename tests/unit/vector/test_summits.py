"""Summits, and the passes between them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rooftrace.vector.frontier import components
from rooftrace.vector.summits import Summits, parted


def test_two_peaks_and_the_pass_between_them() -> None:
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
    summits = Summits.of(height)
    assert summits.pixel.tolist() == [8, 11, 17, 26], "the 3 below stands by itself"
    assert summits.land.tolist() == [8, 9, 10, 11, 15, 16, 17, 18, 26]
    assert summits.of_land.tolist() == [0, 0, 1, 1, 0, 0, 2, 1, 3]
    passes = zip(summits.one.tolist(), summits.other.tolist(), summits.height.tolist())
    assert sorted(passes) == [(0, 1, 2), (0, 2, 1), (1, 2, 2)], "corners are no way"


def test_nothing_but_sea() -> None:
    summits = Summits.of(np.zeros((3, 4), np.uint8))
    assert len(summits) == len(summits.land) == len(summits.one) == 0


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
    summits, flat = Summits.of(height), height.reshape(-1)
    assert (summits.land == np.flatnonzero(flat)).all()
    assert (flat[summits.pixel[summits.of_land]] >= flat[summits.land]).all()
    assert len(np.unique(np.stack([summits.one, summits.other]), axis=1).T) == len(summits.one)
    for level in range(highest):
        island = cv2.connectedComponents((height > level).view(np.uint8), connectivity=4)[1]
        island = island.reshape(-1)
        high = flat[summits.land] > level
        assert (island[summits.land[high]] == island[summits.pixel[summits.of_land[high]]]).all()
        joins = summits.height > level
        group = components(len(summits), summits.one[joins], summits.other[joins])
        above = flat[summits.pixel] > level
        pairs = np.stack([group[above], island[summits.pixel[above]]])
        count = len(np.unique(pairs, axis=1).T)
        assert count == len(np.unique(pairs[0])) == len(np.unique(pairs[1])), level


def test_islands_are_parted_where_the_pass_is_low() -> None:
    # 0 and 1 are parted at 5; 2 is forgotten at 9, and 3, which nothing parts, at 2; 4 is alone.
    rank, limit = np.array([20, 10, 12, 4, 8]), np.array([11, 6, 7, -1, 5])
    one, other, height = np.array([[0, 2, 9], [2, 1, 5], [3, 1, 2]]).T
    level, owner, fell = parted(rank, limit, one, other, height)
    assert level.tolist() == [5, 5, -1, -1, -1]
    assert owner[[0, 1, 2, 4]].tolist() == [0, 1, 0, 4]
    assert fell[2] == 9, "of the island above 5"
    assert owner[3] in (0, 1)
    assert fell[3] == 2, "of none"


def test_a_part_of_a_plateau_is_no_summit() -> None:
    one, other, height = np.array([[0, 1, 3], [1, 2, 2]]).T
    level, owner, _ = parted(np.array([3, 3, 3]), np.array([2, 2, 2]), one, other, height)
    assert level.tolist() == [2, -1, 2]
    assert owner.tolist() == [0, 0, 2]


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_no_two_that_are_parted_share_an_island(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 12))
    rank = generator.integers(1, 9, count)
    limit = np.minimum(rank - 1, generator.integers(-1, 8))
    one, other = np.triu_indices(count, 1)
    kept = generator.random(len(one)) < 0.4
    one, other = one[kept], other[kept]
    height = np.minimum(np.minimum(rank[one], rank[other]), generator.integers(1, 9, len(one)))
    level, owner, fell = parted(rank, limit, one, other, height)
    islands = {
        bound: components(count, one[height > bound], other[height > bound])
        for bound in range(-1, 9)
    }
    for summit in np.flatnonzero(level >= 0).tolist():
        above, below = (islands[level[summit] - down] for down in (0, 1))
        alone = np.flatnonzero((above == above[summit]) & (level >= 0))
        assert alone.tolist() == [summit]
        assert ((below == below[summit]) & (level >= 0)).sum() > 1, "but parts the next lower"
        reached = (owner == summit) & (fell > level[summit])
        assert (reached == (above == above[summit])).all()
