"""Result of an evaluation: a report of each model or tool, comparisons, leakage, and the page.

Leakage means scenes that show ground on which a model was trained. The training scenes are known
from the fingerprint in its bundle. The page is one HTML file that needs no network; its pictures
show scenes from the worst to the best: image, truth, prediction and errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from rooftrace.audit.duplicates import NO_HASH
from rooftrace.audit.keypoints import Keypoints, detect_keypoints, match_scenes, shows_overlaps
from rooftrace.core.report import Report
from rooftrace.core.text import distinct, list_first
from rooftrace.core.types import Mask, RasterSource, Scene, Window
from rooftrace.flows.evaluate.predictions import Predictions
from rooftrace.flows.labelled_predictions import LabelledSets
from rooftrace.io.georeferenced import BlankSource
from rooftrace.io.html import Axis, Series, draw_chart, draw_legend, render_page
from rooftrace.io.picture import PagePicture, data_url, encoded, side_by_side
from rooftrace.labels.source import SceneEntry, SceneSet, map_entries
from rooftrace.metrics.boundary import WIDTH_PX
from rooftrace.metrics.objects import F1_IOUS
from rooftrace.metrics.report import FIGURES, EvalReport
from rooftrace.metrics.resampling import DRAWS, EXCHANGES, Interval, PairedTest
from rooftrace.models.bundle import ModelBundle
from rooftrace.models.fingerprint import Fingerprint

_SPOILED = 0.1
"""Share of the scenes, on ground that a model was trained on, above which it is not compared."""

Status = Literal["none", "found", "unknown"]
"""Result of the check; `unknown` means that nothing was found, but not all could be compared."""


@dataclass(frozen=True)
class LeakedScene:
    """A scene of the evaluation that shows ground of a training scene.

    Args:
        train_id: The training scene: `SET, scene N of M` in the order of the ids.
        bits: Number of differing bits, of 64, between the hashes (for keypoints the median).
        likeness: Similarity in 0..1: the share of agreeing keypoints where both scenes lie, for
            copies of whole scenes the share of equal bits.
    """

    scene_id: str
    train_id: str
    bits: float
    likeness: float


@dataclass(frozen=True)
class LeakageReport(Report):
    """Result of a leakage check.

    Args:
        status: `found` where there is any pair.
        pairs: The most similar first; a scene has one pair for each matching training scene.
        notes: Method of the check, and what it does not cover, for the user.
        too_small: Number of scenes without a pair of which only whole copies are found, not an
            overlap.
        fitted: The scenes on which the threshold, calibration or weights were fitted; None where no
            such scene is among them.
    """

    status: Status
    checked: int
    pairs: tuple[LeakedScene, ...]
    notes: tuple[str, ...]
    too_small: int = 0
    fitted: LeakageReport | None = None

    @property
    def uses(self) -> tuple[tuple[Literal["trained", "fitted"], LeakageReport], ...]:
        """The uses of scenes that were looked for, each with its report."""
        return (("trained", self), *((("fitted", self.fitted),) if self.fitted else ()))

    @property
    def scenes(self) -> tuple[str, ...]:
        """Ids of the scenes that show training ground, the most similar first."""
        return tuple(dict.fromkeys(pair.scene_id for pair in self.pairs))

    @property
    def spoils_comparison(self) -> bool:
        """True if so many scenes show training ground that the model looks better than it is."""
        return len(self.scenes) > _SPOILED * self.checked

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"scenes": len(self.scenes)}


def check_leakage(bundles: Sequence[ModelBundle], source: SceneSet) -> tuple[LeakageReport, ...]:
    """Look for ground on which each of some models, or any member of an ensemble, was trained.

    Args:
        bundles: The models; an ensemble is checked by its members.
        source: Scenes of the evaluation; each is read once for all models of one scale, a large one
            by windows.
    """

    @cache
    def keypoints(gsd_m: float | None, model_gsd_m: float | None) -> tuple[Keypoints, ...]:
        """Return those of the scenes, computed once for all models of one scale."""
        return map_entries(source, partial(_detect, gsd_m=gsd_m, assumed_gsd_m=model_gsd_m))

    return tuple(_of_model(one, source, keypoints) for one in bundles)


def leak_notes(leaks: Sequence[LeakageReport], names: Sequence[str]) -> tuple[str, ...]:
    """Return notes on scenes that show ground on which a model was trained or fitted."""
    return tuple(
        f"{len(found.scenes)} of {found.checked} scenes show ground that {name} was {use} on: "
        f"{list_first(found.scenes)}"
        for leak, name in zip(leaks, names)
        for use, found in leak.uses
        if found.scenes
    )


def training_ground_notes(bundles: Sequence[ModelBundle], data: LabelledSets) -> tuple[str, ...]:
    """Return notes on data to fit models to that show ground on which one was trained."""
    names = [bundle.spec.name for bundle in bundles]
    notes: list[str] = []
    for source in data.sources:
        leaks = [replace(leak, fitted=None) for leak in check_leakage(bundles, source)]
        notes += leak_notes(leaks, names)
    advice = "What is fitted to training ground may not hold elsewhere: fit on other images."
    return (*notes, advice) if notes else ()


def _of_model(bundle: ModelBundle, source: SceneSet, keypoints: _KeypointsAt) -> LeakageReport:
    members = bundle.members or (bundle,)
    prints = [(m, m.spec.fingerprint, "the model was trained on") for m in members]
    begun = "its start model was trained on"
    prints += [(m, one, begun) for m in members for one in m.spec.start_fingerprints]
    trained = _joined([m for m, *_ in prints], [_check(*one, source, keypoints) for one in prints])
    used = [one for one in (bundle, *bundle.members) if one.spec.fitted_fingerprint is not None]
    if not used:
        return trained
    use = "the model was fitted to"
    checks = [_check(one, one.spec.fitted_fingerprint, use, source, keypoints) for one in used]
    fitted = _joined(used, checks)
    return replace(trained, fitted=fitted if fitted.scenes else None)


def _joined(members: Sequence[ModelBundle], reports: Sequence[LeakageReport]) -> LeakageReport:
    if len(reports) == 1:
        return reports[0]
    names = [bundle.spec.name for bundle in members]
    # The training scenes of one model and of those that it started from.
    before = [f"{name}: " if len(set(names)) > 1 else "" for name in names]
    every: list[Status] = [report.status for report in reports]
    return LeakageReport(
        "found" if "found" in every else "unknown" if "unknown" in every else "none",
        max(report.checked for report in reports),
        _ordered([
            replace(pair, train_id=name + pair.train_id)
            for name, report in zip(before, reports)
            for pair in report.pairs
        ]),
        tuple(dict.fromkeys(n + note for n, one in zip(before, reports) for note in one.notes)),
        max(report.too_small for report in reports),
    )  # fmt: skip


_KeypointsAt = Callable[[float | None, float | None], tuple[Keypoints, ...]]


def _detect(
    source: SceneSet, entry: SceneEntry, *, gsd_m: float | None, assumed_gsd_m: float | None
) -> Keypoints:
    return detect_keypoints(source.open_scene(entry), gsd_m, assumed_gsd_m=assumed_gsd_m)


def _check(
    bundle: ModelBundle, fingerprint: Fingerprint | None, use: str, source: SceneSet,
    keypoints_at: _KeypointsAt,
) -> LeakageReport:  # fmt: skip
    if fingerprint is None:
        note = "The bundle has no fingerprint of its training scenes."
        return LeakageReport("unknown", 0, (), (note,))
    notes = []
    if fingerprint.share < 1:
        notes.append(
            f"The model file has fingerprints of {fingerprint.share:.0%} of its training scenes, "
            "an even sample: ground of the others is not found."
        )
    keypoints = keypoints_at(fingerprint.gsd_m, bundle.spec.gsd_m)
    trained, numbers = fingerprint.unpack(bundle.source)
    pairs = [
        LeakedScene(
            source.entries[one.first].id,
            _name_of(fingerprint, numbers[one.second]),
            one.bits,
            round(one.share, 3),
        )
        for one in match_scenes(keypoints, trained)
    ]
    shows = [shows_overlaps(one, fingerprint.finds_px) for one in keypoints]
    leaked = {pair.scene_id for pair in pairs}
    too_small = sum(not one and i not in leaked for i, one in zip(source.ids, shows))
    notes += _limits(fingerprint, use, too_small, len(keypoints))
    checked = sum(one or each.whole != NO_HASH for one, each in zip(shows, keypoints))
    is_partial = too_small > 0 or fingerprint.share < 1
    status: Status = "found" if pairs else "unknown" if is_partial else "none"
    return LeakageReport(status, checked, _ordered(pairs), tuple(notes), too_small)


def _name_of(fingerprint: Fingerprint, number: int) -> str:
    which, place = fingerprint.place_of(number)
    trained = fingerprint.sets[which]
    return f"{trained.name}, scene {place + 1} of {trained.scenes}"


def _limits(fingerprint: Fingerprint, use: str, too_small: int, scenes: int) -> list[str]:
    """Return notes on what the check cannot find."""
    side = fingerprint.finds_px
    size = f"{side * fingerprint.gsd_m:.0f} m" if fingerprint.gsd_m else f"{2 * side} px"
    if too_small:
        note = (
            f"Cannot tell for {too_small} of the {scenes} scenes if they show ground that {use}: "
            f"they are smaller than about {size} by {size}, or show too little. Of such scenes, "
            "only whole copies are found."
        )
        return [note]
    return [f"Ground that {use} is found if scenes share about {size} by {size} of it."]


def _ordered(pairs: Sequence[LeakedScene]) -> tuple[LeakedScene, ...]:
    return tuple(sorted(pairs, key=lambda p: (-p.likeness, p.bits, p.scene_id, p.train_id)))


_COMPARED = ("pixel.iou", "pixel.dice", "per_image.dice", "boundary.boundary_iou", "objects.f1")
_COMPARED_CLASSES = ("pixel.mean_iou", *_COMPARED)

_MAIN = (
    "pixel.iou", "pixel.precision", "pixel.recall", "per_image.dice", "boundary.boundary_iou",
    "objects.f1",
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """Reports of models and tools on the same scenes.

    Args:
        reports: Report of each, in the order in which they were given.
        leaks: Training data leakage of each model; empty where it was not checked.
        baseline: Position of the report with which the others are compared.
    """

    reports: tuple[EvalReport, ...]
    leaks: tuple[LeakageReport, ...] = ()
    baseline: int = 0

    @property
    def first(self) -> EvalReport:
        """Report of the first model, which has pictures."""
        return self.reports[0]

    @property
    def columns(self) -> tuple[EvalReport, ...]:
        """Reports to show side by side, each with a unique name."""
        names = distinct([report.name for report in self.reports])
        return tuple(replace(report, name=name) for report, name in zip(self.reports, names))

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, starting with those that put the figures in doubt."""
        notes = list(self.warnings)
        notes += self._leakage_notes()
        notes += [note for report in self.reports for note in report.notes]
        units = next(iter(self.first.intervals.values()), None)
        if units is not None and units.note:
            notes.append(f"95 % intervals: {units.note}.")
        return tuple(dict.fromkeys(notes))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Notes on models hardly better than calling all ground building, and on scenes that show
        ground on which a model was trained or fitted.
        """
        trivial = (one.trivial for one in self.reports if one.trivial)
        return (*trivial, *leak_notes(self.leaks, [report.name for report in self.reports]))

    def _leakage_notes(self) -> list[str]:
        """Return the notes of the leakage checks; those of several models name the models."""
        if len(self.leaks) == 1:
            return list(self.leaks[0].notes)
        models: dict[str, list[str]] = {}
        for leak, report in zip(self.leaks, self.reports):
            for note in leak.notes:
                models.setdefault(note, []).append(report.name)
        return [f"{', '.join(names)}: {note}" for note, names in models.items()]

    @cached_property
    def comparisons(self) -> dict[int, dict[str, PairedTest]]:
        """Tests of each other model against the baseline, by its position among the reports.

        Those of a model are by figure, such as `pixel.iou`; a difference is positive where it is
        better than the baseline.
        """
        names = _COMPARED if self.first.is_binary else _COMPARED_CLASSES
        counts = [report.scene_counts for report in self.reports]
        return {
            number: one.against(counts[self.baseline], names)
            for number, one in enumerate(counts)
            if number != self.baseline
        }

    @property
    def headline(self) -> str:
        """Figure by which models are compared first."""
        return (_COMPARED if self.first.is_binary else _COMPARED_CLASSES)[0]

    @property
    def main_figures(self) -> set[str]:
        """Names of the figures that are shown at once; the page folds the others."""
        return {FIGURES[key] for key in (*_MAIN, self.headline)}

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints.

        For one model it is the report. For several it has the report of each in `reports`, and in
        `comparisons` each other model against the baseline.
        """
        beside = {"leaks": [leak.to_json() for leak in self.leaks], "notes": list(self.notes)}
        if len(self.reports) == 1:
            return self.first.to_json() | beside
        return {
            "reports": [report.to_json() for report in self.reports],
            "comparisons": [
                {
                    "first": self.reports[number].name,
                    "second": self.reports[self.baseline].name,
                    "figures": {name: test.to_json() for name, test in tests.items()},
                }
                for number, tests in self.comparisons.items()
            ],
            **beside,
        }


_QUALITY = 80
_PANEL_PX = 360
"""Longest side in pixels of a panel on the page, which holds a dozen pictures."""

_READ_PX = 1 << 22
"""Maximum number of pixels of an image that are read at once."""


Gallery = dict[str, list[PagePicture]]
"""Pictures of scenes by the title of their group; a scene is in one group only."""


def ranked(report: EvalReport, *, evaluated: bool = False) -> list[tuple[str, float]]:
    """Return images with their headline figure, from the worst to the best.

    Images with nothing to compare (NaN) count as right.
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
        url = data_url(encoded(Image.fromarray(picture), "JPEG", quality=_QUALITY))
        shown[scene.id] = PagePicture(scene.id, _title(report, figures[scene.id]), url)
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
    charts: dict[str, Markup] = {}
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
        charts["precision_recall"] = draw_chart(
            recall_precision, Axis.between("recall"), Axis.between("precision")
        )
        charts["iou"] = draw_chart(over_threshold, Axis.between("threshold"), Axis.between("IoU"))
    if any(report.objects.labelled or report.objects.predicted for report in reports):
        lines = [
            Series(r.name, F1_IOUS, [r.objects.f1_at(iou) for iou in F1_IOUS], dots=True)
            for r in reports
        ]
        charts["f1"] = draw_chart(
            lines, Axis.between("IoU that a match needs", 0.5), Axis.between("F1")
        )
    if any(report.reliability is not None for report in reports):
        lines = [
            Series(report.name, one.mean_score.tolist(), one.share_right.tolist(), dots=True)
            if (one := report.reliability) is not None
            else Series(report.name, (), ())
            for report in reports
        ]
        charts["reliability"] = draw_chart(
            lines, Axis.between("score"), Axis.between("share that is right"), diagonal=True
        )
    return charts


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
    evaluation: Evaluation, predictions: Sequence[Predictions], source: SceneSet, verdict: str = ""
) -> str:
    """Return the whole page as text for UTF-8.

    Args:
        predictions: The evaluated models and tools, in the order of the reports; the first predicts
            the scenes of the galleries again.
        verdict: Sentence on the comparison; default: one on the headline figure.
    """
    first, reports = evaluation.first, evaluation.columns
    leaked = [s for one in evaluation.leaks for _, leak in one.uses for s in leak.scenes]
    galleries = draw_gallery(predictions, source, first, _IN_A_GALLERY, also=leaked[:_IN_A_GALLERY])
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
        verdict=verdict,
        is_spoiled=any(leak.spoils_comparison for leak in evaluation.leaks),
        leaks=[
            (report.name, use, leak, leak.pairs[:_LISTED_LEAKS])
            for report, one in zip(reports, evaluation.leaks)
            for use, leak in one.uses
        ],
        leaked=galleries.pop(""),
        rows=[row for row in rows if row[0] in main],
        more_rows=[row for row in rows if row[0] not in main],
        comparisons=evaluation.comparisons,
        base=reports[evaluation.baseline].name,
        headline=evaluation.headline,
        figure_names=FIGURES,
        context=first.context,
        units=next(iter(first.intervals.values()), None),
        draws=DRAWS,
        exchanges=EXCHANGES,
        width_px=WIDTH_PX,
        charts=draw_charts(reports),
        legend=draw_legend([report.name for report in reports]) if len(reports) > 1 else "",
        predictions=predictions,
        scenes=[[by_id[name] for by_id in images] for name, _ in ranked(first)[:_ROWS]],
        galleries=galleries,
        notes=dict.fromkeys(note for report in evaluation.reports for note in report.notes),
    )


def _row(names: Sequence[str], each: Sequence[Interval]) -> tuple[str, list[Interval], int]:
    """Return a figure's name, its values, and the position of the single highest value, or -1."""
    values = [one.value for one in each]
    highest = max((v for v in values if not math.isnan(v)), default=math.nan)
    is_best = len(each) > 1 and sum(value == highest for value in values) == 1
    return names[0], list(each), values.index(highest) if is_best else -1


def _figure(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"
