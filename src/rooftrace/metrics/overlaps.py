"""Which objects of two maps share pixels, and how many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Overlaps"]

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Overlaps:
    """A labelled and a predicted object that share pixels, for all such of one image.

    Args:
        labelled, predicted: the number that each object has in its map, increasing; the first is
            0, for none.
        area, area_predicted: pixels of each object; the first is not one.
        row, col: (pairs,) which labelled object, and which predicted one; by row, then column.
        shared: (pairs,) pixels that are in both.
    """

    labelled: Labels
    predicted: Labels
    area: Ints
    area_predicted: Ints
    row: Ints
    col: Ints
    shared: Ints

    @classmethod
    def of(cls, labelled: Labels, predicted: Labels, valid: Bools | None) -> Overlaps:
        """Find them.

        Args:
            labelled, predicted: (y, x) the number of the object at each pixel, 0 for none.
            valid: (y, x) pixels that count; None for all.
        """
        here = (labelled > 0) | (predicted > 0)
        if valid is not None:
            here &= valid
        # One sort of both numbers at once; that of pixels without any keeps each map's 0.
        both = (labelled[here].astype(np.int64) << 32) | predicted[here]
        pair, shared = np.unique(np.append(both, 0), return_counts=True)
        shared[0] -= 1
        numbers, row = np.unique(pair >> 32, return_inverse=True)
        numbers_predicted, col = np.unique(pair & 0xFFFFFFFF, return_inverse=True)
        is_pair = (row > 0) & (col > 0)
        return cls(
            numbers.astype(np.int32),
            numbers_predicted.astype(np.int32),
            np.bincount(row, shared).astype(np.int64),
            np.bincount(col, shared).astype(np.int64),
            row[is_pair],
            col[is_pair],
            shared[is_pair],
        )

    @property
    def iou(self) -> NDArray[np.float64]:
        """(pairs,) intersection over union."""
        union = self.area[self.row] + self.area_predicted[self.col] - self.shared
        return np.asarray(self.shared / union, np.float64)
