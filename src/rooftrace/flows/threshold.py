"""`rooftrace fit`: a model at the threshold that is best on labelled data.

The network runs once. The search then compares thresholds on the stored probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.types import BoolArray, Floats, Footprints, Progress, Scene
from rooftrace.flows.calibrate import uncalibrated
from rooftrace.flows.labelled_predictions import (
    ProgressCounter,
    ScaleCounts,
    SceneProbabilities,
    SetProbabilities,
    check_threshold_data,
    footprints_at,
    labelled_instances,
    level_of,
    open_labelled,
    predict_set,
    rasterize_footprints,
    threshold_at,
)
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.source import SceneSet
from rooftrace.labels.split import parse_reference
from rooftrace.metrics.calibration import BuildingOutcomes, CalibrationFit, fit_calibration
from rooftrace.metrics.curves import ThresholdCurve, middle_of_best
from rooftrace.metrics.objects import Labels, ObjectCounts, match_predicted
from rooftrace.models.bundle import check_bundle_path, write_bundle
from rooftrace.models.spec import BundleSpec, MeasuredMetrics
from rooftrace.predict.model_set import (
    is_ensemble,
    members_from,
    read_ensemble,
    read_models,
    write_ensemble,
)
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.tiling.plan import PROB_ONE

ThresholdMetric = Literal["dice", "iou", "f1"]
"""Figures to maximise: `dice` and `iou` of pixels, pooled over the images of a set; `f1` of
buildings, matched one to one where their IoU is above 0.5."""

_GRID = tuple(level_of(step / 20) for step in range(1, 20))
"""Levels at which buildings are drawn first; then half way to the neighbours of the best level,
twice."""

_HALVINGS = 2


@dataclass(frozen=True)
class SetFigures:
    """Figures of one set of data at one threshold.

    Args:
        iou, dice, precision, recall: Pooled over the pixels of all images; NaN where not defined.
        objects: Counts of buildings; None where buildings were not drawn at this threshold.
    """

    iou: float
    dice: float
    precision: float
    recall: float
    objects: ObjectCounts | None = None

    def get(self, metric: ThresholdMetric) -> float:
        """Return one figure; NaN where it is not known."""
        if metric == "f1":
            return math.nan if self.objects is None else self.objects.f1
        return float(getattr(self, metric))

    def values(self) -> dict[str, float]:
        """Return the figures that are known."""
        found = {name: getattr(self, name) for name in ("iou", "dice", "precision", "recall")}
        found["f1"] = self.get("f1")
        return {name: round(value, 5) for name, value in found.items() if not math.isnan(value)}


class ThresholdSearchSet:
    """One set of data, with its counts so far.

    Args:
        spec: Contract of the model, without a calibration.
        scored: Probabilities of the set.
    """

    def __init__(self, spec: BundleSpec, scored: SetProbabilities) -> None:
        self.scored = scored
        self.curve: ThresholdCurve = scored.curve()
        self._spec = spec
        self._objects: dict[int, ObjectCounts] = {}

    def figures(self, level: int) -> SetFigures:
        """Return the known figures at a level."""
        iou, dice, precision, recall = (
            float(getattr(self.curve, name)()[level - 1])
            for name in ("iou", "dice", "precision", "recall")
        )
        return SetFigures(iou, dice, precision, recall, self._objects.get(level))

    def draw(self, levels: Sequence[int]) -> None:
        """Draw the buildings at several levels and count them."""
        which = self._spec.building_class
        wanted = [level for level in levels if level not in self._objects]
        counts = dict.fromkeys(wanted, ObjectCounts())
        for scene, scored in zip(self.scored.source, self.scored):
            assert scene.label is not None
            labelled = labelled_instances(scene, scene.label.read(), which)
            evaluated = scored.evaluated
            for level in wanted:
                drawn = rasterize_footprints(
                    scene.image.grid, self._buildings(scene, scored, level)
                )
                counts[level] += ObjectCounts.of(labelled, drawn, evaluated)
        self._objects |= counts

    def _buildings(self, scene: Scene, scored: SceneProbabilities, level: int) -> Footprints:
        return footprints_at(self._spec, scene, scored, level, self.scored.images)

    def match(self, level: int, split: str) -> BuildingOutcomes:
        """Match the buildings that are drawn at a level with the labels."""
        which = self._spec.building_class

        def outcomes() -> Iterator[tuple[Footprints, Labels, BoolArray]]:
            for scene, scored in zip(self.scored.source, self.scored):
                assert scene.label is not None
                buildings = self._buildings(scene, scored, level)
                numbers, right = match_predicted(
                    labelled_instances(scene, scene.label.read(), which),
                    rasterize_footprints(scene.image.grid, buildings),
                    scored.evaluated,
                )
                yield buildings, numbers, right

        return BuildingOutcomes.of_scenes(self.scored.source.name, split, outcomes())


def best_level(
    sets: Sequence[ThresholdSearchSet], metric: ThresholdMetric, before: int
) -> tuple[int, list[int], Floats]:
    """Return the best level, all levels that were tried, and the mean over the sets at each.

    Of several equally good levels it is the middle of the longest run, see `middle_of_best`.
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


_PLATEAU = 0.005
"""Difference from the best value that hardly matters: half a point."""


@dataclass(frozen=True)
class ThresholdReport:
    """Result of `rooftrace fit` for one model.

    Args:
        out: The new bundle or ensemble file.
        metric: The figure that was maximised, as the mean over the sets.
        before, after: Thresholds.
        names: Names of the sets.
        figures_before, figures_after: Figures of each set.
        thresholds, curve: (n,) thresholds that were tried, and the mean of the metric over the sets
            at each.
        fit: Calibration at the new threshold.
        notes: Other changes, for the user.
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
    fit: CalibrationFit
    notes: tuple[str, ...] = ()

    @property
    def plateau(self) -> tuple[float, float]:
        """First and last of the neighbouring thresholds at which the metric is within half a point
        of the best.
        """
        good = np.asarray(self.curve) >= max(self.curve) - _PLATEAU
        first = last = int(np.argmin(np.abs(np.asarray(self.thresholds) - self.after)))
        while first > 0 and good[first - 1]:
            first -= 1
        while last + 1 < len(good) and good[last + 1]:
            last += 1
        return self.thresholds[first], self.thresholds[last]

    def mean(self, figures: Sequence[SetFigures]) -> float:
        """Return the mean of the metric over the sets; every set has the same weight."""
        return float(np.mean([one.get(self.metric) for one in figures]))

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        calibration = self.fit.calibration
        return {
            "bundle": str(self.out),
            "metric": self.metric,
            "threshold": {"before": self.before, "after": self.after},
            "value": {
                "before": round(self.mean(self.figures_before), 5),
                "after": round(self.mean(self.figures_after), 5),
            },
            "plateau": list(self.plateau),
            "data": [
                {"data": name, "before": before.values(), "after": after.values()}
                for name, before, after in zip(self.names, self.figures_before, self.figures_after)
            ],
            "curve": [[t, round(v, 5)] for t, v in zip(self.thresholds, self.curve)],
            "calibration": None if calibration is None else calibration.map.model_dump(mode="json"),
            "notes": list(self.notes),
        }


def run_threshold(
    model: Path | None,
    folders: Sequence[SourceConfig],
    out: Path,
    *,
    metric: ThresholdMetric = "iou",
    split: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    images: SceneOptions = AS_FOUND,
    progress: Progress | None = None,
) -> ThresholdReport:
    """Choose a threshold: find the one with the highest figure on labelled data, calibrate the
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
        metric: Figure to maximise.
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
    if not folders:
        raise DataError("No data to choose a threshold on was given.", remedy="Name labelled data.")
    _check_kind(model, out)
    loaded = read_models(model, engine=engine, precision=precision).ready()
    sources = [open_labelled(loaded, folder, split) for folder in folders]
    part = "all" if split is None else parse_reference(split)[1]
    report, update = choose_threshold(
        loaded, sources, part, out, metric=metric, images=images, progress=progress
    )
    _write(model, loaded, report.out, update)
    return report


def choose_threshold(
    loaded: Predictor,
    sources: Sequence[SceneSet],
    part: str,
    out: Path,
    *,
    metric: ThresholdMetric = "iou",
    images: SceneOptions = AS_FOUND,
    fallback: BundleSpec | None = None,
    progress: Progress | None = None,
) -> tuple[ThresholdReport, dict[str, Any]]:
    """Choose the threshold of a loaded model on opened scenes, and calibrate the model at it.

    Args:
        loaded: The model.
        sources: Labelled scenes.
        part: Name of the part of the data, for the record.
        out: File that the model will be written to, for the report.
        metric, images, progress: See `run_threshold`.
        fallback: Contract of the model that this one was tuned from, for data that is too small for
            a choice: its threshold is taken, and its calibration if none can be fitted.

    Returns:
        The report, and the values of the contract that change.

    Raises:
        ConfigError, DataError, PredictError: See `run_threshold`.
    """
    predictor = uncalibrated(loaded)
    for source in sources:
        check_threshold_data(predictor, source)
    spec = predictor.bundle.spec
    before = level_of(spec.threshold)
    counter = ProgressCounter(progress, 2 * sum(map(len, sources)))
    with TemporaryDirectory(prefix="rooftrace-") as scratch:
        sets = []
        for number, source in enumerate(sources):
            folder = Path(scratch) / str(number)
            scored = predict_set(predictor, source, folder, counter.advance, images=images)
            sets.append(ThresholdSearchSet(spec, scored))
        for one in sets:
            if not one.curve.prevalence > 0:
                raise DataError(
                    f"{one.scored.source.name} has no predicted pixel that is labelled as a "
                    "building.",
                    remedy="Name data with buildings, or another part of the split.",
                )
        after, levels, values = best_level(sets, metric, before)
        if fallback is not None:
            after = level_of(fallback.threshold)
        evaluated = []
        for one in sets:
            one.draw([before, after])
            evaluated.append(one.match(after, part))
            counter.advance(len(one.scored))
        figures = [[one.figures(level) for one in sets] for level in (before, after)]
    run_by = predictor.engine
    protocol = f"whole images as by rooftrace predict, {run_by.name} {run_by.precision}"
    fit = fit_calibration(evaluated, protocol=protocol)
    if fallback is not None and fit.calibration is None and fallback.calibration is not None:
        fit = replace(fit, calibration=fallback.calibration)
    names = tuple(source.name for source in sources)
    chosen = f"{protocol}; the threshold was chosen on these images for the highest {metric}"
    if fallback is not None:
        chosen = f"{protocol}; the threshold is that of {fallback.name}"
    report = ThresholdReport(
        out=out, metric=metric, before=spec.threshold, after=threshold_at(after),
        names=names, figures_before=tuple(figures[0]), figures_after=tuple(figures[1]),
        thresholds=tuple(map(threshold_at, levels)), curve=tuple(values.tolist()), fit=fit,
    )  # fmt: skip
    measured = tuple(
        MeasuredMetrics(data=name, split=part, protocol=chosen, values=one.values())
        for name, one in zip(names, figures[1])
    )
    scales = ScaleCounts.joined(one.scored.scales for one in sets)
    assumed = scales.notes_if_unknown(spec.gsd_m, images)
    report = replace(report, notes=(*assumed, *_notes(loaded.bundle.spec, fit)))
    return report, {"threshold": report.after, "calibration": fit.calibration, "metrics": measured}


def _check_kind(model: Path | None, out: Path) -> None:
    if is_ensemble(model) != is_ensemble(out):
        kind, ending = ("ensemble", ".json") if is_ensemble(model) else ("bundle", ".rooftrace")
        raise ConfigError(
            f"{out} was given for the new {kind}; expected a name that ends in {ending}.",
            remedy=f"For example: -o better{'.ensemble' if is_ensemble(model) else ''}{ending}",
        )
    if not is_ensemble(out):
        check_bundle_path(out)


def _notes(old: BundleSpec, fit: CalibrationFit) -> tuple[str, ...]:
    notes = []
    if fit.reason:
        kept = "" if fit.calibration is None else "; that of the start model is kept"
        notes.append(
            f"no calibration was fitted to the buildings of whole images: {fit.reason}{kept}"
        )
    if old.metrics:
        notes.append(
            "the figures in the start model's file were measured at its old threshold; the new "
            "file has those measured here in their place"
        )
    return tuple(notes)


def _write(model: Path | None, loaded: Predictor, out: Path, update: dict[str, Any]) -> None:
    if model is None or not is_ensemble(model):
        write_bundle(out, loaded.bundle.spec.model_copy(update=update), loaded.bundle.parts)
        return
    file = read_ensemble(model)
    digests = [one.sha256 for one in file.members]
    members = members_from([one.at(model) for one in file.members], digests, out)
    write_ensemble(out, file.model_copy(update={**update, "members": members}))
