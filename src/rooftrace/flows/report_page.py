"""An evaluation as one HTML page that needs no network: protocol, figures, curves, pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from rooftrace.data.source import SceneSet
from rooftrace.flows.candidates import Candidate
from rooftrace.flows.evaluation import Comparison, Evaluation
from rooftrace.flows.gallery import gallery, ranked
from rooftrace.flows.report_charts import draw_charts
from rooftrace.io.page import render_page
from rooftrace.metrics.interval import DRAWS, Interval
from rooftrace.metrics.paired import PairedTest
from rooftrace.metrics.report import EvalReport
from rooftrace.metrics.scene import ImageScore

__all__ = ["render"]

_IN_A_GALLERY = 4
_ROWS = 100
"""Scenes that the table lists; the JSON has all."""

_LISTED_LEAKS = 12

_POOLED = (
    "counts of pixels and buildings are added over all scenes, then ratios are taken; “mean per "
    "image” takes the ratio of each scene first, and one without the class in truth and answer "
    "counts as 1"
)
_MATCHED = (
    "match one to one where their IoU is above 0.5; where a label does not tell buildings apart, "
    "connected regions count; what is known by less than half is not judged"
)

_FIRST_OF_MANY = ("pixel.mean_iou", "pixel.accuracy")
"""What stands before all else where there are several classes."""

_FIGURES = {
    "pixel.iou": "IoU, pooled",
    "pixel.dice": "Dice, pooled",
    "pixel.precision": "Precision, pooled",
    "pixel.recall": "Recall, pooled",
    "pixel.accuracy": "Accuracy, pooled",
    "pixel.mean_iou": "Mean IoU, pooled",
    "per_image.iou": "IoU, mean per image",
    "per_image.dice": "Dice, mean per image",
    "per_image.dice_nonempty": "Dice, mean per image with buildings",
    "boundary.boundary_iou": "Boundary IoU, pooled",
    "objects.f1": "F1 of buildings",
    "objects.precision": "Precision of buildings",
    "objects.recall": "Recall of buildings",
}


@dataclass(frozen=True)
class _Row:
    """One figure of every model.

    Args:
        name: of the figure.
        cells: its value and limits, model by model.
        best: which model has the highest; -1 where there is one alone, or none is best.
    """

    name: str
    cells: tuple[tuple[str, str], ...]
    best: int = -1


def render(evaluation: Evaluation, candidates: Sequence[Candidate], source: SceneSet) -> str:
    """The whole page, text in UTF-8.

    Args:
        evaluation: what is shown.
        candidates: what was judged, in the order of the reports; the first is asked again for the
            scenes of the galleries.
        source: the scenes.
    """
    first = evaluation.first
    reports = _columns(evaluation)
    leaked = [scene for leak in evaluation.leaks for scene in leak.scenes][:_IN_A_GALLERY]
    pictures = gallery(candidates[0], source, first, _IN_A_GALLERY, also=leaked)
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
        comparisons=[_told(reports, one) for one in _compared(evaluation)],
        protocol=_protocol(reports, candidates),
        charts=draw_charts(reports),
        thresholds=_thresholds(reports, candidates),
        places=[(report.name, _places(report)) for report in reports],
        scenes=_scenes(reports, [name for name, _ in ranked(first)[:_ROWS]]),
        cell_m=first.context.get("cell_m"),
        galleries=pictures.named,
        notes=evaluation.notes,
        version=metadata.version("rooftrace"),
        confusions=[(report.name, _row_shares(report)) for report in reports],
    )


def _columns(evaluation: Evaluation) -> tuple[EvalReport, ...]:
    """The reports that stand side by side, each of a name of its own: those of the models; of a
    refined one that stands alone also that of its segmenter.
    """
    first = evaluation.first
    if len(evaluation.reports) == 1 and first.coarse is not None:
        return replace(first, name=f"{first.name}, refined"), replace(
            first.coarse, name="its segmenter alone"
        )
    names = [report.name for report in evaluation.reports]
    return tuple(
        replace(report, name=f"{report.name} ({number})")
        if names.count(report.name) > 1
        else report
        for number, report in enumerate(evaluation.reports, start=1)
    )


def _compared(evaluation: Evaluation) -> tuple[Comparison, ...]:
    """Each of the others against the first; what refinement came to against the segmenter."""
    first = evaluation.first
    if len(evaluation.reports) == 1 and first.coarse is not None:
        (found,) = Evaluation((first.coarse, first)).comparisons
        return (replace(found, first=0, second=1),)
    return evaluation.comparisons


def _rows(reports: Sequence[EvalReport]) -> list[_Row]:
    """Headline figures with intervals."""
    keys = list(_FIGURES)
    if not reports[0].is_binary:
        keys.sort(key=lambda key: key not in _FIRST_OF_MANY)
    return [
        _row(_FIGURES[key], [report.intervals[key] for report in reports])
        for key in keys
        if all(key in report.intervals for report in reports)
    ]


def _row(name: str, each: Sequence[Interval]) -> _Row:
    cells = tuple(
        (_figure(one.value), f"{one.low:.3f} – {one.high:.3f}" if one.is_known else one.reason)
        for one in each
    )
    values = [one.value for one in each]
    highest = max((v for v in values if not math.isnan(v)), default=math.nan)
    is_best = len(each) > 1 and sum(value == highest for value in values) == 1
    return _Row(name, cells, values.index(highest) if is_best else -1)


def _told(reports: Sequence[EvalReport], one: Comparison) -> dict[str, Any]:
    """A comparison in words, and its figures."""
    name, base = (reports[i].name for i in (one.first, one.second))
    headline = "pixel.iou" if reports[0].is_binary else "pixel.mean_iou"
    return {
        "sentence": _sentence(name, base, _FIGURES[headline], one.figures[headline]),
        "name": name,
        "rows": [(_FIGURES[key], test, _limits(test)) for key, test in one.figures.items()],
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
    return f"No difference between {name} and {base} can be told by {figure}: {limits}."


def _limits(test: PairedTest) -> str:
    gap = test.difference
    return f"{gap.low:+.3f} … {gap.high:+.3f}" if gap.is_known else gap.reason


def _protocol(
    reports: Sequence[EvalReport], candidates: Sequence[Candidate]
) -> list[tuple[str, str]]:
    """What was done, line by line."""
    first = reports[0]
    context = first.context
    units = next(iter(first.intervals.values()), None)
    lines = [
        ("data", str(context.get("data", "–"))),
        ("part", str(context.get("split") or context.get("part") or "all of it")),
        ("scenes", f"{len(first.images):,}, {first.pooled.pixels:,} pixels that are judged"),
        ("classes", ", ".join(first.classes)),
        ("pooled", _POOLED),
        ("buildings", _MATCHED),
        ("edges", "borders of an image and of nodata are no outlines; nodata is not judged"),
    ]
    if context.get("min_area_m2"):
        lines.append(("least area", f"buildings below {context['min_area_m2']:g} m² do not count"))
    if context.get("cell_m"):
        lines.append(("density", f"cells of {context['cell_m']:g} m"))
    lines += [
        (report.name, ", ".join(_made_by(candidate)))
        for report, candidate in zip(reports, candidates)
    ]
    if units is not None:
        lines.append(("intervals", _drawn(units)))
    versions = context.get("versions") or {}
    lines.append(("versions", ", ".join(f"{k} {v}" for k, v in versions.items()) or "–"))
    return lines


def _drawn(one: Interval) -> str:
    if one.count < 2:
        return f"none: there is only one {one.units}"
    drawn = f"95 %, {one.count} {one.units}s drawn anew, {DRAWS:,} times, seed 0"
    return f"{drawn}; {one.note}" if one.note else drawn


def _made_by(candidate: Candidate) -> list[str]:
    context = candidate.context
    told = []
    if candidate.threshold is not None:
        told.append(f"threshold {candidate.threshold:g} ({candidate.threshold_from})")
    else:
        told.append(candidate.threshold_from)
    if context.get("gsd_m"):
        told.append(f"{context['gsd_m']:g} m per pixel")
    engine = context.get("engine") or {}
    if engine:
        told.append(f"{engine['name']} {engine['precision']}")
    if "tta" in context:
        told.append(f"mirrored tiles: {context['tta'] or 'none'}")
    if bundle := context.get("bundle"):
        told.append(f"sha256 {bundle['sha256'][:12]}")
    return told


def _thresholds(
    reports: Sequence[EvalReport], candidates: Sequence[Candidate]
) -> list[dict[str, Any]]:
    """Of each model with probabilities what was used, and what would be best here."""
    return [
        {
            "name": report.name,
            "used": report.context["threshold"],
            "origin": candidates[min(number, len(candidates) - 1)].threshold_from,
            "iou": report.pooled.iou(report.building_class),
            "best": report.curve.best("iou"),
            "best_iou": float(report.curve.iou().max()),
            "average_precision": report.curve.average_precision(),
        }
        for number, report in enumerate(reports)
        if report.curve is not None and report.context.get("threshold") is not None
    ]


def _places(report: EvalReport) -> list[dict[str, Any]]:
    index = report.building_class
    return [
        {
            "name": name or "(no group)",
            "scenes": len(place.images),
            "pixels": place.pooled.pixels,
            "iou": place.pooled.iou(index),
            "dice": place.pooled.dice(index),
            "precision": place.pooled.precision(index),
            "recall": place.pooled.recall(index),
            "boundary_iou": place.outlines.iou,
            "f1": place.objects.f1,
            "labelled": place.objects.labelled,
        }
        for name, place in report.places.items()
    ]


def _scenes(reports: Sequence[EvalReport], names: Sequence[str]) -> list[dict[str, Any]]:
    """Figures of some scenes: of the first model all, of the others the headline."""
    images = [{image.id: image for image in report.images} for report in reports]
    return [
        _scene(reports[0], images[0][name])
        | {
            "others": [
                report.headline(of[name].counts) for report, of in zip(reports[1:], images[1:])
            ]
        }
        for name in names
    ]


def _scene(report: EvalReport, image: ImageScore) -> dict[str, Any]:
    index = report.building_class
    return {
        "id": image.id,
        "group": image.group,
        "figure": report.headline(image.counts),
        "precision": image.counts.precision(index),
        "recall": image.counts.recall(index),
        "boundary_iou": image.outlines.iou,
        "f1": image.objects.f1,
        "labelled": image.objects.labelled,
        "predicted": image.objects.predicted,
        "pixels": image.counts.pixels,
    }


def _row_shares(report: EvalReport) -> list[tuple[str, list[tuple[int, float]]]]:
    """Of each class of the truth its pixels by what they were taken for, with shares."""
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
