"""Figures at each threshold: by counting at it, by hand, and as scikit-learn has them."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rooftrace.metrics.pixel import (
    PixelCounts,
    ThresholdCurve,
    middle_of_plateau,
    trivial_note,
)

# Also the numbers just beside each threshold k / 20 as float32 has them.
EDGES = [float(np.nextafter(np.float32(k / 20), np.float32(d))) for k in range(21) for d in (0, 1)]
PROBABILITIES = st.one_of(
    st.floats(0, 1, width=32), st.sampled_from([k / 20 for k in range(21)]), st.sampled_from(EDGES)
)

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]
pixels = st.tuples(
    hnp.arrays(np.bool_, 60),
    hnp.arrays(np.float32, 60, elements=PROBABILITIES.map(np.float32)),
    hnp.arrays(np.bool_, 60),
)


def made(truth: np.ndarray, probability: np.ndarray, valid=None, bins: int = 20) -> ThresholdCurve:  # type: ignore[no-untyped-def]
    curve = ThresholdCurve(bins)
    curve.add(truth, probability, valid)
    return curve


@given(pixels)
def test_a_curve_is_what_counting_at_each_threshold_gives(case: Parts) -> None:
    truth, probability, valid = case
    curve = ThresholdCurve(bins=20)
    # In two parts: it is fed batch by batch.
    for part in (slice(0, 25), slice(25, 60)):
        curve.add(truth[part], probability[part], valid[part])
    assert len(curve.thresholds) == 19
    figures = curve.precision(), curve.recall(), curve.dice(), curve.iou()
    for threshold, precision, recall, dice, iou in zip(curve.thresholds, *figures):
        guess = (probability >= np.float32(threshold)).astype(np.uint8)
        counts = PixelCounts.of(truth.astype(np.uint8), guess, valid, classes=2)
        assert precision == pytest.approx(counts.precision(1), nan_ok=True)
        assert recall == pytest.approx(counts.recall(1), nan_ok=True)
        # A mean over folders is to stand where one is empty.
        assert dice == pytest.approx(0 if math.isnan(counts.dice(1)) else counts.dice(1))
        assert iou == pytest.approx(0 if math.isnan(counts.iou(1)) else counts.iou(1))


@given(
    hnp.arrays(np.bool_, 60), hnp.arrays(np.uint8, 60), hnp.arrays(np.bool_, 60),
    st.sampled_from([2, 20, 200, 255, 256, 300]),
)  # fmt: skip
def test_255ths_count_as_the_fractions_that_they_are(
    truth: np.ndarray, probability: np.ndarray, valid: np.ndarray, bins: int
) -> None:
    found = made(truth, probability, valid, bins).recall()
    chosen = [Fraction(int(p), 255) for p in probability[truth & valid]]
    for k in range(1, bins):
        share = [p >= Fraction(k, bins) for p in chosen]
        assert found[k - 1] == pytest.approx(np.mean(share) if share else math.nan, nan_ok=True)


@given(pixels)
def test_average_precision_is_scikit_learns_on_the_same_steps(case: Parts) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth, probability, valid = case
    curve = made(truth, probability, valid)
    if not truth[valid].any():
        assert math.isnan(curve.average_precision())
        return
    limits = curve.thresholds.astype(np.float32)
    level = (probability[valid][:, None] >= limits).sum(axis=1)
    expected = metrics.average_precision_score(truth[valid], level)
    assert curve.average_precision() == pytest.approx(expected)
    precision, recall, at = metrics.precision_recall_curve(truth[valid], level)
    for k, p, r in zip(at, precision, recall):
        if k:
            assert (curve.precision()[k - 1], curve.recall()[k - 1]) == pytest.approx((p, r))


@pytest.mark.parametrize(("sure", "is_named"), [(0.0, True), (0.02, True), (0.3, False)])
def test_a_model_no_better_than_calling_all_ground_building_is_named(
    sure: float, is_named: bool
) -> None:
    random = np.random.default_rng(0)
    truth = random.random((2, 200, 200)) < 0.3
    probability = (random.random(truth.shape) + sure * truth).astype(np.float32) / 2
    threshold = made(truth, probability, bins=200).best()
    counts = PixelCounts.of(truth, probability >= threshold, classes=2)
    assert counts.share(1) == truth.mean()
    note = trivial_note("m", counts.iou(1), counts.share(1))
    assert ("all ground building, 0.299. Check the labels" in note) == is_named == bool(note)


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        # Flat with its best value at the edge, as of a network that is hardly trained.
        ([(0.0, 0.2), (0.2, 0.443), (0.5, 0.445), (0.88, 0.447), (0.9, 0.3), (1.0, 0.1)], 0.54),
        ([(0.0, 0.4), (0.4, 0.85), (1.0, 0.25)], 0.4),  # one peak
        ([(0.0, 0.1), (0.3, 0.5), (0.5, 0.2), (0.7, 0.51), (1.0, 0.1)], 0.69),  # never in a dip
    ],
)
def test_a_threshold_is_the_middle_of_those_that_are_nearly_the_best(
    values: list[tuple[float, float]], chosen: float
) -> None:
    thresholds = np.arange(1, 200) / 200
    figure = np.interp(thresholds, *np.transpose(values))
    found = thresholds[middle_of_plateau(thresholds, figure)]
    assert found == pytest.approx(chosen, abs=0.011)
