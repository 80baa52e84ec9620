"""COCO average precision and recall, from the overlaps of the objects of two maps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import BoolArray, Floats, Ints
from rooftrace.metrics.objects import ObjectOverlaps

Labels = NDArray[np.int32]

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
            ValueError: The scene was added before; a predicted object has no score, or its score is
                NaN.
        """
        if scene_id in self._scenes:
            raise ValueError(f"the scene {scene_id!r} was added before")
        pairs = ObjectOverlaps.of(truth, predicted, valid)
        numbers = pairs.predicted[1:]
        if len(numbers) and (numbers[-1] > len(scores) or np.isnan(scores[numbers - 1]).any()):
            raise ValueError(
                f"the scene {scene_id!r} has predicted objects up to number {numbers[-1]} and "
                f"{len(scores)} scores, {np.isnan(scores).sum()} of them NaN"
            )
        near = pairs.iou >= _IOUS[0]
        # The first object of each map is none.
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
