"""Counts of whole buildings: which of those labelled were found, one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ObjectCounts", "judge_predicted"]

_MATCH = 0.5


@dataclass(frozen=True)
class ObjectCounts:
    """Labelled and predicted objects, matched one to one.

    Two match where their intersection over union is above 0.5 (Kirillov et al. 2019, "Panoptic
    Segmentation"). Objects of one map share no pixel, and then a match is unique: an object that
    overlaps another by more than half of their union takes more than half of it, which no second
    one can. So every pair above 0.5 is a match, in whatever order they are looked at.

    Args:
        labelled: how many objects the label has.
        predicted: how many the prediction has.
        matched: pairs of both.
        split: labelled objects that hold the larger part of two predicted ones or more.
        merged: predicted objects that hold the larger part of two labelled ones or more.
    """

    labelled: int = 0
    predicted: int = 0
    matched: int = 0
    split: int = 0
    merged: int = 0

    @classmethod
    def of(
        cls,
        labelled: NDArray[np.int32],
        predicted: NDArray[np.int32],
        valid: NDArray[np.bool_] | None = None,
    ) -> ObjectCounts:
        """Count one image.

        Args:
            labelled, predicted: (y, x) the number of the object at each pixel, 0 for none.
            valid: (y, x) pixels that count; default all. What they leave of an object is the
                object.
        """
        pairs = _Pairs.of(labelled, predicted, valid)
        row, col, shared = pairs.row, pairs.col, pairs.shared
        inside_label = row[shared > pairs.area_predicted[col] / 2]
        inside_prediction = col[shared > pairs.area[row] / 2]
        return cls(
            labelled=len(pairs.area) - 1,
            predicted=len(pairs.area_predicted) - 1,
            matched=int((pairs.iou > _MATCH).sum()),
            split=int((np.bincount(inside_label) > 1).sum()),
            merged=int((np.bincount(inside_prediction) > 1).sum()),
        )

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        return ObjectCounts(
            self.labelled + other.labelled,
            self.predicted + other.predicted,
            self.matched + other.matched,
            self.split + other.split,
            self.merged + other.merged,
        )

    @property
    def precision(self) -> float:
        """Matched of predicted; NaN where nothing was predicted."""
        return _ratio(self.matched, self.predicted)

    @property
    def recall(self) -> float:
        """Matched of labelled; NaN where nothing is labelled."""
        return _ratio(self.matched, self.labelled)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; NaN where there is no object at all."""
        return _ratio(2 * self.matched, self.labelled + self.predicted)


def judge_predicted(
    labelled: NDArray[np.int32],
    predicted: NDArray[np.int32],
    valid: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Which predicted objects are right: those that match a labelled one, see `ObjectCounts`.

    Args:
        labelled, predicted, valid: as for `ObjectCounts.of`.

    Returns:
        (n,) the numbers of the predicted objects that have a pixel that counts, increasing, and
        (n,) whether each is right.
    """
    pairs = _Pairs.of(labelled, predicted, valid)
    right = np.zeros(len(pairs.area_predicted), dtype=np.bool_)
    right[pairs.col[pairs.iou > _MATCH]] = True
    return pairs.predicted[1:], right[1:]


@dataclass(frozen=True)
class _Pairs:
    """A labelled and a predicted object that share pixels, for all such.

    Args:
        predicted: the number that each predicted object has in its map; the first is 0, for none.
        area, area_predicted: pixels of each object; the first is not one.
        row, col: (pairs,) which labelled object, and which predicted one.
        shared: (pairs,) pixels that are in both.
    """

    predicted: NDArray[np.int32]
    area: NDArray[np.int64]
    area_predicted: NDArray[np.int64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    shared: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        labelled: NDArray[np.int32],
        predicted: NDArray[np.int32],
        valid: NDArray[np.bool_] | None,
    ) -> _Pairs:
        here = (labelled > 0) | (predicted > 0)
        if valid is not None:
            here &= valid
        _, one = np.unique(np.append(labelled[here], 0), return_inverse=True)
        numbers, other = np.unique(np.append(predicted[here], 0), return_inverse=True)
        # The 0 that was appended is each map's first, and is of no pixel.
        width = int(other.max()) + 1
        pair, shared = np.unique(one[:-1] * width + other[:-1], return_counts=True)
        row, col = np.divmod(pair, width)
        area = np.bincount(row, shared, minlength=int(one.max()) + 1).astype(np.int64)
        area_predicted = np.bincount(col, shared, minlength=width).astype(np.int64)
        both = (row > 0) & (col > 0)
        return cls(
            numbers.astype(np.int32), area, area_predicted, row[both], col[both], shared[both]
        )

    @property
    def iou(self) -> NDArray[np.float64]:
        """(pairs,) intersection over union."""
        union = self.area[self.row] + self.area_predicted[self.col] - self.shared
        return np.asarray(self.shared / union, np.float64)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
