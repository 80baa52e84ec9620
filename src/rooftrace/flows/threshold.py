"""`rooftrace fit` of one model: the threshold that is best on labelled data, and the calibration.

The network runs once. The search then compares thresholds on the stored probabilities.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.types import Floats, Progress, Window
from rooftrace.flows.evaluate.evaluation import training_ground_notes
from rooftrace.flows.evaluate.label_doubts import doubts_of
from rooftrace.flows.evaluate.predictions import in_pixels
from rooftrace.flows.labelled_predictions import (
    LabelledSets,
    SetProbabilities,
    footprints_at,
    level_of,
    predict_set,
    protocol_of,
    threshold_at,
)
from rooftrace.io.gdal import number_polygons
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.derived import building_instances, label_instances
from rooftrace.labels.source import SceneSet
from rooftrace.metrics.calibration import BuildingOutcomes, SceneOutcomes, fit_calibration
from rooftrace.metrics.objects import match_predicted
from rooftrace.metrics.pixel import (
    NEARLY_BEST,
    ThresholdCurve,
    middle_of_best,
    middle_of_plateau,
    plateau_of,
)
from rooftrace.metrics.resampling import share_of
from rooftrace.models.bundle import check_bundle_path, write_bundle
from rooftrace.models.spec import BundleSpec, Calibration, MeasuredMetrics, doubt_of
from rooftrace.predict.model_set import (
    is_ensemble,
    members_from,
    read_ensemble,
    read_models,
    write_ensemble,
)
from rooftrace.predict.plan import AS_FOUND, MIN_SCORE, SceneOptions
from rooftrace.tiling.plan import PROB_ONE

ThresholdMetric = Literal["dice", "iou", "f1", "iou_f1"]
"""Figures to maximise: `dice` and `iou` of pixels, pooled over the images of a set; `f1` of
buildings, matched one to one where their IoU is above 0.5; `iou_f1`, the mean of both."""

_GRID = tuple(level_of(step / 20) for step in range(1, 20))
"""Levels at which buildings are drawn first; then half way to the neighbours of the best level,
twice."""

_HALVINGS, _NEAR_HALVINGS = 2, 1

_NEAR = tuple(round(step * PROB_ONE / 10) for step in range(-2, 3))
"""Distances from the level of a start model, at which those of a tuned model are drawn first."""

SetFigures = dict[str, float]
"""Figures of one set at one threshold: IoU, Dice, precision and recall of pixels, IoU of calling
all ground building, and F1 of the buildings that `rooftrace predict` writes, where they were drawn;
NaN where one is not defined."""


class ThresholdSearchSet:
    """One set of data, with its counts so far."""

    def __init__(self, spec: BundleSpec, scored: SetProbabilities, part: str = "val") -> None:
        self.scored = scored
        self.curve: ThresholdCurve = scored.curve()
        # All buildings are drawn, with the scores that a calibration is fitted to.
        self._spec = spec.model_copy(update={"calibration": None})
        self._part, self._labelled = part, 0
        self._outcomes: dict[int, BuildingOutcomes] = {}

    def figures(self, level: int, calibration: Calibration | None = None) -> SetFigures:
        """Return the known figures of a model at a level, with its calibration."""
        names = ("iou", "dice", "precision", "recall")
        figures = {name: float(getattr(self.curve, name)()[level - 1]) for name in names}
        figures["iou_all_building"], figures["f1"] = self.curve.prevalence, math.nan
        if (drawn := self._outcomes.get(level)) is not None:
            kept = np.ones(len(drawn.score), np.bool_)
            if calibration is not None:
                kept = calibration.apply(drawn.score, drawn.divided) >= MIN_SCORE
            matched, predicted = int((drawn.right & kept).sum()), int(kept.sum())
            figures["f1"] = share_of(2 * matched, self._labelled + predicted)
        return figures

    def outcomes(self, level: int) -> BuildingOutcomes:
        """Return the buildings that are drawn at a level, matched with the labels."""
        self.draw([level])
        return self._outcomes[level]

    def draw(self, levels: Sequence[int]) -> None:
        """Draw the buildings at several levels, and match them with the labels."""
        found: dict[int, list[SceneOutcomes]] = {
            level: [] for level in levels if level not in self._outcomes
        }
        if not found:
            return
        self._labelled = 0
        for scene, scored in zip(self.scored.source, self.scored):
            assert scene.label is not None
            is_building = scene.label.read().data == self._spec.building_class
            labelled = building_instances(is_building, label_instances(scene.label))
            for level, scenes in found.items():
                made = footprints_at(self._spec, scene, scored, level, self.scored.images)
                grid = scene.image.grid
                drawn = number_polygons(in_pixels(made, grid), Window.whole(grid.shape))
                numbers, right, count = match_predicted(labelled, drawn, scored.evaluated)
                which = numbers.astype(np.int64) - 1
                assert made.divided is not None
                scenes.append((made.score[which], right, made.divided[which]))
            self._labelled += count
        for level, scenes in found.items():
            name = self.scored.source.name
            self._outcomes[level] = BuildingOutcomes.of_scenes(name, self._part, scenes)


def fitted_at(
    sets: Sequence[ThresholdSearchSet], level: int, protocol: str = ""
) -> tuple[tuple[SetFigures, ...], Calibration | None, str]:
    """Fit the calibration at a level, and return the figures of the sets with it, the calibration,
    and the reason where none could be fitted.
    """
    calibration, reason = fit_calibration([one.outcomes(level) for one in sets], protocol=protocol)
    return tuple(one.figures(level, calibration) for one in sets), calibration, reason


def best_level(
    sets: Sequence[ThresholdSearchSet], metric: ThresholdMetric, before: int,
    near: int | None = None,
) -> tuple[int, list[int], Floats]:  # fmt: skip
    """Return a good level, all levels that were tried, and the mean over the sets at each.

    The level is the middle of those that are nearly as good as the best, see `middle_of_plateau`.
    """
    if metric in ("dice", "iou"):
        levels = list(range(1, PROB_ONE + 1))
        mean = np.mean([getattr(one.curve, metric)() for one in sets], axis=0)
        values: Floats = np.asarray(mean, np.float64)
        return levels[middle_of_plateau(np.array(levels), values)], levels, values
    tried, halvings = set(_GRID), _HALVINGS
    if near is not None:
        halvings = _NEAR_HALVINGS
        tried = {one for one in (near + apart for apart in _NEAR) if 0 < one < PROB_ONE}
    for halving in range(halvings + 1):
        levels = sorted(tried)
        for one in sets:
            one.draw([*levels, before])
        values = np.array([_mean_value(fitted_at(sets, level)[0], metric) for level in levels])
        best = middle_of_best(values)
        if halving < halvings:
            around = levels[max(best - 1, 0) : best + 2]
            tried |= {(a + b) // 2 for a, b in pairwise(around)}
    return levels[middle_of_plateau(np.array(levels), values)], levels, values


def _mean_value(figures: Sequence[SetFigures], metric: ThresholdMetric) -> float:
    """Return the mean of a figure over sets, each of which has the same weight; 0 if undefined."""
    names = ("iou", "f1") if metric == "iou_f1" else (metric,)
    means = [np.mean([one[name] for name in names]) for one in figures]
    return float(np.nan_to_num(np.mean(means)))


@dataclass(frozen=True)
class ThresholdReport:
    """Result of `rooftrace fit` for one model.

    Args:
        metric: The figure that was maximised, as the mean over the sets.
        thresholds, curve: (n,) thresholds that were tried, and the mean of the metric over the sets
            at each.
        calibration: Calibration at the new threshold; None if none could be fitted.
        metrics: Figures at the new threshold, for the contract.
    """

    out: Path
    metric: ThresholdMetric
    before: float
    after: float
    names: tuple[str, ...]
    figures_before: tuple[SetFigures, ...]
    figures_after: tuple[SetFigures, ...]
    thresholds: tuple[float, ...]
    curve: tuple[float, ...]
    calibration: Calibration | None
    metrics: tuple[MeasuredMetrics, ...]
    notes: tuple[str, ...] = ()

    @property
    def update(self) -> dict[str, Any]:
        """Values of the contract that change."""
        return {
            "threshold": self.after, "calibration": self.calibration, "metrics": self.metrics,
        }  # fmt: skip

    @property
    def plateau(self) -> tuple[float, float]:
        """First and last of the thresholds whose metric is within half a point of the best."""
        good = plateau_of(np.asarray(self.curve))
        return self.thresholds[good[0]], self.thresholds[good[-1]]

    @property
    def value(self) -> float:
        """Mean of the metric over the sets at the new threshold."""
        return _mean_value(self.figures_after, self.metric)

    def to_json(self) -> dict[str, Any]:
        calibration = self.calibration
        return {
            "bundle": str(self.out),
            "metric": self.metric,
            "threshold": {"before": self.before, "after": self.after},
            "value": {
                "before": round(_mean_value(self.figures_before, self.metric), 5),
                "after": round(self.value, 5),
            },
            "plateau": list(self.plateau),
            "data": [
                {"data": name, "before": rounded_figures(before), "after": rounded_figures(after)}
                for name, before, after in zip(self.names, self.figures_before, self.figures_after)
            ],
            "curve": [[t, round(v, 5)] for t, v in zip(self.thresholds, self.curve)],
            "calibration": None if calibration is None else calibration.map.model_dump(mode="json"),
            "notes": list(self.notes),
        }


def rounded_figures(figures: SetFigures) -> SetFigures:
    """Return the figures that are defined, with five decimals, for records."""
    return {name: round(value, 5) for name, value in figures.items() if not math.isnan(value)}


def run_threshold(
    model: Path | None,
    folders: Sequence[SourceConfig],
    out: Path,
    *,
    metric: ThresholdMetric = "iou",
    keep: bool = False,
    split: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    images: SceneOptions = AS_FOUND,
    progress: Progress | None = None,
) -> ThresholdReport:
    """Choose a threshold: find the middle of those that are good on labelled data, calibrate the
    model at it, and write the new model.

    The network runs once over each image as `rooftrace predict` runs it. The search compares
    thresholds in the 255ths in which probabilities are stored. For `f1`, buildings are drawn at
    about twenty thresholds. The figure at the old threshold is that of the nearest 255th. Only the
    threshold, the calibration and the recorded figures change: figures for the old threshold are
    replaced by those measured here.

    Args:
        model: A bundle or an ensemble file; None for the default model.
        folders: Labelled data that the model was not trained on; the mean over the folders is
            maximised.
        out: Path of the new bundle, or of the new ensemble file.
        keep: True to keep the threshold and the recorded figures, and to fit the calibration alone.
        split: `FILE:PART` to choose scenes; None for all.
        engine, precision: Engine and precision; default as in `rooftrace predict`.
        images: Bands, stretch and scale with which images are read.
        progress: Function called with the number of images done and their total number, over two
            rounds.

    Raises:
        ConfigError: The model has more than two classes; `out` has the file ending of another kind.
        DataError: There is no data, it has no labelled image or no building, or it cannot be read.
        BundleError, PredictError, ExportError: The model cannot be used, or `out` cannot be
            written.
    """
    if is_ensemble(model) != is_ensemble(out):
        kind, ending = ("ensemble", ".json") if is_ensemble(model) else ("bundle", ".rooftrace")
        raise ConfigError(
            f"{out} was given for the new {kind}; expected a name that ends in {ending}.",
            remedy=f"For example: -o better{'.ensemble' if is_ensemble(model) else ''}{ending}",
        )
    if not is_ensemble(out):
        check_bundle_path(out)
    loaded = read_models(model, engine=engine, precision=precision).ready()
    data = LabelledSets.open(loaded, folders, split, images, progress)
    data.rounds, spec = 2, loaded.bundle.spec
    with TemporaryDirectory(prefix="rooftrace-") as scratch:
        scored = [
            predict_set(loaded, source, Path(scratch) / str(number), data)
            for number, source in enumerate(data.sources)
        ]
        report = choose_threshold(
            spec, scored, data, out, protocol=protocol_of(loaded), metric=metric, keep=keep
        )
        doubts = [note for one in scored for note in doubts_of(one, report.after)]
    ground = training_ground_notes([loaded.bundle], data)
    report = replace(report, notes=(*ground, *doubts, *report.notes))
    update = report.update | {"fitted_fingerprint": data.fingerprint(spec.gsd_m)}
    if model is None or not is_ensemble(model):
        update |= {"name": out.stem}
        write_bundle(out, spec.model_copy(update=update), loaded.bundle.parts)
    else:
        file = read_ensemble(model)
        digests = [one.sha256 for one in file.members]
        members = members_from([one.at(model) for one in file.members], digests, out)
        write_ensemble(out, file.model_copy(update={**update, "members": members}))
    return report


def choose_threshold(
    spec: BundleSpec,
    scored: Sequence[SetProbabilities],
    data: LabelledSets,
    out: Path,
    *,
    protocol: str,
    metric: ThresholdMetric = "iou",
    keep: bool = False,
    start: BundleSpec | None = None,
    least_f1: float | None = None,
    is_small: bool = False,
) -> ThresholdReport:
    """Choose the threshold of a model by its stored probabilities, and calibrate the model at it.

    Args:
        data: The sets, and the progress.
        out: File that the model will be written to, for the report.
        protocol: How the sets were predicted, see `protocol_of`.
        start: Contract of the model that this one was tuned from: the metric is maximised near its
            threshold where F1 does not fall. Of the thresholds within half a point of the best, the
            one nearest to it is taken.
        least_f1: F1 of the start model; default that at the old threshold.
        is_small: True for data that is too small for a choice: the threshold of `start` is taken,
            and its calibration if none can be fitted.

    Raises:
        DataError: No pixel of a set is predicted and labelled as a building.
    """
    before, near = level_of(spec.threshold), None if start is None else level_of(start.threshold)
    sets = [ThresholdSearchSet(spec, one, data.part) for one in scored]
    for one in sets:
        check_buildings(one.curve.prevalence > 0, one.scored.source)
    if keep or (near is not None and is_small):
        after = before if near is None else near
        levels, values = [after], np.zeros(1)
    else:
        after, levels, values = best_level(sets, metric, before, near)
    if near is not None and not is_small:
        f1 = np.array(
            [[figures["f1"] for figures in fitted_at(sets, level)[0]] for level in levels]
        ).mean(axis=1)
        least = np.mean([one.figures(before, spec.calibration)["f1"] for one in sets])
        # Where F1 falls everywhere, the best of all is taken.
        values = values - (f1 < (least if least_f1 is None else least_f1))
        good = np.flatnonzero(values >= values.max() - NEARLY_BEST).tolist()
        after = min((levels[i] for i in good), key=lambda one: abs(one - near))
    for one in sets:
        one.draw([before, after])
        data.advance(len(one.scored))
    at_after, calibration, reason = fitted_at(sets, after, protocol)
    chosen = f"{protocol}; the threshold was chosen on these images by their {metric}"
    if start is not None and is_small:
        chosen = f"{protocol}; the threshold is that of {start.name}"
        calibration = calibration or start.calibration
        at_after = tuple(one.figures(after, calibration) for one in sets)
    notes = list(data.scale_notes(spec.gsd_m))
    if reason:
        kept = "" if calibration is None else "; that of the start model is kept"
        if calibration is None and spec.calibration is not None:
            kept = "; the new model is without the one it had"
        notes.append(f"no calibration was fitted to the buildings of whole images: {reason}{kept}")
    if spec.metrics and not keep:
        notes.append(
            "the figures in the start model's file were measured at its old threshold; the new "
            "file has those measured here in their place"
        )
    metrics = spec.metrics if keep else tuple(
        MeasuredMetrics(data=name, split=data.part, protocol=chosen, values=rounded_figures(one))
        for name, one in zip(data.names, at_after)
    )  # fmt: skip
    notes += [doubt] if (doubt := doubt_of(spec.name, metrics)) else []
    return ThresholdReport(
        out=out, metric=metric, before=spec.threshold,
        after=spec.threshold if keep else threshold_at(after),
        names=data.names,
        figures_before=tuple(one.figures(before, spec.calibration) for one in sets),
        figures_after=at_after,
        thresholds=tuple(map(threshold_at, levels)), curve=tuple(values.tolist()),
        calibration=calibration,
        metrics=metrics,
        notes=tuple(notes),
    )  # fmt: skip


def check_buildings(has_any: bool, source: SceneSet) -> None:
    """Raise DataError if no pixel of a set is predicted and labelled as a building."""
    if not has_any:
        raise DataError(
            f"{source.name} has no predicted pixel that is labelled as a building.",
            remedy="Name data with buildings, or another part of the split.",
        )
