"""How well classes agree pixel by pixel.

Everything is a function of one confusion matrix, so figures can be pooled over images (counts are
added, then the ratio is taken) or averaged over them (the ratio of each image, then the mean). The
two differ; each figure says which it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.metrics.interval import Ratio, quotient

__all__ = ["PixelCounts", "PixelFigure", "image_values", "per_image", "pixel_ratio"]

PixelFigure = Literal["accuracy", "iou", "dice", "precision", "recall", "mean_iou", "mean_dice"]

_OF_CLASS: tuple[PixelFigure, ...] = ("dice", "iou", "precision", "recall")
_OF_IMAGE: tuple[PixelFigure, ...] = ("accuracy", "mean_iou")
_MEAN_OF: dict[str, PixelFigure] = {"mean_iou": "iou", "mean_dice": "dice"}


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
        return self._of("accuracy")

    def iou(self, index: int) -> float:
        """Intersection over union (Jaccard 1912) of one class; NaN where neither side has it."""
        return self._of("iou", index)

    def dice(self, index: int) -> float:
        """Dice (1945) coefficient = F1 of one class; NaN where neither side has it."""
        return self._of("dice", index)

    def precision(self, index: int) -> float:
        """Share of what was predicted as the class that is; NaN where nothing was."""
        return self._of("precision", index)

    def recall(self, index: int) -> float:
        """Share of the class that was predicted as it; NaN where the truth has none."""
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
    """A figure as a function of matrices that are laid flat, row by row: (n, classes²) to (n,).

    Args:
        figure: see `PixelCounts` for what each is, and where it is not defined.
        classes: how many there are.
        index: of the class, where the figure is of one.
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
    """Figures of each image, (images,) each: those of one class, accuracy, and the mean IoU over
    the classes that occur in the image.

    An image where neither truth nor prediction has the class is fully right: it counts as 1. Where
    one side alone has it, the image counts as 0, in precision and recall, too. `dice_nonempty` is
    NaN for the former, which so are left out, as some contests score.
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
    """Mean over images of each of `image_values`; an image without a valid pixel has no accuracy
    and no mean IoU, and is left out of theirs. NaN without images.
    """
    values = image_values(counts, index)
    return {name: float(_mean_known(value[:, None])[0]) for name, value in values.items()}


def _mean_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) means over the first axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    made = np.full(count.shape, np.nan)
    return np.asarray(np.divide(np.nansum(values, axis=0), count, out=made, where=count > 0))
