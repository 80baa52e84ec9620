"""Evaluation report as one offline HTML page: protocol, figures, curves and pictures.

The pictures show scenes from the worst to the best: image, truth, prediction and errors.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from typing import NamedTuple

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from rooftrace.core.types import Mask, RasterSource, Scene, Window
from rooftrace.flows.evaluate.evaluation import Evaluation, PairedComparison
from rooftrace.flows.evaluate.predictions import Predictions
from rooftrace.io.georeferenced import BlankSource
from rooftrace.io.html import Axis, Series, draw_chart, draw_legend, render_page
from rooftrace.io.picture import side_by_side
from rooftrace.labels.source import SceneSet
from rooftrace.metrics.boundary import WIDTH_PX
from rooftrace.metrics.objects import F1_IOUS
from rooftrace.metrics.report import FIGURES, EvalReport
from rooftrace.metrics.resampling import DRAWS, Interval

_QUALITY = 80
_PANEL_PX = 360
"""Longest side in pixels of a panel on the page, which holds a dozen pictures."""

_READ_PX = 1 << 22
"""Maximum number of pixels of an image that are read at once."""


class GalleryPicture(NamedTuple):
    """One picture on a page: id of the scene, its figures, and a data URL with the picture."""

    id: str
    caption: str
    address: str


Gallery = dict[str, list[GalleryPicture]]
"""Pictures of scenes by the title of their group; a scene is in one group only."""


def ranked(report: EvalReport, *, evaluated: bool = False) -> list[tuple[str, float]]:
    """Return images with their headline figure, from the worst to the best.

    Images with nothing to compare (NaN) count as right.

    Args:
        report: The report.
        evaluated: True leaves out images with nothing to compare.
    """
    figures = {image.id: report.headline(image.counts) for image in report.images}
    if evaluated:
        figures = {name: value for name, value in figures.items() if not np.isnan(value)}
    return sorted(figures.items(), key=lambda one: (1.0 if np.isnan(one[1]) else one[1], one[0]))


def draw_gallery(
    predictions: Sequence[Predictions],
    source: SceneSet,
    report: EvalReport,
    count: int,
    also: Sequence[str] = (),
) -> Gallery:
    """Draw the worst, the median and the best scenes, up to `count` each; of few scenes a third
    each.

    Scenes with nothing to find and nothing found are left out, unless there are no others.

    Args:
        predictions: Predictions to show: the first whole, of the others the errors.
        source: The scenes.
        report: Report of these predictions.
        count: Maximum number of pictures in a group.
        also: Ids of further scenes, for a group without a title.
    """
    chosen = _chosen(ranked(report, evaluated=True), count)
    if not chosen:
        chosen = {"Nothing to find, and nothing found": [i for i, _ in ranked(report)[:count]]}
    chosen[""] = [*also]
    figures, shown = dict(ranked(report)), {}
    for scene in source.subset([one for ids in chosen.values() for one in ids]):
        picture = _draw_panels(predictions, scene, report.building_class)
        good, encoded = cv2.imencode(
            ".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )
        assert good
        address = f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
        shown[scene.id] = GalleryPicture(scene.id, _title(report, figures[scene.id]), address)
    return {name: [shown[one] for one in ids if one in shown] for name, ids in chosen.items()}


def _chosen(order: Sequence[tuple[str, float]], count: int) -> dict[str, list[str]]:
    """Choose the images of each group from a list from the worst to the best, each once."""
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


def _title(report: EvalReport, figure: float) -> str:
    name = "IoU" if report.is_binary else "mean IoU"
    return f"{name} -" if np.isnan(figure) else f"{name} {figure:.3f}"


def _draw_panels(
    predictions: Sequence[Predictions], scene: Scene, building_class: int
) -> NDArray[np.uint8]:
    """Draw image, truth, prediction and errors side by side; for a large scene every n-th pixel."""
    assert scene.label is not None
    truth = scene.label.read(Window.whole(scene.image.grid.shape))
    masks = [one.predict(scene).mask for one in predictions[:_MOST_BESIDE]]
    # Twice as many pixels as are shown, so that edges are smooth.
    step = max(1, max(truth.data.shape) // (2 * _PANEL_PX))
    has_image = not isinstance(scene.image, BlankSource)
    return side_by_side(
        _thin_image(scene.image, step) if has_image else None,
        _thin_mask(truth, step), _thin_mask(masks[0], step),
        predictions[0].name if len(masks) > 1 else "", predictions[0].legend,
        building_class=building_class, panel_px=_PANEL_PX,
        others=[(p.name, _thin_mask(mask, step)) for p, mask in zip(predictions[1:], masks[1:])],
    )  # fmt: skip


def _thin_image(image: RasterSource, step: int) -> NDArray[np.generic]:
    """Return every n-th pixel of an image as (band, y, x), read strip by strip."""
    whole = Window.whole(image.grid.shape)
    rows = max(1, _READ_PX // whole.width // step) * step
    strips = [image.read(strip).data[:, ::step, ::step].copy() for strip in whole.strips(rows)]
    return np.concatenate(strips, axis=1)


def _thin_mask(mask: Mask, step: int) -> Mask:
    data = mask.data[::step, ::step]
    grid = mask.grid.resampled((data.shape[0], data.shape[1]), (step, step))
    return Mask(data, mask.valid[::step, ::step], grid)


def draw_charts(reports: Sequence[EvalReport]) -> dict[str, Markup]:
    """Draw every chart that has data; all models are in each.

    The charts are `precision_recall`, `iou` over the threshold, `f1` over the IoU that a match
    needs, and `reliability`.
    """
    made: dict[str, Markup] = {}
    # A model without data gets an empty series, because colours follow the order of the reports.
    if any(report.curve is not None for report in reports):
        recall_precision, over_threshold = [], []
        for report in reports:
            if (curve := report.curve) is None:
                recall_precision.append(Series(report.name, (), ()))
                over_threshold.append(Series(report.name, (), ()))
                continue
            at = report.context.get("threshold")
            precision, recall = curve.precision().tolist(), curve.recall().tolist()
            iou, thresholds = curve.iou().tolist(), curve.thresholds.tolist()
            step = _nearest(thresholds, at)
            mark = None if step is None else (recall[step], precision[step])
            recall_precision.append(Series(report.name, recall, precision, mark=mark))
            mark = None if step is None else (thresholds[step], iou[step])
            over_threshold.append(Series(report.name, thresholds, iou, mark=mark))
        made["precision_recall"] = draw_chart(
            recall_precision, Axis.between("recall"), Axis.between("precision")
        )
        made["iou"] = draw_chart(over_threshold, Axis.between("threshold"), Axis.between("IoU"))
    if any(report.objects.labelled or report.objects.predicted for report in reports):
        lines = [
            Series(r.name, F1_IOUS, [r.objects.f1_at(iou) for iou in F1_IOUS], dots=True)
            for r in reports
        ]
        made["f1"] = draw_chart(
            lines, Axis.between("IoU that a match needs", 0.5), Axis.between("F1")
        )
    if any(report.reliability is not None for report in reports):
        lines = [
            Series(report.name, one.mean_score.tolist(), one.share_right.tolist(), dots=True)
            if (one := report.reliability) is not None
            else Series(report.name, (), ())
            for report in reports
        ]
        made["reliability"] = draw_chart(
            lines, Axis.between("score"), Axis.between("share that is right"), diagonal=True
        )
    return made


def _nearest(thresholds: Sequence[float], at: float | None) -> int | None:
    if at is None:
        return None
    return min(range(len(thresholds)), key=lambda step: abs(thresholds[step] - at))


_IN_A_GALLERY = 4
_MOST_BESIDE = 3
"""Maximum number of models in a picture."""

_ROWS = 100
"""Maximum number of scenes in the table; report.json has all."""

_LISTED_LEAKS = 12


def evaluation_page(
    evaluation: Evaluation, predictions: Sequence[Predictions], source: SceneSet
) -> str:
    """Return the whole page as text for UTF-8.

    Args:
        evaluation: The result to show.
        predictions: The evaluated models and tools, in the order of the reports; the first predicts
            the scenes of the galleries again.
        source: The scenes.
    """
    first, reports = evaluation.first, evaluation.columns
    leaked = [scene for leak in evaluation.leaks for scene in leak.scenes][:_IN_A_GALLERY]
    galleries = draw_gallery(predictions, source, first, _IN_A_GALLERY, also=leaked)
    images = [{image.id: image for image in report.images} for report in reports]
    rows = [_row(*zip(*figures)) for figures in zip(*(one.headline_figures for one in reports))]
    rows = [row for row in rows if not all(math.isnan(one.value) for one in row[1])]
    main = evaluation.main_figures
    return render_page(
        "evaluation.html",
        {"figure": _figure, "p_value": lambda p: "< 0.001" if p < 0.001 else _figure(p)},
        first=first,
        reports=reports,
        several=len(reports) > 1,
        leaks=[
            (report.name, leak, leak.pairs[:_LISTED_LEAKS])
            for report, leak in zip(reports, evaluation.leaks)
        ],
        leaked=galleries.pop(""),
        rows=[row for row in rows if row[0] in main],
        more_rows=[row for row in rows if row[0] not in main],
        comparisons=_compared(evaluation),
        headline="pixel.iou" if first.is_binary else "pixel.mean_iou",
        figure_names=FIGURES,
        context=first.context,
        units=next(iter(first.intervals.values()), None),
        draws=DRAWS,
        width_px=WIDTH_PX,
        charts=draw_charts(reports),
        legend=draw_legend([report.name for report in reports]) if len(reports) > 1 else "",
        predictions=predictions,
        scenes=[[by_id[name] for by_id in images] for name, _ in ranked(first)[:_ROWS]],
        galleries=galleries,
        notes=evaluation.notes,
        version=metadata.version("rooftrace"),
    )


def _compared(evaluation: Evaluation) -> tuple[PairedComparison, ...]:
    """Return each other model against the baseline, or a refined model against its segmenter."""
    first = evaluation.first
    if len(evaluation.reports) == 1 and first.coarse is not None:
        (found,) = Evaluation((first.coarse, first)).comparisons
        return (replace(found, first=0, second=1),)
    return evaluation.comparisons


def _row(names: Sequence[str], each: Sequence[Interval]) -> tuple[str, list[Interval], int]:
    """Return a figure's name, its values, and the position of the single highest value, or -1."""
    values = [one.value for one in each]
    highest = max((v for v in values if not math.isnan(v)), default=math.nan)
    is_best = len(each) > 1 and sum(value == highest for value in values) == 1
    return names[0], list(each), values.index(highest) if is_best else -1


def _figure(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"
