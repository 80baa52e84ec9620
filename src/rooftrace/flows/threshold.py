"""`rooftrace threshold`: a model at the threshold that is best on labelled data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.data.config import SourceConfig
from rooftrace.data.split import parse_reference
from rooftrace.flows.calibrate import uncalibrated
from rooftrace.flows.labelled import open_labelled
from rooftrace.flows.scored import check_labelled, level_of, score_set, threshold_at
from rooftrace.flows.threshold_search import (
    SearchedSet,
    SetFigures,
    ThresholdMetric,
    best_level,
)
from rooftrace.metrics.calibration import CalibrationFit, fit_calibration
from rooftrace.models.bundle import write_bundle
from rooftrace.models.spec import BundleSpec, Measured
from rooftrace.predict.ensemble_file import (
    is_ensemble,
    members_from,
    read_ensemble,
    write_ensemble,
)
from rooftrace.predict.model_set import load_models
from rooftrace.predict.predictor import Predictor

__all__ = ["ThresholdReport", "run_threshold"]

Progress = Callable[[int, int], None]

_PLATEAU = 0.005
"""What is less than half a point below the best is hardly worse."""


@dataclass(frozen=True)
class ThresholdReport:
    """What was chosen.

    Args:
        out: the new bundle or ensemble file.
        metric: that was to be highest, as the mean over the sets.
        before, after: thresholds.
        names: of the sets.
        figures_before, figures_after: of each set.
        thresholds, curve: (n,) the metric's mean over the sets at each threshold looked at.
        fit: the calibration at the new threshold.
        notes: what else changed, for the person to see.
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
        """The run of thresholds around the new one where the metric is within half a point."""
        good = np.asarray(self.curve) >= max(self.curve) - _PLATEAU
        first = last = int(np.argmin(np.abs(np.asarray(self.thresholds) - self.after)))
        while first > 0 and good[first - 1]:
            first -= 1
        while last + 1 < len(good) and good[last + 1]:
            last += 1
        return self.thresholds[first], self.thresholds[last]

    def mean(self, figures: Sequence[SetFigures]) -> float:
        """Of the metric over the sets, each counting alike."""
        return float(np.mean([one.get(self.metric) for one in figures]))

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
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
    progress: Progress | None = None,
) -> ThresholdReport:
    """Find the threshold with the highest figure on labelled data, fit the calibration at it, and
    write the model again with both; nothing else of it changes but the figures on record, which
    were of another threshold and are replaced by those measured here.

    The network is run once over each image as `rooftrace predict` runs it, and thresholds are
    looked at in the 255ths that its answers are kept in. For `f1` buildings are drawn at some
    twenty of them. The figure at the old threshold is that of the nearest 255th.

    Args:
        model: a bundle or an ensemble file; None for the bundle that comes with rooftrace.
        folders: labelled data that the model was not trained on; the mean over them counts.
        out: the new bundle, or of an ensemble file the new ensemble file.
        metric: what is to be highest.
        split: `FILE:PART`: only these scenes.
        engine, precision: default what `rooftrace predict` would take.
        progress: called with the images that are done and that there are, in two rounds.

    Raises:
        ConfigError: the model has more than two classes; `out` has an ending of another kind.
        DataError: there is no data, it has no labelled image or no building, or cannot be read.
        BundleError, PredictError, ExportError: as the model or `out` gives cause.
    """
    if not folders:
        raise DataError("There is no data to choose on.", remedy="Name labelled data.")
    _check_kind(model, out)
    loaded = load_models(model, engine=engine, precision=precision)
    predictor = uncalibrated(loaded)
    sources = [open_labelled(predictor, folder, split) for folder in folders]
    for source in sources:
        check_labelled(predictor, source)
    part = "all" if split is None else parse_reference(split)[1]
    spec = predictor.bundle.spec
    before = level_of(spec.threshold)
    meter = _Meter(progress, 2 * sum(map(len, sources)))
    with TemporaryDirectory(prefix="rooftrace-") as scratch:
        sets = []
        for number, source in enumerate(sources):
            folder = Path(scratch) / str(number)
            sets.append(SearchedSet(spec, score_set(predictor, source, folder, meter.one)))
        for one in sets:
            if not one.curve.prevalence > 0:
                raise DataError(
                    f"{one.scored.source.name} has no pixel that is labelled as a building, where "
                    "the model says something.",
                    remedy="Name data with buildings, or another part of the split.",
                )
        after, levels, values = best_level(sets, metric, before)
        judged = []
        for one in sets:
            one.draw([before, after])
            judged.append(one.judge(after, part))
            meter.add(len(one.scored))
        figures = [[one.figures(level) for one in sets] for level in (before, after)]
    run_by = predictor.engine
    protocol = f"whole images as by rooftrace predict, {run_by.name} {run_by.precision}"
    fit = fit_calibration(judged, protocol=protocol)
    names = tuple(source.name for source in sources)
    chosen = f"{protocol}; the threshold was chosen on these images for the highest {metric}"
    report = ThresholdReport(
        out=out, metric=metric, before=spec.threshold, after=threshold_at(after),
        names=names, figures_before=tuple(figures[0]), figures_after=tuple(figures[1]),
        thresholds=tuple(map(threshold_at, levels)), curve=tuple(values.tolist()), fit=fit,
    )  # fmt: skip
    measured = tuple(
        Measured(data=name, split=part, protocol=chosen, values=one.values())
        for name, one in zip(names, figures[1])
    )
    _write(model, loaded, report, measured)
    return replace(report, notes=_notes(loaded.bundle.spec, fit))


def _check_kind(model: Path | None, out: Path) -> None:
    if is_ensemble(model) != is_ensemble(out):
        kind, ending = ("ensemble", ".json") if is_ensemble(model) else ("bundle", ".rooftrace")
        raise ConfigError(
            f"{out} was given for the new {kind}; expected a name that ends in {ending}.",
            remedy=f"For example: -o better{'.ensemble' if is_ensemble(model) else ''}{ending}",
        )


def _notes(old: BundleSpec, fit: CalibrationFit) -> tuple[str, ...]:
    notes = []
    if fit.reason:
        notes.append(f"no calibration was fitted: {fit.reason}")
    if old.metrics:
        notes.append(
            f"{len(old.metrics)} figures on record were of the old threshold, and are replaced"
        )
    return tuple(notes)


def _write(
    model: Path | None, loaded: Predictor, report: ThresholdReport, measured: tuple[Measured, ...]
) -> None:
    update: dict[str, Any] = {
        "threshold": report.after,
        "calibration": report.fit.calibration,
        "metrics": measured,
    }
    if model is None or not is_ensemble(model):
        write_bundle(report.out, loaded.bundle.spec.model_copy(update=update), loaded.bundle.parts)
        return
    file = read_ensemble(model)
    digests = [one.sha256 for one in file.members]
    members = members_from([one.at(model) for one in file.members], digests, report.out)
    write_ensemble(report.out, file.model_copy(update={**update, "members": members}))


class _Meter:
    """Adds up what was done of several sets, in several rounds."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def one(self, _done: int, _of: int) -> None:
        """One more image."""
        self.add(1)

    def add(self, count: int) -> None:
        """More images."""
        self._done += count
        if self._progress is not None:
            self._progress(self._done, self._total)
