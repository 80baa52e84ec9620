"""Figures of a class as functions of the threshold on its probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Floats

BINS = 200

CurveMetric = Literal["dice", "iou"]

_UINT8_ONE = 255


class ThresholdCurve:
    """Precision, recall, Dice and IoU of a class at every threshold, from two histograms.

    A pixel belongs to the class where its probability is at least the threshold. Curves of several
    images, or of parts of one image, can be added; every figure is then pooled, as in
    `metrics.pixel`.

    Args:
        bins: Number of bins, at least 2; thresholds are k / bins for k = 1 … bins - 1, as float32.
        histograms: (2, bins) int64 number of pixels outside of the class and inside of it, by the
            number of thresholds that they reach; default zeros.
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
        """Count the pixels of arrays of equal shape.

        Args:
            truth: True for pixels of the class; any shape.
            probability: float32 in 0..1, or uint8 in 255ths.
            valid: Pixels that count; default all.

        Raises:
            ValueError: The shapes differ, or a probability that counts is NaN.
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
        """Share of the pixels that belong to the class; NaN without pixels."""
        return float(_ratio(self._histograms[1].sum(), self._histograms.sum()))

    def precision(self) -> Floats:
        """Return the (bins - 1,) precision at `thresholds`; NaN where nothing is predicted."""
        false, true = self._above()[:, 1:]
        return _ratio(true, true + false)

    def recall(self) -> Floats:
        """Return the (bins - 1,) recall at `thresholds`; NaN where the truth is empty."""
        true = self._above()[1, 1:]
        return _ratio(true, self._histograms[1].sum())

    def dice(self) -> Floats:
        """Return the (bins - 1,) Dice at `thresholds`; 0 where the truth is empty."""
        false, true = self._above()[:, 1:]
        whole = self._histograms[1].sum() + true + false
        return np.asarray(2 * true / np.maximum(whole, 1), np.float64)

    def iou(self) -> Floats:
        """Return the (bins - 1,) IoU at `thresholds`; 0 where the truth is empty."""
        false, true = self._above()[:, 1:]
        return np.asarray(true / np.maximum(self._histograms[1].sum() + false, 1), np.float64)

    def average_precision(self) -> float:
        """Return the average precision: the mean of precision over recall, as a sum of steps
        without interpolation.

        It is the area under the precision-recall curve (Davis & Goadrich 2006, "The Relationship
        Between Precision-Recall and ROC Curves", on why the trapezoidal rule is wrong here).
        Probabilities are rounded down to a multiple of 1 / bins. NaN where the truth is empty.
        """
        false, true = self._above()
        # From the highest threshold down; at the last, 0, every pixel belongs to the class.
        precision = _ratio(true, true + false)[::-1]
        steps = np.diff(_ratio(true, true[0])[::-1], prepend=0.0)
        reached = steps != 0
        return float((steps[reached] * precision[reached]).sum())

    def best(self, metric: CurveMetric = "iou") -> float:
        """Return the threshold with the highest figure, see `best_threshold`.

        For one curve, Dice and IoU have the same best threshold, because each rises with the other.
        """
        return best_threshold([self], metric)

    def _levels(
        self, probability: NDArray[np.floating] | NDArray[np.uint8]
    ) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
        """Return (n,) indices of levels, and the number of thresholds that each level reaches."""
        last = self._bins - 1
        if probability.dtype == np.uint8:
            # v / 255 reaches k / bins where v · bins ≥ 255 k: exact, without rounding.
            reached = np.arange(_UINT8_ONE + 1) * self._bins // _UINT8_ONE
            return probability.astype(np.uint8, copy=False), np.minimum(reached, last)
        if probability.size and np.isnan(probability.max()):
            raise ValueError("a probability is NaN; expected 0..1")
        limits = np.r_[-np.inf, self.thresholds, np.inf].astype(np.float32)
        level = np.clip(probability * np.float32(self._bins), 0, last).astype(np.int32)
        # The product is rounded, possibly up to a threshold that the probability does not reach.
        level += probability >= limits[level + 1]
        level -= probability < limits[level]
        return level, np.arange(self._bins)

    def _above(self) -> NDArray[np.int64]:
        """Return the (2, bins) pixels of each side that reach 0 and each of `thresholds`."""
        return np.asarray(self._histograms[:, ::-1].cumsum(axis=1)[:, ::-1])


def best_threshold(curves: Sequence[ThresholdCurve], metric: CurveMetric = "iou") -> float:
    """Return the threshold with the highest mean over curves; every curve has the same weight.

    See `middle_of_best` for several equally good thresholds.

    Args:
        curves: At least one curve; all with the same number of bins.
    """
    mean = np.mean([getattr(curve, metric)() for curve in curves], axis=0)
    return float(curves[0].thresholds[middle_of_best(np.asarray(mean))])


def middle_of_best(values: Floats) -> int:
    """Return the index of the middle of the longest run of highest values.

    The lower of two middles is taken, and the first of runs of equal length.
    """
    edges = np.flatnonzero(np.diff(np.r_[False, values == values.max(), False]))
    first, end = edges[::2], edges[1::2]
    longest = int((end - first).argmax())
    return int(first[longest] + end[longest] - 1) // 2


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Floats:
    """Divide; NaN where there is nothing to divide by."""
    made = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    return np.asarray(np.divide(part, whole, out=made, where=whole > 0))
