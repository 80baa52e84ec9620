"""Images chosen from the worst to the best, with what was said of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from rooftrace.core.types import Window
from rooftrace.data.source import SceneSet
from rooftrace.flows.candidates import Candidate
from rooftrace.io.atomic import write_atomically
from rooftrace.metrics.report import EvalReport
from rooftrace.predict.comparison import side_by_side

__all__ = ["draw_pictures", "ranked", "spread_places"]


def ranked(report: EvalReport) -> list[tuple[str, float]]:
    """Images with their headline figure, from the worst to the best; those where there is nothing
    to judge (NaN) count as right.
    """
    figures = {image.id: report.headline(image.counts) for image in report.images}
    return sorted(figures.items(), key=lambda one: (1.0 if np.isnan(one[1]) else one[1], one[0]))


def spread_places(count: int, most: int) -> list[int]:
    """Up to `most` places of 0 … count - 1, evenly from the first to the last."""
    chosen = min(most, count)
    return sorted({round(place) for place in np.linspace(0, count - 1, chosen).tolist()})


def draw_pictures(
    candidate: Candidate, source: SceneSet, report: EvalReport, folder: Path, most: int
) -> None:
    """NAME.png for a choice of images; the number in front ranks them from the worst."""
    order = ranked(report)
    places = spread_places(len(order), most)
    rank = {order[place][0]: place + 1 for place in places}
    iou = dict(order)
    for scene in source.subset(list(rank)):
        assert scene.label is not None
        truth = scene.label.read(Window.whole(scene.image.grid.shape))
        answer = candidate.answer(scene)
        figure = "IoU" if report.is_binary else "mean IoU"
        title = f"{figure} -" if np.isnan(iou[scene.id]) else f"{figure} {iou[scene.id]:.3f}"
        pixels = scene.image.read().data
        picture = side_by_side(pixels, truth, answer.mask, title, candidate.legend)
        good, encoded = cv2.imencode(".png", picture[..., ::-1])
        assert good
        name = scene.id.replace("/", "_")
        write_atomically(folder / f"{rank[scene.id]:04d}_{name}.png", encoded.tobytes())
