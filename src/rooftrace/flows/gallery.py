"""Images chosen from the worst to the best, with what was said of them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Mask, RasterSource, Scene, Window
from rooftrace.data.source import SceneSet
from rooftrace.flows.candidates import Candidate
from rooftrace.io.atomic import write_atomically
from rooftrace.io.blank import BlankSource
from rooftrace.metrics.report import EvalReport
from rooftrace.predict.comparison import PANEL_PX, side_by_side

__all__ = ["Gallery", "Shown", "draw_pictures", "gallery", "ranked", "spread_places"]

_QUALITY = 80
_PANEL_PX = 360
"""Longest side of a panel on the page, which holds a dozen pictures."""

_READ_PX = 1 << 22
"""Of an image that are read at once."""


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


def ranked(report: EvalReport, *, judged: bool = False) -> list[tuple[str, float]]:
    """Images with their headline figure, from the worst to the best; those where there is nothing
    to judge (NaN) count as right.

    Args:
        judged: only those where there is something to judge.
    """
    figures = {image.id: report.headline(image.counts) for image in report.images}
    if judged:
        figures = {name: value for name, value in figures.items() if not np.isnan(value)}
    return sorted(figures.items(), key=lambda one: (1.0 if np.isnan(one[1]) else one[1], one[0]))


def spread_places(count: int, most: int) -> list[int]:
    """Up to `most` places of 0 … count - 1, evenly from the first to the last."""
    chosen = min(most, count)
    return sorted({round(place) for place in np.linspace(0, count - 1, chosen).tolist()})


def gallery(
    candidate: Candidate, source: SceneSet, report: EvalReport, count: int, also: Sequence[str] = ()
) -> Gallery:
    """The worst, the median and the best scenes, up to `count` of each; of few scenes a third each.

    Scenes where there is nothing to find, and nothing was found, are not among them, unless there
    are no others.

    Args:
        also: ids of further scenes that are drawn.
    """
    chosen = _chosen(ranked(report, judged=True), count)
    if not chosen:
        chosen = {"Nothing to find, and nothing found": [i for i, _ in ranked(report)[:count]]}
    taken = [one for ids in chosen.values() for one in ids]
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
    named = tuple((name, tuple(shown[one] for one in ids)) for name, ids in chosen.items())
    return Gallery(named, shown)


def _chosen(order: Sequence[tuple[str, float]], count: int) -> dict[str, list[str]]:
    """Of images from the worst to the best; each is chosen once."""
    ids = [name for name, _ in order]
    worst = min(count, -(-len(ids) // 3))
    best = min(count, (len(ids) - worst + 1) // 2)
    rest = ids[worst : len(ids) - best]
    middle = min(count, len(rest))
    start = (len(rest) - middle) // 2
    chosen = {
        "The worst" if len(ids) > 1 else "The scene": ids[:worst],
        "From the middle": rest[start : start + middle],
        "The best": ids[len(ids) - best :][::-1],
    }
    return {name: some for name, some in chosen.items() if some}


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
    panel_px: int = PANEL_PX,
) -> NDArray[np.uint8]:
    """Image, truth, answer and errors beside one another; of a large scene every n-th pixel."""
    assert scene.label is not None
    truth = scene.label.read(Window.whole(scene.image.grid.shape))
    predicted = candidate.answer(scene).mask
    # Twice as many as are shown, so that edges are smooth.
    step = max(1, max(truth.data.shape) // (2 * panel_px))
    has_image = not isinstance(scene.image, BlankSource)
    return side_by_side(
        _every(scene.image, step) if has_image else None,
        _thinned(truth, step), _thinned(predicted, step), title, candidate.legend,
        building_class=building_class, panel_px=panel_px,
    )  # fmt: skip


def _every(image: RasterSource, step: int) -> NDArray[np.generic]:
    """(band, y, x) every n-th pixel of an image, which is read strip by strip."""
    whole = Window.whole(image.grid.shape)
    rows = max(1, _READ_PX // whole.width // step) * step
    strips = [image.read(strip).data[:, ::step, ::step].copy() for strip in whole.strips(rows)]
    return np.concatenate(strips, axis=1)


def _thinned(mask: Mask, step: int) -> Mask:
    data = mask.data[::step, ::step]
    grid = mask.grid.resampled((data.shape[0], data.shape[1]), (step, step))
    return Mask(data, mask.valid[::step, ::step], grid)
