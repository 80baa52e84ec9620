"""The search for a threshold over what a model has said of sets of labelled scenes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rooftrace.flows.labelled import labelled_buildings, numbered_on
from rooftrace.flows.scored import ScoredSet, draw_at, level_of
from rooftrace.metrics.calibration import JudgedBuildings
from rooftrace.metrics.curves import ThresholdCurve
from rooftrace.metrics.objects import ObjectCounts, judge_predicted
from rooftrace.models.spec import BundleSpec
from rooftrace.tiling.blend import PROB_ONE

__all__ = [
    "SearchedSet",
    "SetFigures",
    "ThresholdMetric",
    "best_level",
    "middle_of_best",
]

Floats = NDArray[np.float64]

ThresholdMetric = Literal["dice", "iou", "f1"]
"""Of pixels, pooled over the images of a set: `dice`, `iou`. Of buildings, one to one where their
IoU is above 0.5: `f1`."""

_GRID = tuple(level_of(step / 20) for step in range(1, 20))
"""Where buildings are drawn, to begin with; then half way to the next on either side of the best,
and half way again."""

_HALVINGS = 2


@dataclass(frozen=True)
class SetFigures:
    """What one set of data comes to at one threshold.

    Args:
        iou, dice, precision, recall: pooled over the pixels of all images; NaN where not defined.
        objects: its buildings; None where they were not drawn at this threshold.
    """

    iou: float
    dice: float
    precision: float
    recall: float
    objects: ObjectCounts | None = None

    def get(self, metric: ThresholdMetric) -> float:
        """One figure; NaN where it is not known."""
        if metric == "f1":
            return math.nan if self.objects is None else self.objects.f1
        return float(getattr(self, metric))

    def values(self) -> dict[str, float]:
        """The figures that are known."""
        found = {name: getattr(self, name) for name in ("iou", "dice", "precision", "recall")}
        found["f1"] = self.get("f1")
        return {name: round(value, 5) for name, value in found.items() if not math.isnan(value)}


class SearchedSet:
    """One set of data, and what was counted of it so far.

    Args:
        spec: the model's contract, without a calibration.
        scored: what the model says of the set.
    """

    def __init__(self, spec: BundleSpec, scored: ScoredSet) -> None:
        self.scored = scored
        self.curve: ThresholdCurve = scored.curve()
        self._spec = spec
        self._objects: dict[int, ObjectCounts] = {}

    def figures(self, level: int) -> SetFigures:
        """All that is known of a level."""
        iou, dice, precision, recall = (
            float(getattr(self.curve, name)()[level - 1])
            for name in ("iou", "dice", "precision", "recall")
        )
        return SetFigures(iou, dice, precision, recall, self._objects.get(level))

    def draw(self, levels: Sequence[int]) -> None:
        """Count the buildings that are drawn at levels."""
        which = self._spec.building_class
        wanted = [level for level in levels if level not in self._objects]
        counts = dict.fromkeys(wanted, ObjectCounts())
        for scene, scored in zip(self.scored.source, self.scored):
            assert scene.label is not None
            labelled = labelled_buildings(scene, scene.label.read(), which)
            judged = scored.judged
            for level in wanted:
                drawn = numbered_on(scene.image.grid, draw_at(self._spec, scene, scored, level))
                counts[level] += ObjectCounts.of(labelled, drawn, judged)
        self._objects |= counts

    def judge(self, level: int, split: str) -> JudgedBuildings:
        """Which buildings are right that are drawn at a level."""
        which = self._spec.building_class
        scores, rights = [np.zeros(0, np.float32)], [np.zeros(0, np.bool_)]
        for scene, scored in zip(self.scored.source, self.scored):
            assert scene.label is not None
            buildings = draw_at(self._spec, scene, scored, level)
            numbers, right = judge_predicted(
                labelled_buildings(scene, scene.label.read(), which),
                numbered_on(scene.image.grid, buildings),
                scored.judged,
            )
            scores.append(buildings.score[numbers - 1])
            rights.append(right)
        return JudgedBuildings(
            data=self.scored.source.name,
            split=split,
            score=np.concatenate(scores),
            right=np.concatenate(rights),
            scene=np.repeat(np.arange(len(rights) - 1), [len(part) for part in rights[1:]]),
            scenes=len(rights) - 1,
        )


def best_level(
    sets: Sequence[SearchedSet], metric: ThresholdMetric, before: int
) -> tuple[int, list[int], Floats]:
    """The best level, all that were looked at, and the mean over the sets at each.

    Where several are equally good, the middle one of the longest run of them.
    """
    if metric != "f1":
        levels = list(range(1, PROB_ONE + 1))
        values = np.mean([getattr(one.curve, metric)() for one in sets], axis=0)
        return levels[middle_of_best(values)], levels, np.asarray(values, np.float64)
    tried = set(_GRID)
    for halving in range(_HALVINGS + 1):
        levels = sorted(tried)
        for one in sets:
            one.draw([*levels, before])
        means = [[one.figures(level).get("f1") for one in sets] for level in levels]
        values = np.nan_to_num(np.mean(means, axis=1))
        best = middle_of_best(values)
        if halving < _HALVINGS:
            around = levels[max(best - 1, 0) : best + 2]
            tried |= {(a + b) // 2 for a, b in pairwise(around)}
    return levels[best], levels, np.asarray(values, np.float64)


def middle_of_best(values: Floats) -> int:
    """The middle of the longest run of the highest values; of an even number the lower."""
    edges = np.flatnonzero(np.diff(np.r_[False, values == values.max(), False]))
    first, end = edges[::2], edges[1::2]
    longest = int((end - first).argmax())
    return int(first[longest] + end[longest] - 1) // 2
