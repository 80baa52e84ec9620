"""COCO average precision and recall, computed by pycocotools."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import MissingExtraError
from rooftrace.core.types import Ints
from rooftrace.metrics.objects import ObjectOverlaps

__all__ = ["CocoCollector"]

Labels = NDArray[np.int32]

_GROUP_OBJECTS = 8
"""Number of objects of one side that are evaluated together; the time of pycocotools grows with its
square."""

_COLUMNS = 1024
"""Number of columns encoded at once; limits the memory for large scenes."""


@dataclass(frozen=True, slots=True)
class _ObjectGroup:
    """Some objects of a scene: their run lengths, and the scores of the predicted ones."""

    shape_yx: tuple[int, int]
    labelled: list[dict[str, Any]]
    predicted: list[dict[str, Any]]
    scores: list[float]


class CocoCollector:
    """Collector of the buildings of many scenes for the COCO figures (Lin et al. 2014, "Microsoft
    COCO: Common Objects in Context", https://cocodataset.org/#detection-eval).

    Scenes are added one by one, and only the run lengths of their objects are kept. pycocotools
    makes every decision, at its ten IoUs, 101 recalls and three ranges of area. The only difference
    is the number of objects: COCO takes the 100 objects with the highest score of an image; here
    all count, because a scene may hold thousands of buildings. Where no scene has more than 100
    objects, the figures are those of COCO. AR is then the share of objects found by any prediction,
    at any score.

    Raises:
        MissingExtraError: pycocotools is not installed.
    """

    def __init__(self) -> None:
        _pycocotools()
        self._scenes: set[str] = set()
        self._groups: list[_ObjectGroup] = []

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
        overlaps = ObjectOverlaps.of(truth, predicted, valid)
        numbers = overlaps.predicted[1:]
        if len(numbers) and (numbers[-1] > len(scores) or np.isnan(scores[numbers - 1]).any()):
            raise ValueError(
                f"the scene {scene_id!r} has predicted objects up to number {numbers[-1]} and "
                f"{len(scores)} scores, {np.isnan(scores).sum()} of them NaN"
            )
        self._scenes.add(scene_id)
        sides = (_run_lengths(side, valid) for side in (truth, predicted))
        own, other = (np.array([*found, None], np.object_)[:-1] for found in sides)
        shape_yx = (truth.shape[0], truth.shape[1])
        part, part_predicted = _group_objects(overlaps)
        for at in range(max(part.max(initial=-1), part_predicted.max(initial=-1)) + 1):
            here = part_predicted == at
            score = scores[numbers[here] - 1].tolist()
            self._groups.append(_ObjectGroup(shape_yx, [*own[part == at]], [*other[here]], score))

    def figures(self) -> dict[str, float]:
        """Return the COCO figures in 0..1; NaN where nothing is labelled.

        The keys are `ap` (mean over IoU 0.50:0.05:0.95), `ap50`, `ap75` and `ar`, and `ap_` and
        `ar_` with `small`, `medium` and `large`: objects up to 32² pixels, up to 96², and larger.

        pycocotools prints its progress, which is discarded. Meanwhile no other thread can print.
        """
        with redirect_stdout(StringIO()):
            labelled = self._side([part.labelled for part in self._groups])
            predicted = self._side([part.predicted for part in self._groups], scored=True)
            evaluation = _pycocotools().Evaluation(labelled, predicted, "segm")
            params = evaluation.params
            params.maxDets = [max((len(part.predicted) for part in self._groups), default=1) or 1]
            if not self._groups:
                return dict.fromkeys(_names(params.areaRngLbl), math.nan)
            evaluation.evaluate()
            evaluation.accumulate()
        # (iou, recall, class, area, limit) and (iou, class, area, limit): -1 for not defined.
        precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
        at = [int(np.argmin(np.abs(params.iouThrs - iou))) for iou in (0.5, 0.75)]
        areas = range(len(params.areaRngLbl))
        values = [
            *(_mean(precision[..., area, 0]) for area in areas),
            *(_mean(recall[..., area, 0]) for area in areas),
            *(_mean(precision[step, ..., 0, 0]) for step in at),
        ]
        return dict(zip(_names(params.areaRngLbl), values))

    def _side(self, objects: list[list[dict[str, Any]]], *, scored: bool = False) -> Any:
        """Return all objects of one side as a COCO data set."""
        mask = _pycocotools().mask
        annotations: list[dict[str, Any]] = []
        images = []
        for image, (part, those) in enumerate(zip(self._groups, objects), start=1):
            height, width = part.shape_yx
            images.append({"id": image, "height": height, "width": width})
            for number, runs in enumerate(those):
                score = {"score": part.scores[number]} if scored else {}
                annotations.append(
                    {
                        "id": len(annotations) + 1, "image_id": image, "category_id": 1,
                        "iscrowd": 0, "area": float(mask.area(runs)), "segmentation": runs,
                    } | score
                )  # fmt: skip
        side = _pycocotools().DataSet()
        side.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
        side.createIndex()
        return side


def _run_lengths(numbers: Labels, valid: NDArray[np.bool_] | None) -> Iterator[dict[str, Any]]:
    """Yield the run lengths of each object in column order, as pycocotools stores them."""
    mask = _pycocotools().mask
    height, width = numbers.shape
    which, first, stop = _runs_of(numbers, valid)
    bounds = np.column_stack([first, stop])
    for runs in np.split(bounds, np.flatnonzero(np.diff(which)) + 1) if len(which) else []:
        counts = np.diff(np.concatenate(([0], runs.ravel(), [height * width])))
        counts = counts[: len(counts) - (counts[-1] == 0)]
        given = {"size": [height, width], "counts": counts.tolist()}
        yield mask.frPyObjects(given, height, width)


def _runs_of(
    numbers: Labels, valid: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int32], Ints, Ints]:
    """Return the (n,) object of each run down the columns, ascending, and the run's first and end
    pixel.
    """
    found = []
    for left in range(0, numbers.shape[1], _COLUMNS):
        here = slice(left, left + _COLUMNS)
        seen = numbers[:, here] if valid is None else np.where(valid[:, here], numbers[:, here], 0)
        column = seen.T.ravel()
        first = np.flatnonzero(np.diff(column, prepend=-1))
        stop = np.append(first[1:], len(column))
        is_object = column[first] > 0
        offset = left * numbers.shape[0]
        found.append((column[first], first + offset, stop + offset, is_object))
    which, first, stop = (
        np.concatenate([part[of][part[3]] for part in found] or [np.zeros(0, np.int64)])
        for of in range(3)
    )
    order = np.argsort(which, kind="stable")
    which, first, stop = which[order], first[order], stop[order]
    # A run that continues in the next block of columns is one run.
    goes_on = (which[1:] == which[:-1]) & (first[1:] == stop[:-1])
    is_first = np.append(True, ~goes_on)[: len(which)]
    is_last = np.append(~goes_on, True)[: len(which)]
    return which[is_first].astype(np.int32), first[is_first], stop[is_last]


class _CocoTools(NamedTuple):
    """The parts of pycocotools used here."""

    DataSet: Any
    Evaluation: Any
    mask: Any


def _pycocotools() -> _CocoTools:
    try:
        from pycocotools import coco, cocoeval, mask
    except ImportError as error:
        raise MissingExtraError.of("labels", "COCO's AP and AR", "pycocotools") from error
    return _CocoTools(coco.COCO, cocoeval.COCOeval, mask)


def _group_objects(overlaps: ObjectOverlaps) -> tuple[Ints, Ints]:
    """Return the (n,) and (k,) groups in which labelled and predicted objects are evaluated.

    A group holds neighbours in the order of their numbers, with all objects that they may match.
    Therefore the order of equal scores, and every match, is the same as in one evaluation of the
    whole scene.
    """
    near = overlaps.iou >= 0.5
    row, col = overlaps.row[near] - 1, overlaps.col[near] - 1
    size, size_predicted = len(overlaps.area) - 1, len(overlaps.area_predicted) - 1
    # A labelled object can match two only where each covers half of it; these stay together.
    least, most = np.full(size, size_predicted), np.full(size, -1)
    np.minimum.at(least, row, col)
    np.maximum.at(most, row, col)
    is_matched = most >= 0
    spans = np.zeros(size_predicted + 1, np.int64)
    np.add.at(spans, least[is_matched] + 1, 1)
    np.add.at(spans, most[is_matched] + 1, -1)
    begins = np.cumsum(spans)[:size_predicted] == 0
    part_predicted = (np.cumsum(begins) - 1) // _GROUP_OBJECTS
    part = np.zeros(size, np.int64)
    part[is_matched] = part_predicted[least[is_matched]]
    rest = np.flatnonzero(~is_matched)
    part[rest] = part_predicted.max(initial=-1) + 1 + np.arange(len(rest)) // _GROUP_OBJECTS
    return part, part_predicted


def _names(areas: list[str]) -> list[str]:
    named = ["" if area == "all" else f"_{area}" for area in areas]
    return [f"{figure}{area}" for figure in ("ap", "ar") for area in named] + ["ap50", "ap75"]


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if len(known) else math.nan
