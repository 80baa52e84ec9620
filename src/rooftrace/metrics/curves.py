"""Figures of a class as functions of the threshold on its probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["BINS", "CurveMetric", "ThresholdCurve", "best_threshold"]

BINS = 200

CurveMetric = Literal["dice", "iou"]

Floats = NDArray[np.float64]
_UINT8_ONE = 255


class ThresholdCurve:
    """What a class is judged as at every threshold, from two histograms of its probability.

    A pixel is taken for the class where its probability is at least the threshold. Curves of
    several images, or parts of one, are added: then every figure is pooled, as in `metrics.pixel`.

    Args:
        bins: thresholds are k / bins for k = 1 … bins - 1, as float32; at least 2.
        histograms: (2, bins) int64, pixels that are not the class and those that are, by the number
            of thresholds that they reach; default none.
    """

    def __init__(self, bins: int = BINS, histograms: NDArray[np.int64] | None = None) -> None:
        counted = np.zeros((2, bins), np.int64) if histograms is None else histograms
        if bins < 2 or counted.shape != (2, bins):
            raise ValueError(f"{bins} bins with histograms of shape {counted.shape}")
        self._bins = bins
        self._histograms = counted

    def add(
        self,
        truth: NDArray[np.bool_],
        probability: NDArray[np.float32] | NDArray[np.uint8],
        valid: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count pixels of equal shape: whether each is the class, and what was said of it.

        Args:
            truth: any shape.
            probability: float32 in 0..1, or uint8 in 255ths.
            valid: pixels that count; default all.

        Raises:
            ValueError: shapes differ, or a probability that counts is NaN.
        """
        shapes = {part.shape for part in (truth, probability, valid) if part is not None}
        if len(shapes) > 1:
            raise ValueError(f"truth, probability and validity have shapes {sorted(shapes)}")
        if valid is not None and not valid.all():
            truth, probability = truth[valid], probability[valid]
        which, level_of = self._levels(probability.ravel())
        size = len(level_of)
        cell = truth.ravel() * np.int64(size) + which
        counted = np.bincount(cell, minlength=2 * size).reshape(2, size)
        made = self._histograms.copy()
        for side in (0, 1):
            np.add.at(made[side], level_of, counted[side])
        self._histograms = made

    def __add__(self, other: ThresholdCurve) -> ThresholdCurve:
        if self._bins != other._bins:
            raise ValueError(f"curves of {self._bins} and {other._bins} bins cannot be added")
        return ThresholdCurve(self._bins, self._histograms + other._histograms)

    @property
    def thresholds(self) -> Floats:
        return np.arange(1, self._bins) / self._bins

    @property
    def pixels(self) -> int:
        return int(self._histograms.sum())

    @property
    def prevalence(self) -> float:
        """The share of pixels that are the class; NaN without pixels."""
        return float(_ratio(self._histograms[1].sum(), self._histograms.sum()))

    def precision(self) -> Floats:
        """(bins - 1,) at each of `thresholds`; NaN where nothing is taken for the class."""
        false, true = self._above()[:, 1:]
        return _ratio(true, true + false)

    def recall(self) -> Floats:
        """(bins - 1,) at each of `thresholds`; NaN where the truth has none of the class."""
        true = self._above()[1, 1:]
        return _ratio(true, self._histograms[1].sum())

    def dice(self) -> Floats:
        """(bins - 1,) at each of `thresholds`; 0 where the truth is empty."""
        false, true = self._above()[:, 1:]
        whole = self._histograms[1].sum() + true + false
        return np.asarray(2 * true / np.maximum(whole, 1), np.float64)

    def iou(self) -> Floats:
        """(bins - 1,) at each of `thresholds`; 0 where the truth is empty."""
        false, true = self._above()[:, 1:]
        return np.asarray(true / np.maximum(self._histograms[1].sum() + false, 1), np.float64)

    def average_precision(self) -> float:
        """The mean of precision over recall, as a sum of steps without interpolation: the area
        under the precision-recall curve (Davis & Goadrich 2006, "The Relationship Between
        Precision-Recall and ROC Curves", on why not by the trapezoidal rule).

        Of the probabilities rounded down to a multiple of 1 / bins. NaN where the truth is empty.
        """
        false, true = self._above()
        # From the highest threshold down; at the last, 0, every pixel is taken for the class.
        precision = _ratio(true, true + false)[::-1]
        steps = np.diff(_ratio(true, true[0])[::-1], prepend=0.0)
        reached = steps != 0
        return float((steps[reached] * precision[reached]).sum())

    def best(self, metric: CurveMetric = "iou") -> float:
        """The threshold with the highest figure, see `best_threshold`. Of one curve Dice and IoU
        have the same, as the one rises with the other.
        """
        return best_threshold([self], metric)

    def _levels(
        self, probability: NDArray[np.floating] | NDArray[np.uint8]
    ) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
        """(n,) numbers, and of each number how many thresholds it reaches."""
        last = self._bins - 1
        if probability.dtype == np.uint8:
            # v / 255 reaches k / bins where v · bins ≥ 255 k: exact, without a rounding.
            reached = np.arange(_UINT8_ONE + 1) * self._bins // _UINT8_ONE
            return probability.astype(np.uint8, copy=False), np.minimum(reached, last)
        if probability.size and np.isnan(probability.max()):
            raise ValueError("a probability is NaN; expected 0..1")
        limits = np.r_[-np.inf, self.thresholds, np.inf].astype(np.float32)
        level = np.clip(probability * np.float32(self._bins), 0, last).astype(np.int32)
        # Multiplying rounds, for one up to a threshold that it is just below.
        level += probability >= limits[level + 1]
        level -= probability < limits[level]
        return level, np.arange(self._bins)

    def _above(self) -> NDArray[np.int64]:
        """(2, bins) pixels of each side that reach 0 and each of `thresholds`."""
        return np.asarray(self._histograms[:, ::-1].cumsum(axis=1)[:, ::-1])


def best_threshold(curves: Sequence[ThresholdCurve], metric: CurveMetric = "iou") -> float:
    """The threshold with the highest mean over curves, each of which counts alike.

    Where neighbouring thresholds are equally good, the middle one of them, of an even number the
    lower; of several such runs the longest, then the lowest.

    Args:
        curves: at least one; all of equal bins.
    """
    mean = np.mean([getattr(curve, metric)() for curve in curves], axis=0)
    edges = np.flatnonzero(np.diff(np.r_[False, mean == mean.max(), False]))
    first, end = edges[::2], edges[1::2]
    longest = int((end - first).argmax())
    middle = (first[longest] + end[longest] - 1) // 2
    return float(curves[0].thresholds[middle])


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Floats:
    """NaN where there is nothing to divide by."""
    made = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    return np.asarray(np.divide(part, whole, out=made, where=whole > 0))
