"""Figures are ratios of counts: by hand, against a plain loop, pooled and per image."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rooftrace.metrics.image_counts import ImageCounts
from rooftrace.metrics.pixel import PixelCounts, image_values, per_image
from rooftrace.metrics.report import EvalReport


def counted(truth: np.ndarray, guess: np.ndarray, valid=None, classes: int = 2) -> PixelCounts:  # type: ignore[no-untyped-def]
    return PixelCounts.of(truth, guess, valid, classes=classes)


def maps(classes: int):  # type: ignore[no-untyped-def]
    shape = (7, 6)
    values = hnp.arrays(np.uint8, shape, elements=st.integers(0, classes - 1))
    return st.tuples(values, values, hnp.arrays(np.bool_, shape))


@given(st.integers(2, 5).flatmap(lambda n: st.tuples(st.just(n), maps(n))))
def test_as_scikit_learn_has_it(case) -> None:  # type: ignore[no-untyped-def]
    metrics = pytest.importorskip("sklearn.metrics")
    classes, (truth, guess, valid) = case
    counts = counted(truth, guess, valid, classes)
    if not valid.any():
        return
    sides = truth[valid], guess[valid]
    labels = list(range(classes))
    np.testing.assert_array_equal(counts.matrix, metrics.confusion_matrix(*sides, labels=labels))
    assert counts.accuracy == pytest.approx(metrics.accuracy_score(*sides))
    for name, reference in {
        "iou": metrics.jaccard_score,
        "dice": metrics.f1_score,
        "precision": metrics.precision_score,
        "recall": metrics.recall_score,
    }.items():
        found = [getattr(counts, name)(index) for index in labels]
        # It calls 0 what is not defined.
        expected = reference(*sides, labels=labels, average=None, zero_division=0)
        assert np.nan_to_num(found) == pytest.approx(expected)
    occurs = sorted(set(sides[0]) | set(sides[1]))
    mean = metrics.jaccard_score(*sides, labels=occurs, average="macro", zero_division=0)
    assert counts.mean_iou == pytest.approx(mean)


def test_pooled_and_per_image_differ_and_are_reported_separately() -> None:
    large = counted(np.ones((10, 10), np.uint8), np.ones((10, 10), np.uint8))
    small = counted(np.ones((1, 2), np.uint8), np.array([[1, 0]], np.uint8))
    empty = counted(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8))
    assert (large + small).iou(1) == 101 / 102
    found = per_image([large, small, empty], 1)
    # An image with nothing to find, where nothing was found, is right.
    assert found == {
        "dice": pytest.approx((1 + 2 / 3 + 1) / 3),
        "dice_nonempty": pytest.approx((1 + 2 / 3) / 2),
        "iou": pytest.approx((1 + 1 / 2 + 1) / 3),
        "precision": 1,
        "recall": pytest.approx((1 + 1 / 2 + 1) / 3),
        "accuracy": pytest.approx((1 + 1 / 2 + 1) / 3),
        # The background of the second has an IoU of 0.
        "mean_iou": pytest.approx((1 + 1 / 4 + 1) / 3),
    }
    false_alarm = counted(np.zeros((1, 2), np.uint8), np.array([[1, 0]], np.uint8))
    assert per_image([false_alarm], 1) == {
        "dice": 0, "iou": 0, "precision": 0, "recall": 0, "accuracy": 0.5, "mean_iou": 0.25,
        "dice_nonempty": 0,
    }  # fmt: skip
    unknown = counted(np.ones((1, 2), np.uint8), np.ones((1, 2), np.uint8), np.zeros((1, 2), bool))
    assert per_image([false_alarm, unknown], 1) == {
        "dice": 0.5, "iou": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 0.5,
        "mean_iou": 0.25, "dice_nonempty": 0,
    }  # fmt: skip
    assert list(image_values([false_alarm, unknown], 1)["iou"]) == [0, 1]
    assert all(math.isnan(v) for v in per_image([], 1).values())


def report(*images: ImageCounts) -> EvalReport:
    return EvalReport(images, ("background", "building"), 1, {"split": "s.json:test"})


def test_what_is_not_defined_is_null_and_not_nan() -> None:
    nothing = counted(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8))
    plain = report(ImageCounts("a", nothing)).to_json()
    assert plain["pixel"]["iou"] is None
    assert plain["pixel"]["accuracy"] == 1
    assert plain["per_image"]["iou"] == 1
    json.dumps(plain, allow_nan=False)
    json.dumps(report().to_json(), allow_nan=False)
    figures = dict(report(ImageCounts("a", nothing)).headline_figures)
    assert math.isnan(figures["IoU (pooled)"].value)
    assert figures["Accuracy (pooled)"].value == 1
