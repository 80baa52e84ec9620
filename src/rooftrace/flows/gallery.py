"""Images chosen from the worst to the best, with what was said of them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Scene, Window
from rooftrace.data.source import SceneSet
from rooftrace.flows.candidates import Candidate
from rooftrace.io.atomic import write_atomically
from rooftrace.metrics.report import EvalReport
from rooftrace.predict.comparison import side_by_side

__all__ = ["Gallery", "Shown", "draw_pictures", "gallery", "ranked", "spread_places"]

_QUALITY = 80
_PANEL_PX = 360
"""Longest side of a panel on the page, which holds a dozen pictures."""


@dataclass(frozen=True)
class Shown:
    """One picture on a page.

    Args:
        id: of the scene.
        caption: its figures.
        address: of the picture, which is in it.
    """

    id: str
    caption: str
    address: str


@dataclass(frozen=True)
class Gallery:
    """Pictures of scenes.

    Args:
        named: what is shown together, by what it is; a scene is in one of them alone.
        shown: all by their ids.
    """

    named: tuple[tuple[str, tuple[Shown, ...]], ...]
    shown: dict[str, Shown]


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


def gallery(
    candidate: Candidate, source: SceneSet, report: EvalReport, count: int, also: Sequence[str] = ()
) -> Gallery:
    """The worst, the median and the best scenes, up to `count` of each; where scenes are few, the
    worst come first.

    Args:
        also: ids of further scenes that are drawn.
    """
    order = [name for name, _ in ranked(report)]
    middle = max(0, len(order) // 2 - count // 2)
    chosen = {
        "The worst": order[:count],
        "From the middle": order[middle : middle + count],
        "The best": order[::-1][:count],
    }
    taken: set[str] = set()
    for name, ids in chosen.items():
        chosen[name] = [one for one in ids if one not in taken]
        taken.update(ids)
    figures = dict(ranked(report))
    shown = {}
    for scene in source.subset([*taken, *also]):
        picture = _drawn(candidate, scene, "", report.building_class, _PANEL_PX)
        good, encoded = cv2.imencode(
            ".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )
        assert good
        address = f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
        shown[scene.id] = Shown(scene.id, _title(report, figures[scene.id]), address)
    named = [
        (name, tuple(shown[one] for one in ids if one in shown)) for name, ids in chosen.items()
    ]
    return Gallery(tuple(one for one in named if one[1]), shown)


def draw_pictures(
    candidate: Candidate, source: SceneSet, report: EvalReport, folder: Path, most: int
) -> None:
    """NAME.png for a choice of images; the number in front ranks them from the worst."""
    order = ranked(report)
    places = spread_places(len(order), most)
    rank = {order[place][0]: place + 1 for place in places}
    figures = dict(order)
    for scene in source.subset(list(rank)):
        title = _title(report, figures[scene.id])
        picture = _drawn(candidate, scene, title, report.building_class)
        good, encoded = cv2.imencode(".png", picture[..., ::-1])
        assert good
        name = scene.id.replace("/", "_")
        write_atomically(folder / f"{rank[scene.id]:04d}_{name}.png", encoded.tobytes())


def _title(report: EvalReport, figure: float) -> str:
    name = "IoU" if report.is_binary else "mean IoU"
    return f"{name} -" if np.isnan(figure) else f"{name} {figure:.3f}"


def _drawn(
    candidate: Candidate,
    scene: Scene,
    title: str,
    building_class: int,
    panel_px: int | None = None,
) -> NDArray[np.uint8]:
    """Image, truth, answer and errors beside one another."""
    assert scene.label is not None
    truth = scene.label.read(Window.whole(scene.image.grid.shape))
    answer = candidate.answer(scene)
    more = {} if panel_px is None else {"panel_px": panel_px}
    return side_by_side(
        scene.image.read().data, truth, answer.mask, title, candidate.legend,
        building_class=building_class, **more,
    )  # fmt: skip
