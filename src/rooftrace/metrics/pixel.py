"""Pixel metrics: accuracy, IoU, Dice, precision and recall from a confusion matrix.

Every figure is a function of one confusion matrix. Therefore figures can be pooled over images
(counts are added, then the ratio is taken) or averaged over images (the ratio of each image, then
the mean). The two differ; each figure says which one it is.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

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
            ValueError: The shapes differ, or an index is not below `classes`.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
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
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    made = np.full(count.shape, np.nan)
    return np.asarray(np.divide(np.nansum(values, axis=0), count, out=made, where=count > 0))


def confusion_csv(counts: PixelCounts, classes: Sequence[str]) -> str:
    """Return a table of the pixels of each true class (row) by predicted class (column)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["truth / prediction", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts.matrix.tolist()))
    return text.getvalue()
