"""Evaluation report as one offline HTML page: protocol, figures, curves and pictures.

The pictures show scenes from the worst to the best: image, truth, prediction and errors.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from rooftrace.core.types import Mask, RasterSource, Scene, Window
from rooftrace.flows.evaluate.evaluation import Evaluation, PairedComparison
from rooftrace.flows.evaluate.predictions import Predictions
from rooftrace.io.html import Axis, Series, draw_chart, draw_legend, render_page
from rooftrace.io.side_by_side import side_by_side
from rooftrace.io.sources import BlankSource
from rooftrace.labels.source import SceneSet
from rooftrace.metrics.boundary import WIDTH_PX
from rooftrace.metrics.image_counts import ImageCounts
from rooftrace.metrics.objects import F1_IOUS
from rooftrace.metrics.report import FIGURES, EvalReport
from rooftrace.metrics.resampling import DRAWS, Interval, PairedTest

_QUALITY = 80
_PANEL_PX = 360
"""Longest side in pixels of a panel on the page, which holds a dozen pictures."""

_READ_PX = 1 << 22
"""Maximum number of pixels of an image that are read at once."""


@dataclass(frozen=True)
class GalleryPicture:
    """One picture on a page.

    Args:
        id: Id of the scene.
        caption: Figures of the scene.
        address: Data URL that holds the picture.
    """

    id: str
    caption: str
    address: str


@dataclass(frozen=True)
class Gallery:
    """Pictures of scenes.

    Args:
        named: Title and pictures of each group; a scene is in one group only.
        shown: All pictures by scene id.
    """

    named: tuple[tuple[str, tuple[GalleryPicture, ...]], ...]
    shown: dict[str, GalleryPicture]


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
    predictions: Predictions,
    source: SceneSet,
    report: EvalReport,
    count: int,
    also: Sequence[str] = (),
) -> Gallery:
    """Draw the worst, the median and the best scenes, up to `count` each; of few scenes a third
    each.

    Scenes with nothing to find and nothing found are left out, unless there are no others.

    Args:
        predictions: Predictions to show.
        source: The scenes.
        report: Report of these predictions.
        count: Maximum number of pictures in a group.
        also: Ids of further scenes to draw.
    """
    chosen = _chosen(ranked(report, evaluated=True), count)
    if not chosen:
        chosen = {"Nothing to find, and nothing found": [i for i, _ in ranked(report)[:count]]}
    taken = [one for ids in chosen.values() for one in ids]
    figures = dict(ranked(report))
    shown = {}
    for scene in source.subset([*taken, *also]):
        picture = _draw_panels(predictions, scene, report.building_class)
        good, encoded = cv2.imencode(
            ".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )
        assert good
        address = f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
        shown[scene.id] = GalleryPicture(scene.id, _title(report, figures[scene.id]), address)
    named = tuple((name, tuple(shown[one] for one in ids)) for name, ids in chosen.items())
    return Gallery(named, shown)


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


def _draw_panels(predictions: Predictions, scene: Scene, building_class: int) -> NDArray[np.uint8]:
    """Draw image, truth, prediction and errors side by side; for a large scene every n-th pixel."""
    assert scene.label is not None
    truth = scene.label.read(Window.whole(scene.image.grid.shape))
    predicted = predictions.predict(scene).mask
    # Twice as many pixels as are shown, so that edges are smooth.
    step = max(1, max(truth.data.shape) // (2 * _PANEL_PX))
    has_image = not isinstance(scene.image, BlankSource)
    return side_by_side(
        _thin_image(scene.image, step) if has_image else None,
        _thin_mask(truth, step), _thin_mask(predicted, step), "", predictions.legend,
        building_class=building_class, panel_px=_PANEL_PX,
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
_ROWS = 100
"""Maximum number of scenes in the table; report.json has all."""

_LISTED_LEAKS = 12

_POOLED = (
    "counts of pixels and buildings are added over all scenes, then ratios are taken; “mean per "
    "image” averages the ratios of the scenes, and a scene without the class in truth and "
    "prediction counts as 1"
)
_MATCHED = (
    "matched one to one where their IoU is above 0.5; where labels do not separate buildings, "
    "connected regions count; buildings with less than half of their area known are left out"
)


@dataclass(frozen=True)
class _Row:
    """One figure of every model.

    Args:
        name: Name of the figure.
        cells: Value and limits of each model.
        best: Position of the model with the highest value; -1 where there is only one model, or no
            single best.
    """

    name: str
    cells: tuple[tuple[str, str], ...]
    best: int = -1


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
    first = evaluation.first
    reports = evaluation.columns
    leaked = [scene for leak in evaluation.leaks for scene in leak.scenes][:_IN_A_GALLERY]
    pictures = draw_gallery(predictions[0], source, first, _IN_A_GALLERY, also=leaked)
    return render_page(
        "evaluation.html",
        {"number": _number, "share": _share, "figure": _figure, "p_value": _p_value},
        first=first,
        reports=reports,
        several=len(reports) > 1,
        leaks=[
            (report.name, leak, leak.pairs[:_LISTED_LEAKS])
            for report, leak in zip(reports, evaluation.leaks)
        ],
        leaked=[pictures.shown[i] for i in leaked if i in pictures.shown],
        rows=_rows(reports),
        comparisons=[_comparison(reports, one) for one in _compared(evaluation)],
        protocol=_protocol(reports, predictions),
        charts=draw_charts(reports),
        legend=draw_legend([report.name for report in reports]) if len(reports) > 1 else "",
        origins=[one.threshold_from for one in predictions],
        scenes=_scenes(reports, [name for name, _ in ranked(first)[:_ROWS]]),
        cell_m=first.context.get("cell_m"),
        galleries=pictures.named,
        notes=evaluation.notes,
        version=metadata.version("rooftrace"),
        confusions=[(report.name, _row_shares(report)) for report in reports],
    )


def _compared(evaluation: Evaluation) -> tuple[PairedComparison, ...]:
    """Return each other model against the baseline, or a refined model against its segmenter."""
    first = evaluation.first
    if len(evaluation.reports) == 1 and first.coarse is not None:
        (found,) = Evaluation((first.coarse, first)).comparisons
        return (replace(found, first=0, second=1),)
    return evaluation.comparisons


def _rows(reports: Sequence[EvalReport]) -> list[_Row]:
    """Return the headline figures with intervals."""
    each = [report.headline_figures for report in reports]
    return [_row(figures[0][0], [one for _, one in figures]) for figures in zip(*each)]


def _row(name: str, each: Sequence[Interval]) -> _Row:
    cells = tuple(
        (_figure(one.value), f"{one.low:.3f} – {one.high:.3f}" if one.is_known else _reason(one))
        for one in each
    )
    values = [one.value for one in each]
    highest = max((v for v in values if not math.isnan(v)), default=math.nan)
    is_best = len(each) > 1 and sum(value == highest for value in values) == 1
    return _Row(name, cells, values.index(highest) if is_best else -1)


def _comparison(reports: Sequence[EvalReport], one: PairedComparison) -> dict[str, Any]:
    """Return a comparison as a sentence and as table rows."""
    name, base = (reports[i].name for i in (one.first, one.second))
    headline = "pixel.iou" if reports[0].is_binary else "pixel.mean_iou"
    return {
        "sentence": _sentence(name, base, FIGURES[headline], one.figures[headline]),
        "name": name,
        "rows": [(FIGURES[key], test, _limits(test)) for key, test in one.figures.items()],
    }


def _sentence(name: str, base: str, figure: str, test: PairedTest) -> str:
    gap = test.difference
    if not gap.is_known:
        return f"{name} and {base} cannot be compared by {figure}: {gap.reason}."
    p = _p_value(test.p_value)
    p = f"p {p}" if p.startswith("<") else f"p = {p}"
    limits = f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}), {p}"
    if gap.low > 0 and test.p_value < 0.05:
        return f"{name} is better than {base} on scenes like these, by {figure}: {limits}."
    if gap.high < 0 and test.p_value < 0.05:
        return f"{name} is worse than {base} on scenes like these, by {figure}: {limits}."
    return f"There is no clear difference between {name} and {base} by {figure}: {limits}."


def _limits(test: PairedTest) -> str:
    gap = test.difference
    return f"{gap.low:+.3f} … {gap.high:+.3f}" if gap.is_known else _reason(gap) or "–"


def _reason(one: Interval) -> str:
    """Return why a figure has no interval; "" for a single scene, which the protocol says once."""
    return one.reason if one.count > 1 else ""


def _protocol(
    reports: Sequence[EvalReport], predictions: Sequence[Predictions]
) -> list[tuple[str, str]]:
    """Return the protocol as names and texts."""
    first = reports[0]
    context = first.context
    units = next(iter(first.intervals.values()), None)
    lines = [
        ("data", str(context.get("data", "–"))),
        ("part", str(context.get("split") or context.get("part") or "all of it")),
        (
            "scenes",
            f"{len(first.images):,}, with {first.pooled.pixels:,} pixels that were compared",
        ),
        ("classes", ", ".join(first.classes)),
        ("pooled", _POOLED),
        ("buildings", _MATCHED),
        ("edges", "the edges of images and of nodata are no outlines; nodata is left out"),
    ]
    lines.append(("boundary IoU", f"inner bands {WIDTH_PX} px wide"))
    if context.get("min_area_m2"):
        lines.append(("minimum area", f"buildings below {context['min_area_m2']:g} m² are ignored"))
    if context.get("cell_m"):
        lines.append(("density", f"cells of {context['cell_m']:g} m"))
    lines += [(report.name, ", ".join(_made_by(one))) for report, one in zip(reports, predictions)]
    if units is not None:
        lines.append(("intervals", _interval_text(units)))
    versions = context.get("versions") or {}
    lines.append(("versions", ", ".join(f"{k} {v}" for k, v in versions.items()) or "–"))
    return lines


def _interval_text(one: Interval) -> str:
    if one.count < 2:
        return f"none: there is only one {one.units}"
    drawn = f"95 %, from {DRAWS:,} draws of {one.count} {one.units}s with replacement, seed 0"
    return f"{drawn}; {one.note}" if one.note else drawn


def _made_by(predictions: Predictions) -> list[str]:
    context = predictions.context
    parts = []
    if predictions.threshold is not None:
        parts.append(f"threshold {predictions.threshold:g} ({predictions.threshold_from})")
    else:
        parts.append(predictions.threshold_from)
    if context.get("gsd_m"):
        parts.append(f"{context['gsd_m']:g} m per pixel")
    engine = context.get("engine") or {}
    if engine:
        parts.append(f"{engine['name']} {engine['precision']}")
    if "tta" in context:
        parts.append(f"mirrored tiles: {context['tta'] or 'none'}")
    if bundle := context.get("bundle"):
        parts.append(f"sha256 {bundle['sha256'][:12]}")
    return parts


def _scenes(reports: Sequence[EvalReport], names: Sequence[str]) -> list[list[ImageCounts]]:
    """Return the counts of some scenes, those of every model in the order of the reports."""
    images = [{image.id: image for image in report.images} for report in reports]
    return [[by_id[name] for by_id in images] for name in names]


def _row_shares(report: EvalReport) -> list[tuple[str, list[tuple[int, float]]]]:
    """Return for each true class its pixels by predicted class, with shares."""
    return [
        (name, [(count, count / max(sum(row), 1)) for count in row])
        for name, row in zip(report.classes, report.pooled.matrix.tolist())
    ]


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else _figure(value)


def _figure(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def _share(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}%}"
