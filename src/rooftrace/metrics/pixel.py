"""How well classes agree pixel by pixel.

Everything is a function of one confusion matrix, so figures can be pooled over images (counts are
added, then the ratio is taken) or averaged over them (the ratio of each image, then the mean). The
two differ; each figure says which it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PixelCounts", "per_image"]


@dataclass(frozen=True)
class PixelCounts:
    """A confusion matrix of pixels.

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
        """Count pixels of equal shape; those that are not `valid` do not take part.

        Raises:
            ValueError: shapes differ, or an index is not below `classes`.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
        if valid is not None:
            truth, prediction = truth[valid], prediction[valid]
        for side in (truth, prediction):
            # Else a prediction beyond the last column would count in the next row.
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
        """Share of pixels whose class is right; NaN without pixels."""
        return _ratio(np.trace(self.matrix), self.pixels)

    def iou(self, index: int) -> float:
        """Intersection over union (Jaccard 1912) of one class; NaN where neither side has it."""
        both, truth, predicted = self._sides(index)
        return _ratio(both, truth + predicted - both)

    def dice(self, index: int) -> float:
        """Dice (1945) coefficient = F1 of one class; NaN where neither side has it."""
        both, truth, predicted = self._sides(index)
        return _ratio(2 * both, truth + predicted)

    def precision(self, index: int) -> float:
        """Share of what was predicted as the class that is; NaN where nothing was."""
        both, _, predicted = self._sides(index)
        return _ratio(both, predicted)

    def recall(self, index: int) -> float:
        """Share of the class that was predicted as it; NaN where the truth has none."""
        both, truth, _ = self._sides(index)
        return _ratio(both, truth)

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur on either side."""
        return self._mean_known([self.iou(index) for index in range(len(self.matrix))])

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the classes that occur on either side."""
        return self._mean_known([self.dice(index) for index in range(len(self.matrix))])

    @staticmethod
    def _mean_known(values: list[float]) -> float:
        return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")

    def _sides(self, index: int) -> tuple[int, int, int]:
        return (
            int(self.matrix[index, index]),
            int(self.matrix[index].sum()),
            int(self.matrix[:, index].sum()),
        )


def per_image(counts: list[PixelCounts], index: int) -> dict[str, float]:
    """Mean over images of Dice and IoU of one class.

    An image where neither truth nor prediction has the class is fully right: it counts as 1, as the
    usual building contests score it.
    """
    dice = [c.dice(index) for c in counts]
    iou = [c.iou(index) for c in counts]
    return {"dice": _mean_or_one(dice), "iou": _mean_or_one(iou)}


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")


def _mean_or_one(values: list[float]) -> float:
    return float(np.mean([1.0 if np.isnan(v) else v for v in values])) if values else float("nan")
