"""Object metrics: labelled and predicted buildings, matched one to one.

The module counts matches (`ObjectCounts`), also by size of building (`SizeClass`), from the
overlaps of the objects of two maps (`ObjectOverlaps`).

`CocoCollector` takes COCO's average precision and recall from the same overlaps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import BoolArray, Floats, Ints
from rooftrace.metrics.resampling import share_of

SIZE_EDGES_M2 = (25.0, 50.0, 100.0, 250.0, 1000.0)
"""Limits in m² between size classes; no common classes are known for buildings.

The classes separate sheds and huts, garages and small houses, houses, large houses and rows, blocks
of flats, and halls. Each is about two to four times as large as the class before."""


@dataclass(frozen=True)
class SizeClass:
    """Counts of the buildings from `from_m2` up to below `to_m2`.

    Args:
        from_m2, to_m2: Limits in square metres; `to_m2` of the last class is infinite.
        labelled: Number of labelled buildings.
        found: Number of labelled buildings that match a predicted one of any size.
        predicted: Number of predicted buildings.
        right: Number of predicted buildings that match a labelled one of any size.
    """

    from_m2: float
    to_m2: float
    labelled: int
    found: int
    predicted: int
    right: int

    @property
    def recall(self) -> float:
        """Share of the labelled buildings that are found; NaN where nothing is labelled."""
        return share_of(self.found, self.labelled)

    @property
    def precision(self) -> float:
        """Share of the predicted buildings that are right; NaN where nothing is predicted."""
        return share_of(self.right, self.predicted)


def _count_sizes(areas_m2: NDArray[np.float64]) -> tuple[int, ...]:
    which = np.searchsorted(SIZE_EDGES_M2, areas_m2, side="right")
    return tuple(np.bincount(which, minlength=len(SIZE_EDGES_M2) + 1).tolist())


Labels = NDArray[np.int32]


@dataclass(frozen=True)
class ObjectOverlaps:
    """All pairs of a labelled and a predicted object of one image that share pixels.

    Args:
        labelled, predicted: Number of each object in its map, ascending; the first entry is 0, no
            object.
        area, area_predicted: Number of pixels of each object; the first entry stands for none.
        row, col: (pairs,) indices of the labelled and of the predicted object, ordered by row and
            column.
        shared: (pairs,) number of pixels in both objects.
    """

    labelled: Labels
    predicted: Labels
    area: Ints
    area_predicted: Ints
    row: Ints
    col: Ints
    shared: Ints

    @classmethod
    def of(cls, labelled: Labels, predicted: Labels, valid: BoolArray | None) -> ObjectOverlaps:
        """Find the pairs.

        Args:
            labelled, predicted: (y, x) number of the object at each pixel, 0 for none.
            valid: (y, x) pixels that count; None for all.
        """
        here = (labelled > 0) | (predicted > 0)
        if valid is not None:
            here &= valid
        # One sort of both numbers at once; the appended 0 keeps the entry 0 of each map.
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


F1_IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Thresholds 0.50, 0.55, … 0.95 on the IoU, those of COCO (Lin et al. 2014, "Microsoft COCO: Common
Objects in Context", https://cocodataset.org/#detection-eval)."""

_MATCH = F1_IOUS[0]


@dataclass(frozen=True)
class ObjectCounts:
    """Labelled and predicted objects, matched one to one.

    Two objects match where their intersection over union is above 0.5 (Kirillov et al. 2019,
    "Panoptic Segmentation"). Objects of one map share no pixel, and then a match is unique: an
    object that overlaps another by more than half of their union covers more than half of it, and
    no second object can do that. Therefore every pair above 0.5 is a match, in any order.

    Objects below a minimum area are ignored, as COCO ignores objects outside of an area range. A
    smaller labelled object does not count, nor does a predicted object that matches it. A smaller
    predicted object counts only where it matches a labelled object that counts. In this way an
    object close to the minimum is not wrong because of one pixel more or less. Matches depend on
    the IoU threshold, and so does the number of predicted objects.

    Objects with less than half of their pixels known are ignored in the same way. So is a predicted
    object with more than half of its area in such a labelled object. The rest of a building beside
    nodata says little about detection.

    Args:
        labelled: Number of labelled objects.
        predicted: Number of predicted objects.
        matched: Number of matches.
        split: Number of labelled objects that hold the larger part of two or more predicted ones,
            none of them below the minimum.
        merged: Number of predicted objects that hold the larger part of two or more labelled ones,
            none of them below the minimum.
        predicted_at: Number of predicted objects at each of `F1_IOUS`.
        matched_at: Number of pairs with an IoU above each of `F1_IOUS`.
        sizes: (4, size classes) labelled, found, predicted and right objects by their own area, see
            `SizeClass`; None where the size of a pixel is not known.
    """

    labelled: int = 0
    predicted: int = 0
    matched: int = 0
    split: int = 0
    merged: int = 0
    predicted_at: tuple[int, ...] = (0,) * len(F1_IOUS)
    matched_at: tuple[int, ...] = (0,) * len(F1_IOUS)
    sizes: tuple[tuple[int, ...], ...] | None = None

    @classmethod
    def of(
        cls,
        labelled: Labels,
        predicted: Labels,
        valid: BoolArray | None = None,
        *,
        pixel_m2: float | None = None,
        min_area_m2: float = 0.0,
    ) -> ObjectCounts:
        """Count one image.

        Args:
            labelled, predicted: (y, x) number of the object at each pixel, 0 for none.
            valid: (y, x) pixels that count; default all. The remaining pixels of an object are the
                object.
            pixel_m2: Area of a pixel on the ground; None leaves out the counts by size.
            min_area_m2: Area below which objects are ignored, see the class.
        """
        pairs = ObjectOverlaps.of(labelled, predicted, valid)
        scale = 1.0 if pixel_m2 is None else pixel_m2
        areas = np.asarray(pairs.area * scale, np.float64)
        areas_predicted = np.asarray(pairs.area_predicted * scale, np.float64)
        counts, large = areas >= min_area_m2, areas_predicted >= min_area_m2
        if valid is not None and not valid.all():
            is_whole, is_judged = _mostly_known(labelled, predicted, pairs)
            counts &= is_whole
            large &= is_judged
        # The first entry of each map stands for no object.
        counts[0] = large[0] = False
        judged = [_judged(pairs, counts, large, iou) for iou in F1_IOUS]
        is_found, is_right, is_counted = judged[0]
        row, col, shared = pairs.row, pairs.col, pairs.shared
        both = counts[row] & large[col]
        inside_label = row[both & (shared > pairs.area_predicted[col] / 2)]
        inside_prediction = col[both & (shared > pairs.area[row] / 2)]
        sizes = None
        if pixel_m2 is not None:
            sides = areas[counts], areas[is_found], areas_predicted[is_counted]
            sizes = tuple(map(_count_sizes, (*sides, areas_predicted[is_right])))
        return cls(
            labelled=int(counts.sum()),
            predicted=int(is_counted.sum()),
            matched=int(is_right.sum()),
            split=int((np.bincount(inside_label) > 1).sum()),
            merged=int((np.bincount(inside_prediction) > 1).sum()),
            predicted_at=tuple(int(each.sum()) for _, _, each in judged),
            matched_at=tuple(int(each.sum()) for _, each, _ in judged),
            sizes=sizes,
        )

    def __add__(self, other: ObjectCounts) -> ObjectCounts:
        """Add the counts; counts by size only where they are known for all objects."""
        return ObjectCounts(
            self.labelled + other.labelled,
            self.predicted + other.predicted,
            self.matched + other.matched,
            self.split + other.split,
            self.merged + other.merged,
            _added(self.predicted_at, other.predicted_at),
            _added(self.matched_at, other.matched_at),
            self._sizes_with(other),
        )

    def _sizes_with(self, other: ObjectCounts) -> tuple[tuple[int, ...], ...] | None:
        if self.sizes is not None and other.sizes is not None:
            return tuple(map(_added, self.sizes, other.sizes))
        known, unknown = (other, self) if self.sizes is None else (self, other)
        return None if unknown.labelled or unknown.predicted else known.sizes

    @property
    def precision(self) -> float:
        """Share of the predicted objects that match; NaN where nothing was predicted."""
        return share_of(self.matched, self.predicted)

    @property
    def recall(self) -> float:
        """Share of the labelled objects that match; NaN where nothing is labelled."""
        return share_of(self.matched, self.labelled)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN where there is no object at all."""
        return share_of(2 * self.matched, self.labelled + self.predicted)

    def f1_at(self, iou: float) -> float:
        """Return F1 where a match needs an IoU above `iou`, one of `F1_IOUS`; NaN as in `f1`."""
        step = F1_IOUS.index(iou)
        return share_of(2 * self.matched_at[step], self.labelled + self.predicted_at[step])

    @property
    def mean_f1(self) -> float:
        """Mean of `f1_at` over `F1_IOUS` where it is defined; NaN as in `f1`."""
        defined = [f1 for f1 in map(self.f1_at, F1_IOUS) if not math.isnan(f1)]
        return sum(defined) / len(defined) if defined else math.nan

    @property
    def by_size(self) -> tuple[SizeClass, ...]:
        """Size classes from the smallest; empty where `sizes` is None."""
        if self.sizes is None:
            return ()
        bounds = zip((0.0, *SIZE_EDGES_M2), (*SIZE_EDGES_M2, math.inf))
        return tuple(SizeClass(*ends, *four) for ends, four in zip(bounds, zip(*self.sizes)))

    def figures(self) -> dict[str, float | int]:
        """Return `precision`, `recall`, `f1`, `mean_f1` and the counts behind them."""
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


def match_predicted(
    labelled: Labels, predicted: Labels, valid: BoolArray | None = None
) -> tuple[Labels, BoolArray, int]:
    """Find the predicted objects that are right: those that match a labelled one, see
    `ObjectCounts`.

    Args:
        labelled, predicted, valid: See `ObjectCounts.of`.

    Returns:
        (n,) numbers, ascending, of the predicted objects that count, (n,) True for each that is
        right, and the number of labelled objects.
    """
    pairs = ObjectOverlaps.of(labelled, predicted, valid)
    counts, large = (np.ones(len(area), np.bool_) for area in (pairs.area, pairs.area_predicted))
    if valid is not None and not valid.all():
        counts, large = _mostly_known(labelled, predicted, pairs)
    counts[0] = large[0] = False
    _, is_right, is_counted = _judged(pairs, counts, large, _MATCH)
    return pairs.predicted[is_counted], is_right[is_counted], int(counts.sum())


def _mostly_known(
    labelled: Labels, predicted: Labels, pairs: ObjectOverlaps
) -> tuple[BoolArray, BoolArray]:
    """Return the labelled and the predicted objects that are not ignored, see `ObjectCounts`."""
    of_labelled = np.bincount(labelled.ravel())[pairs.labelled]
    of_predicted = np.bincount(predicted.ravel())[pairs.predicted]
    is_whole = np.asarray(2 * pairs.area >= of_labelled)
    is_judged = np.asarray(2 * pairs.area_predicted >= of_predicted)
    inside = 2 * pairs.shared > pairs.area_predicted[pairs.col]
    is_judged[pairs.col[inside & ~is_whole[pairs.row]]] = False
    return is_whole, is_judged


def _judged(
    pairs: ObjectOverlaps, counts: BoolArray, large: BoolArray, iou: float
) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Return the labelled objects that are found, the predicted ones that are right, and the
    predicted ones that count.

    A match needs an IoU above `iou`; `large` objects are not below the minimum.
    """
    near = pairs.iou > iou
    row, col = pairs.row[near], pairs.col[near]
    is_found, is_right = np.zeros_like(counts), np.zeros_like(large)
    is_found[row] = counts[row]
    is_right[col] = counts[row]
    is_counted = large.copy()
    is_counted[col] = counts[row]
    return is_found, is_right, is_counted


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other))


_AREAS_PX = {
    "": (0, math.inf), "_small": (0, 32**2), "_medium": (32**2, 96**2), "_large": (96**2, math.inf),
}  # fmt: skip
_IOUS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True)
class _Scene:
    """Objects of a scene.

    Args:
        area, area_predicted: (n,) and (k,) pixels of each object.
        score: (k,) score of each predicted object.
        row, col, iou: (pairs,) labelled and predicted object of each pair with an IoU of 0.5 or
            more.
    """

    area: Ints
    area_predicted: Ints
    score: NDArray[np.float32]
    row: Ints
    col: Ints
    iou: Floats

    def matches(self, is_ignored: BoolArray) -> Ints:
        """Return the (iou, k) labelled object of each predicted one at each of `_IOUS`; -1 for
        none.

        Objects of one map share no pixel. Therefore a pair with an IoU above 0.5 is the only one of
        its two objects. Only pairs of exactly 0.5 can compete: the predicted object with the higher
        score chooses, objects that are not ignored first, and of equals the last.
        """
        matches = np.full((len(_IOUS), len(self.score)), -1)
        for step, least in enumerate(_IOUS):
            chosen = self.iou > least if step == 0 else self.iou >= least
            matches[step, self.col[chosen]] = self.row[chosen]
        half = self.iou == _IOUS[0]
        row, col = self.row[half], self.col[half]
        free = np.ones(len(self.area), bool)
        for predicted in np.unique(col)[np.argsort(-self.score[np.unique(col)], kind="stable")]:
            rivals = row[(col == predicted) & free[row]]
            if len(rivals):
                best = rivals[~is_ignored[rivals]] if not is_ignored[rivals].all() else rivals
                matches[0, predicted] = best[-1]
                free[best[-1]] = False
        return matches


class CocoCollector:
    """Collector of the buildings of many scenes for the COCO figures (Lin et al. 2014, "Microsoft
    COCO: Common Objects in Context", https://cocodataset.org/#detection-eval).

    Scenes are added one by one, and only the areas and overlaps of their objects are kept. The
    figures are those of pycocotools at its ten IoUs, 101 recalls and three ranges of area. The only
    difference is the number of objects: COCO takes the 100 objects with the highest score of an
    image; here all count, because a scene may hold thousands of buildings. Where no scene has more
    than 100 objects, the figures are those of COCO. AR is then the share of objects found by any
    prediction, at any score.
    """

    def __init__(self) -> None:
        self._scenes: dict[str, _Scene] = {}

    def __len__(self) -> int:
        """Return the number of scenes that were added."""
        return len(self._scenes)

    def add(
        self,
        scene_id: str,
        truth: Labels,
        predicted: Labels,
        scores: NDArray[np.float32],
        valid: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add one scene.

        Args:
            scene_id: Unique id.
            truth, predicted: (y, x) number of the object at each pixel, from 1; 0 for none.
            scores: (k,) scores of the predicted objects, starting with object 1; objects without a
                pixel do not count.
            valid: (y, x) pixels that count; default all. The remaining pixels of an object are the
                object.

        Raises:
            ValueError: A predicted object has no score, or its score is NaN.
        """
        pairs = ObjectOverlaps.of(truth, predicted, valid)
        numbers = pairs.predicted[1:]
        if len(numbers) and (numbers[-1] > len(scores) or np.isnan(scores[numbers - 1]).any()):
            raise ValueError(
                f"the scene {scene_id!r} has predicted objects up to number {numbers[-1]} and "
                f"{len(scores)} scores, {np.isnan(scores).sum()} of them NaN"
            )
        near = pairs.iou >= _IOUS[0]
        # The first entry of each map stands for no object.
        self._scenes[scene_id] = _Scene(
            pairs.area[1:], pairs.area_predicted[1:], scores[numbers - 1],
            pairs.row[near] - 1, pairs.col[near] - 1, pairs.iou[near],
        )  # fmt: skip

    def figures(self) -> dict[str, float]:
        """Return the COCO figures in 0..1; NaN where nothing is labelled.

        The keys are `ap` (mean over IoU 0.50:0.05:0.95), `ap50`, `ap75` and `ar`, and `ap_` and
        `ar_` with `small`, `medium` and `large`: objects up to 32² pixels, up to 96², and larger.
        """
        tables = {name: self._evaluate(*limits) for name, limits in _AREAS_PX.items()}
        whole = tables[""][0]
        return {
            **{f"ap{name}": float(precision.mean()) for name, (precision, _) in tables.items()},
            **{f"ar{name}": float(recall.mean()) for name, (_, recall) in tables.items()},
            "ap50": float(whole[0].mean()),
            "ap75": float(whole[5].mean()),
        }

    def _evaluate(self, least_px: float, most_px: float) -> tuple[Floats, Floats]:
        """Return (iou, recall) precisions and (iou,) recalls for objects of some sizes.

        Labelled objects of other sizes are ignored, with their matches; so are predicted objects of
        other sizes without a match.
        """
        labelled = 0
        scores, right, wrong = [np.zeros(0)], [np.zeros((len(_IOUS), 0), bool)], []
        for scene in self._scenes.values():
            is_ignored = (scene.area < least_px) | (scene.area > most_px)
            labelled += int((~is_ignored).sum())
            matches = scene.matches(is_ignored)
            is_matched = matches >= 0
            is_other = (scene.area_predicted < least_px) | (scene.area_predicted > most_px)
            ignored = np.where(is_matched, np.append(is_ignored, False)[matches], is_other)
            scores.append(scene.score.astype(np.float64))
            right.append(is_matched & ~ignored)
            wrong.append(~is_matched & ~ignored)
        precisions, recalls = np.zeros((len(_IOUS), len(_RECALLS))), np.zeros(len(_IOUS))
        if not labelled:
            return precisions + math.nan, recalls + math.nan
        order = np.argsort(-np.concatenate(scores), kind="stable")
        true = np.concatenate(right, axis=1)[:, order].cumsum(axis=1)
        false = np.concatenate([right[0], *wrong], axis=1)[:, order].cumsum(axis=1)
        precision = true / (true + false + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for step, recall in enumerate(true / labelled):
            place = np.searchsorted(recall, _RECALLS)
            reached = place < len(recall)
            precisions[step, reached] = precision[step, place[reached]]
            recalls[step] = recall[-1] if len(recall) else 0.0
        return precisions, recalls
