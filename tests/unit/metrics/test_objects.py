"""Objects one by one, against counts made by hand."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rooftrace.metrics.objects import ObjectCounts, judge_predicted

maps = arrays(np.int32, (8, 10), elements=st.integers(0, 4))


def ids(*values: int) -> np.ndarray:
    return np.array([values], np.int32)


def test_by_hand() -> None:
    labelled = ids(1, 1, 1, 1, 0, 2, 2, 2, 2, 0, 3)
    predicted = ids(5, 5, 5, 0, 0, 0, 0, 6, 6, 6, 0)
    # 1 and 5: 3 of 4. 2 and 6: 2 of 5. 3: nothing.
    counts = ObjectCounts.of(labelled, predicted)
    assert counts == ObjectCounts(labelled=3, predicted=2, matched=1)
    assert (counts.precision, counts.recall, counts.f1) == (1 / 2, 1 / 3, 2 / 5)


def test_a_half_is_no_match() -> None:
    assert ObjectCounts.of(ids(1, 1, 0), ids(1, 0, 0)).matched == 0
    assert ObjectCounts.of(ids(1, 1, 1, 0), ids(1, 1, 0, 0)).matched == 1


def test_merges_and_splits() -> None:
    row = ids(1, 1, 1, 2, 2, 2)
    one = ids(9, 9, 9, 9, 9, 9)
    assert ObjectCounts.of(row, one) == ObjectCounts(2, 1, 0, split=0, merged=1)
    assert ObjectCounts.of(one, row) == ObjectCounts(1, 2, 0, split=1, merged=0)
    # A neighbour's sliver is no merge.
    assert ObjectCounts.of(ids(1, 1, 1, 2, 2, 2), ids(4, 4, 4, 4, 0, 0)).merged == 0


def test_what_is_not_valid_does_not_count() -> None:
    valid = np.array([[True, True, False, True]])
    assert ObjectCounts.of(ids(1, 1, 1, 0), ids(2, 2, 0, 3), valid) == ObjectCounts(1, 2, 1)
    assert ObjectCounts.of(ids(1), ids(1), np.array([[False]])) == ObjectCounts()


def test_without_objects() -> None:
    nothing = ObjectCounts.of(ids(0, 0), ids(0, 0))
    assert nothing == ObjectCounts()
    assert all(map(math.isnan, (nothing.precision, nothing.recall, nothing.f1)))
    assert ObjectCounts.of(ids(1, 0), ids(0, 0)).f1 == 0


@given(maps, maps)
def test_both_sides_are_alike(one, other) -> None:
    there, back = ObjectCounts.of(one, other), ObjectCounts.of(other, one)
    assert (there.labelled, there.predicted) == (back.predicted, back.labelled)
    assert (there.split, there.merged) == (back.merged, back.split)
    assert there.matched == back.matched <= min(there.labelled, there.predicted)
    assert (there.precision == back.recall) or math.isnan(there.precision)


@given(maps)
def test_a_map_is_itself(one) -> None:
    count = len(np.unique(one[one > 0]))
    assert ObjectCounts.of(one, 10 * one) == ObjectCounts(count, count, count)


@given(maps, maps)
def test_counts_add_up_over_images(one, other) -> None:
    apart = ObjectCounts.of(one, other) + ObjectCounts.of(other, one)
    shift = np.where(one > 0, one + 10, 0), np.where(other > 0, other + 10, 0)
    whole = ObjectCounts.of(np.hstack([one, shift[1]]), np.hstack([other, shift[0]]))
    assert apart == whole


def test_which_predicted_ones_are_right() -> None:
    labelled = ids(1, 1, 1, 1, 0, 2, 2, 2, 2, 0, 3)
    predicted = ids(5, 5, 5, 0, 0, 0, 0, 6, 6, 6, 9)
    valid = np.arange(11)[None] < 10
    numbers, right = judge_predicted(labelled, predicted, valid)
    assert (numbers.tolist(), right.tolist()) == ([5, 6], [True, False])


@given(maps, maps, arrays(np.bool_, (8, 10)))
def test_those_that_are_right_are_those_that_match(
    labelled: np.ndarray, predicted: np.ndarray, valid: np.ndarray
) -> None:
    counts = ObjectCounts.of(labelled, predicted, valid)
    numbers, right = judge_predicted(labelled, predicted, valid)
    assert (len(numbers), right.sum()) == (counts.predicted, counts.matched)
    assert set(numbers) == set(predicted[valid & (predicted > 0)])
