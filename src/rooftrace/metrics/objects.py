"""Counts of whole buildings: which of those labelled were found, one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rooftrace.metrics.overlaps import Overlaps
from rooftrace.metrics.sizes import SIZE_EDGES_M2, SizeClass, SizeCounts

__all__ = ["F1_IOUS", "ObjectCounts", "judge_predicted"]

F1_IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""0.50, 0.55, … 0.95: those of COCO (Lin et al. 2014, "Microsoft COCO: Common Objects in Context",
https://cocodataset.org/#detection-eval)."""

_MATCH = F1_IOUS[0]

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class ObjectCounts:
    """Labelled and predicted objects, matched one to one.

    Two match where their intersection over union is above 0.5 (Kirillov et al. 2019, "Panoptic
    Segmentation"). Objects of one map share no pixel, and then a match is unique: an object that
    overlaps another by more than half of their union takes more than half of it, which no second
    one can. So every pair above 0.5 is a match, in whatever order they are looked at.

    Objects below a minimum area are ignored as COCO ignores those outside of an area range: a
    labelled one that is smaller counts for nothing, nor does a predicted one that matches it; a
    predicted one that is smaller counts only where it matches a labelled one that does. So an
    object just at the minimum is not wrong for a pixel more or less. As a match depends on the IoU
    that is asked for, so does the number of predicted ones.

    Objects of which less than half is known are ignored in the same way, and so is a predicted one
    that lies by more than half in such a labelled one: what nodata leaves of a building says little
    of whether it was found.

    Args:
        labelled: how many objects the label has.
        predicted: how many the prediction has.
        matched: pairs of both.
        split: labelled objects that hold the larger part of two predicted ones or more, none of
            them below the minimum.
        merged: predicted objects that hold the larger part of two labelled ones or more, likewise.
        predicted_at: how many the prediction has, at each of `F1_IOUS`.
        matched_at: pairs of an IoU above each of `F1_IOUS`.
        sizes: the same by area; None where the size of a pixel is not known.
    """

    labelled: int = 0
    predicted: int = 0
    matched: int = 0
    split: int = 0
    merged: int = 0
    predicted_at: tuple[int, ...] = (0,) * len(F1_IOUS)
    matched_at: tuple[int, ...] = (0,) * len(F1_IOUS)
    sizes: SizeCounts | None = None

    @classmethod
    def of(
        cls,
        labelled: Labels,
        predicted: Labels,
        valid: Bools | None = None,
        *,
        pixel_m2: float | None = None,
        min_area_m2: float = 0.0,
        size_edges_m2: tuple[float, ...] = SIZE_EDGES_M2,
    ) -> ObjectCounts:
        """Count one image.

        Args:
            labelled, predicted: (y, x) the number of the object at each pixel, 0 for none.
            valid: (y, x) pixels that count; default all. What they leave of an object is the
                object.
            pixel_m2: area of a pixel on the ground; without it nothing is counted by size.
            min_area_m2: objects below it are ignored, see above.
            size_edges_m2: where the classes of `sizes` begin.

        Raises:
            ValueError: a minimum without `pixel_m2`; edges that do not increase.
        """
        if min_area_m2 > 0 and pixel_m2 is None:
            raise ValueError(f"min_area_m2={min_area_m2} needs pixel_m2")
        pairs = Overlaps.of(labelled, predicted, valid)
        scale = 1.0 if pixel_m2 is None else pixel_m2
        areas = np.asarray(pairs.area * scale, np.float64)
        areas_predicted = np.asarray(pairs.area_predicted * scale, np.float64)
        counts, large = areas >= min_area_m2, areas_predicted >= min_area_m2
        if valid is not None and not valid.all():
            is_whole = _mostly_known(labelled, pairs.labelled, pairs.area)
            counts &= is_whole
            large &= _mostly_known(predicted, pairs.predicted, pairs.area_predicted)
            inside = 2 * pairs.shared > pairs.area_predicted[pairs.col]
            large[pairs.col[inside & ~is_whole[pairs.row]]] = False
        # The first of each map is no object.
        counts[0] = large[0] = False
        own = [_judged(pairs, counts, large, iou) for iou in F1_IOUS]
        is_found, is_right, is_counted = own[0]
        row, col, shared = pairs.row, pairs.col, pairs.shared
        both = counts[row] & large[col]
        inside_label = row[both & (shared > pairs.area_predicted[col] / 2)]
        inside_prediction = col[both & (shared > pairs.area[row] / 2)]
        sizes = None
        if pixel_m2 is not None:
            sizes = SizeCounts.of(
                areas[counts], is_found[counts],
                areas_predicted[is_counted], is_right[is_counted], size_edges_m2,
            )  # fmt: skip
        return cls(
            labelled=int(counts.sum()),
            predicted=int(is_counted.sum()),
            matched=int(is_right.sum()),
            split=int((np.bincount(inside_label) > 1).sum()),
            merged=int((np.bincount(inside_prediction) > 1).sum()),
            predicted_at=tuple(int(each.sum()) for _, _, each in own),
            matched_at=tuple(int(each.sum()) for _, each, _ in own),
            sizes=sizes,
        )

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        """Of both; by size only where that is known of all objects.

        Raises:
            ValueError: the classes of size differ.
        """
        return ObjectCounts(
            self.labelled + other.labelled,
            self.predicted + other.predicted,
            self.matched + other.matched,
            self.split + other.split,
            self.merged + other.merged,
            tuple(a + b for a, b in zip(self.predicted_at, other.predicted_at)),
            tuple(a + b for a, b in zip(self.matched_at, other.matched_at)),
            self._sizes_with(other),
        )

    def _sizes_with(self, other: ObjectCounts) -> SizeCounts | None:
        if self.sizes is not None and other.sizes is not None:
            return self.sizes + other.sizes
        known, unknown = (other, self) if self.sizes is None else (self, other)
        return None if unknown.labelled or unknown.predicted else known.sizes

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

    def f1_at(self, iou: float) -> float:
        """F1 where a match needs an IoU above `iou`, one of `F1_IOUS`; NaN as `f1`."""
        step = F1_IOUS.index(iou)
        return _ratio(2 * self.matched_at[step], self.labelled + self.predicted_at[step])

    @property
    def mean_f1(self) -> float:
        """The mean of `f1_at` over `F1_IOUS`, of those that are defined; NaN as `f1`."""
        known = [f1 for f1 in map(self.f1_at, F1_IOUS) if not math.isnan(f1)]
        return sum(known) / len(known) if known else math.nan

    @property
    def by_size(self) -> tuple[SizeClass, ...]:
        """Classes of size from the smallest; none where `sizes` is None."""
        return () if self.sizes is None else self.sizes.rows()

    def figures(self) -> dict[str, float | int]:
        """`precision`, `recall`, `f1`, `mean_f1` and the counts that they are of."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "mean_f1": self.mean_f1,
            "labelled": self.labelled,
            "predicted": self.predicted,
            "matched": self.matched,
            "split": self.split,
            "merged": self.merged,
        }


def judge_predicted(
    labelled: Labels, predicted: Labels, valid: Bools | None = None
) -> tuple[Labels, Bools]:
    """Which predicted objects are right: those that match a labelled one, see `ObjectCounts`.

    Args:
        labelled, predicted, valid: as for `ObjectCounts.of`.

    Returns:
        (n,) the numbers of the predicted objects that have a pixel that counts, increasing, and
        (n,) whether each is right.
    """
    pairs = Overlaps.of(labelled, predicted, valid)
    right = np.zeros(len(pairs.area_predicted), dtype=np.bool_)
    right[pairs.col[pairs.iou > _MATCH]] = True
    return pairs.predicted[1:], right[1:]


def _mostly_known(numbers: Labels, which: Labels, known_px: Ints) -> Bools:
    """(n,) whether half of an object or more is known.

    Args:
        numbers: (y, x) of all objects, known or not.
        which: (n,) objects.
        known_px: (n,) their known pixels.
    """
    return np.asarray(2 * known_px >= np.bincount(numbers.ravel())[which])


def _judged(pairs: Overlaps, counts: Bools, large: Bools, iou: float) -> tuple[Bools, Bools, Bools]:
    """Which labelled objects are found, which predicted ones are right, and which predicted ones
    count, where `counts` says which labelled ones do and `large` which predicted ones are not below
    the minimum.
    """
    near = pairs.iou > iou
    row, col = pairs.row[near], pairs.col[near]
    is_found, is_right = np.zeros_like(counts), np.zeros_like(large)
    is_found[row] = counts[row]
    is_right[col] = counts[row]
    is_counted = large.copy()
    is_counted[col] = counts[row]
    return is_found, is_right, is_counted


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
