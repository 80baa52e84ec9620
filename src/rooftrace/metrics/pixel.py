"""Pixel metrics: accuracy, IoU, Dice, precision and recall from a confusion matrix.

Every figure is a function of one confusion matrix. Therefore figures can be pooled over images
(counts are added, then the ratio is taken) or averaged over images (the ratio of each image, then
the mean). The two differ; each figure says which one it is.

A curve (`ThresholdCurve`) holds the figures of a class as functions of the threshold on its
probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Floats
from rooftrace.metrics.resampling import Ratio, quotient

PixelFigure = Literal["accuracy", "iou", "dice", "precision", "recall", "mean_iou", "mean_dice"]

_OF_CLASS: tuple[PixelFigure, ...] = ("dice", "iou", "precision", "recall")
_OF_IMAGE: tuple[PixelFigure, ...] = ("accuracy", "mean_iou")
_MEAN_OF: dict[str, PixelFigure] = {"mean_iou": "iou", "mean_dice": "dice"}


@dataclass(frozen=True)
class PixelCounts:
    """Confusion matrix of pixels.

    Args:
        matrix: (classes, classes) int64; row = truth, column = prediction.
    """

    matrix: NDArray[np.int64]

    @classmethod
    def zero(cls, classes: int) -> PixelCounts:
        return cls(np.zeros((classes, classes), dtype=np.int64))

    @classmethod
    def of(
        cls,
        truth: NDArray[np.integer],
        prediction: NDArray[np.integer],
        valid: NDArray[np.bool_] | None = None,
        *,
        classes: int,
    ) -> PixelCounts:
        """Count the pixels of arrays of equal shape; pixels that are not `valid` are left out.

        Raises:
            ValueError: An index is not below `classes`.
        """
        if valid is not None:
            truth, prediction = truth[valid], prediction[valid]
        for side in (truth, prediction):
            # A prediction beyond the last column would be counted in the next row.
            if side.size and not (side.min() >= 0 and side.max() < classes):
                raise ValueError(f"a class index is not in 0..{classes - 1}")
        cells = truth.astype(np.int64) * classes + prediction
        counted = np.bincount(cells.ravel(), minlength=classes * classes)
        return cls(counted.reshape(classes, classes).astype(np.int64))

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(self.matrix + other.matrix)

    @property
    def pixels(self) -> int:
        return int(self.matrix.sum())

    @property
    def accuracy(self) -> float:
        """Share of pixels with the right class; NaN without pixels."""
        return self._of("accuracy")

    def iou(self, index: int) -> float:
        """Return the intersection over union (Jaccard 1912) of a class; NaN where neither side has
        it.
        """
        return self._of("iou", index)

    def dice(self, index: int) -> float:
        """Return the Dice coefficient (Dice 1945), which is F1, of a class; NaN where neither side
        has it.
        """
        return self._of("dice", index)

    def precision(self, index: int) -> float:
        """Return the share of the pixels predicted as a class that are right; NaN without any."""
        return self._of("precision", index)

    def recall(self, index: int) -> float:
        """Return the share of a class's pixels that are predicted as it; NaN where the truth has
        none.
        """
        return self._of("recall", index)

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur on either side."""
        return self._of("mean_iou")

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the classes that occur on either side."""
        return self._of("mean_dice")

    def share(self, index: int) -> float:
        """Return the share of the pixels whose truth is a class; NaN without pixels.

        It is the IoU of a mask that has the class everywhere.
        """
        return float(_ratio(self.matrix[index].sum(), self.matrix.sum()))

    def _of(self, figure: PixelFigure, index: int = 0) -> float:
        ratio = pixel_ratio(figure, len(self.matrix), index)
        return float(ratio(self.matrix.reshape(1, -1).astype(np.float64))[0])


def pixel_ratio(figure: PixelFigure, classes: int, index: int = 0) -> Ratio:
    """Return a figure as a function of flattened matrices, row by row: (n, classes²) to (n,).

    Args:
        figure: Name; `PixelCounts` describes each, and where it is not defined.
        classes: Number of classes.
        index: Class index, for figures of one class.
    """
    if figure == "mean_iou" or figure == "mean_dice":
        each = [pixel_ratio(_MEAN_OF[figure], classes, i) for i in range(classes)]
        return lambda sums: _mean_known(np.stack([ratio(sums) for ratio in each]))
    cells = np.zeros((4, classes, classes))
    both, truth, predicted, every = cells
    both[index, index] = truth[index] = predicted[:, index] = every[:] = 1
    over, under = {
        "accuracy": (np.eye(classes), every),
        "iou": (both, truth + predicted - both),
        "dice": (2 * both, truth + predicted),
        "precision": (both, predicted),
        "recall": (both, truth),
    }[figure]
    return quotient(over.ravel(), under.ravel())


def image_values(counts: Sequence[PixelCounts], index: int) -> dict[str, NDArray[np.float64]]:
    """Return (images,) values of each figure: of one class, accuracy, and the mean IoU over the
    classes that occur in the image.

    An image where neither truth nor prediction has the class is fully right and counts as 1. Where
    only one side has the class, the image counts as 0, also in precision and recall.
    `dice_nonempty` is NaN for images of the first kind, so that they are left out, as in some
    contests.
    """
    if not counts:
        return {name: np.zeros(0) for name in (*_OF_CLASS, *_OF_IMAGE, "dice_nonempty")}
    classes = len(counts[0].matrix)
    flat = np.stack([one.matrix.ravel() for one in counts]).astype(np.float64)
    is_absent = np.isnan(pixel_ratio("dice", classes, index)(flat))
    values: dict[str, NDArray[np.float64]] = {}
    for name in _OF_CLASS:
        value = pixel_ratio(name, classes, index)(flat)
        values[name] = np.where(is_absent, 1.0, np.nan_to_num(value))
    values["dice_nonempty"] = np.where(is_absent, np.nan, values["dice"])
    for name in _OF_IMAGE:
        values[name] = pixel_ratio(name, classes)(flat)
    return values


def per_image(counts: Sequence[PixelCounts], index: int) -> dict[str, float]:
    """Return the mean over images of each of `image_values`; NaN without images.

    An image without a valid pixel has no accuracy and no mean IoU, and is left out of their means.
    """
    values = image_values(counts, index)
    return {name: float(_mean_known(value[:, None])[0]) for name, value in values.items()}


def _mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n,) means over the first axis without NaN; NaN where all values are NaN."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    means = np.full(count.shape, np.nan)
    return np.asarray(np.divide(np.nansum(values, axis=0), count, out=means, where=count > 0))


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
        self._bins = bins
        self._histograms = np.zeros((2, bins), np.int64) if histograms is None else histograms

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
            ValueError: A probability that counts is NaN.
        """
        if valid is not None and not valid.all():
            truth, probability = truth[valid], probability[valid]
        which, level_of = self._levels(probability.ravel())
        size = len(level_of)
        cell = truth.ravel() * np.int64(size) + which
        counted = np.bincount(cell, minlength=2 * size).reshape(2, size)
        histograms = self._histograms.copy()
        for side in (0, 1):
            np.add.at(histograms[side], level_of, counted[side])
        self._histograms = histograms

    def __add__(self, other: ThresholdCurve) -> ThresholdCurve:
        return ThresholdCurve(self._bins, self._histograms + other._histograms)

    @property
    def thresholds(self) -> Floats:
        return np.arange(1, self._bins) / self._bins

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

    def best(self) -> float:
        """Return the threshold with the highest IoU, see `middle_of_best`; Dice has the same."""
        return float(self.thresholds[middle_of_best(self.iou())])

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


_HARDLY = 0.02
"""Difference of IoU that says nothing: two points."""


def trivial_note(name: str, iou: float, share: float) -> str:
    """Return a note on a model hardly better than calling all ground building, or "".

    The IoU of that is the share of buildings. At the best of all thresholds, random numbers were
    at most 0.7 points above it, in eight places (smoothed over 8 px; 40 images each).

    Args:
        name: Name of the model.
        iou: Its IoU.
        share: Share of buildings in the labels; nothing is said of 0, 1 and NaN.
    """
    if not 0 < share < 1 or iou > share + _HARDLY:
        return ""
    how = "hardly" if iou > share else "no"
    return (
        f"The IoU of {name}, {iou:.3f}, is {how} better than that of calling all ground building, "
        f"{share:.3f}. Check the labels and their offset with rooftrace inspect. If they are "
        "right, it is of no use here: a model of your own may need a longer training, or another "
        "optimizer.lr."
    )


NEARLY_BEST = 0.005
"""Difference from the best figure that hardly matters: half a point."""


def plateau_of(values: Floats) -> NDArray[np.intp]:
    """Return the indices around the highest value, see `middle_of_best`, up to the first ones that
    are more than `NEARLY_BEST` below it.
    """
    best = middle_of_best(values)
    worse = np.flatnonzero(values < values.max() - NEARLY_BEST)
    first = worse[worse < best].max(initial=-1) + 1
    return np.arange(first, worse[worse > best].min(initial=len(values)))


def middle_of_plateau(thresholds: Floats, values: Floats) -> int:
    """Return the index of the threshold on the plateau that is nearest to its middle.

    The best threshold itself may lie at an edge, where a small change of the probabilities, such as
    by the interpolation to the grid of an image, costs much.

    Args:
        thresholds: (n,) ascending thresholds.
        values: (n,) figure at each of them.
    """
    good = plateau_of(values)
    middle = (thresholds[good[0]] + thresholds[good[-1]]) / 2
    return int(good[np.abs(thresholds[good] - middle).argmin()])


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
    quotients = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    return np.asarray(np.divide(part, whole, out=quotients, where=whole > 0))
