"""`rooftrace fit` of several models: weights and a threshold that are best on labelled data.

The search for weights maximises the figure itself, computed from the mask at the best threshold.
Neither a soft IoU nor a soft Dice works as the objective: each is a ratio of two linear functions
of the weights, and such a ratio is highest at a corner, where one model has all the weight (Charnes
& Cooper 1962, "Programming with Linear Fractional Functionals"). The log loss has an optimum
between corners, but it needs calibrated probabilities, and the probabilities of networks trained by
Dice are far from calibrated.

What a fit finds is measured on images that it has not seen by `rooftrace evaluate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError
from rooftrace.core.text import distinct, plural
from rooftrace.core.types import Floats, Progress
from rooftrace.flows.evaluate.evaluation import training_ground_notes
from rooftrace.flows.evaluate.label_doubts import doubts_of
from rooftrace.flows.labelled_predictions import (
    LabelledSets,
    SetProbabilities,
    level_of,
    predict_set,
    protocol_of,
    threshold_at,
)
from rooftrace.flows.threshold import check_buildings
from rooftrace.io.files import check_outputs, check_replaced
from rooftrace.labels.config import SourceConfig
from rooftrace.labels.split import parse_reference
from rooftrace.metrics.pixel import CurveMetric, ThresholdCurve, middle_of_plateau
from rooftrace.models.bundle import bundle_file
from rooftrace.models.spec import MeasuredMetrics
from rooftrace.predict.model_set import (
    Combine,
    EnsembleFile,
    combine,
    is_ensemble,
    member_in_ensemble,
    members_from,
    read_ensemble,
    write_ensemble,
)
from rooftrace.predict.plan import AS_FOUND, SceneOptions
from rooftrace.predict.predictor import Predictor, load

LEVELS = 256

_UNITS = 20
"""Units of weight that each model starts with; finer weights would only follow chance."""

_STEPS = (4, 2, 1)
"""Units per model that are moved at a time, times the number of models: a fifth of the whole
weight, a tenth, a twentieth."""

_GAIN = 1e-4
"""Minimum gain for a change of weights: a hundredth of a point."""


PixelSample = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""Pixels of a set: (n, models) probabilities in 255ths, and (n,) True inside of buildings."""


def weighted_mean(rows: NDArray[np.uint8], weights: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the (n,) weighted means of (n, models) probabilities, rounded to 255ths; weights sum
    to one.
    """
    mean = rows.astype(np.float32) @ weights.astype(np.float32)
    mean += np.float32(0.5)
    return np.asarray(mean.astype(np.uint8))


def histogram(levels: NDArray[np.uint8], truth: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the (2, 256) number of pixels outside of buildings and inside of them at each of (n,)
    levels.
    """
    place = levels + truth.astype(np.int64) * LEVELS
    return np.bincount(place, minlength=2 * LEVELS).reshape(2, LEVELS)


def mean_curve(histograms: Sequence[NDArray[np.int64]], metric: CurveMetric) -> Floats:
    """Return the (255,) mean over sets of the figure at each level from 1."""
    curves = [getattr(ThresholdCurve(LEVELS, counted), metric)() for counted in histograms]
    return np.asarray(np.mean(curves, axis=0))


def fit_weights(
    samples: Sequence[PixelSample], models: int, metric: CurveMetric
) -> tuple[float, ...]:
    """Find the weights with the highest mean over sets of a figure at its best threshold.

    The search starts from equal weights, or from one model alone where that is clearly better. It
    moves weight from one model to another while the figure rises by at least a hundredth of a
    point: first fifths of the whole weight, then tenths, then twentieths.

    Args:
        samples: Sample of each set; every set has the same weight.

    Returns:
        One weight for each model, 0 or more; they sum to 1.
    """
    known: dict[tuple[int, ...], float] = {}

    def value(units: tuple[int, ...]) -> float:
        if units not in known:
            weights = np.asarray(units, np.float64) / sum(units)
            counted = [histogram(weighted_mean(rows, weights), truth) for rows, truth in samples]
            known[units] = float(mean_curve(counted, metric).max())
        return known[units]

    whole = _UNITS * models
    current = (_UNITS,) * models
    alone = [tuple(whole * (i == j) for j in range(models)) for i in range(models)]
    best_alone = max(alone, key=value)
    if value(best_alone) > value(current) + _GAIN:
        current = best_alone
    for step in _STEPS:
        while True:
            best = max(_moves(current, step * models), key=value, default=current)
            if value(best) <= value(current) + _GAIN:
                break
            current = best
    return tuple(unit / whole for unit in current)


def _moves(units: tuple[int, ...], step: int) -> Iterator[tuple[int, ...]]:
    """Yield weights with a step, or what is left, moved from one model to another."""
    for source, target in permutations(range(len(units)), 2):
        if moved := min(step, units[source]):
            changed = [*units]
            changed[source] -= moved
            changed[target] += moved
            yield tuple(changed)


_SAMPLE_PX = 2**20
"""Maximum number of pixels, over all sets, to which weights are fitted."""

_CHUNK_PX = 2**20


MemberSets = tuple[SetProbabilities, ...]
"""Probabilities that each member predicts for one set, on the tiles of the ensemble."""


def sample_pixels(sets: Sequence[MemberSets]) -> list[PixelSample]:
    """Draw random pixels of each set; every set has the same share of the sample."""
    samples = []
    for one in sets:
        area_px = sum(scene.score.size for scene in one[0])
        share = min(1.0, _SAMPLE_PX / len(sets) / area_px)
        rng = np.random.default_rng(0)
        rows, truth = [], []
        for scenes in zip(*one):
            taken = scenes[0].evaluated & (rng.random(scenes[0].score.shape) < share)
            rows.append(np.stack([scene.score[taken] for scene in scenes], axis=1))
            truth.append(scenes[0].truth[taken])
        samples.append((np.concatenate(rows), np.concatenate(truth)))
    return samples


def method_histograms(one: MemberSets, weights: Sequence[float]) -> NDArray[np.int64]:
    """Return (models + 2, 2, 256) histograms of the evaluated pixels of a set by level.

    They are those of each member alone, of the average, and of the weighted average.
    """
    models = len(one)
    mixes = np.array([[1 / models] * models, weights])
    counts = np.zeros((models + 2, 2, LEVELS), np.int64)
    for scenes in zip(*one):
        evaluated = scenes[0].evaluated
        truth = scenes[0].truth[evaluated]
        rows = np.stack([scene.score[evaluated] for scene in scenes], axis=1)
        for member in range(models):
            counts[member] += histogram(rows[:, member], truth)
        for first in range(0, len(rows), _CHUNK_PX):
            part, known = rows[first : first + _CHUNK_PX], truth[first : first + _CHUNK_PX]
            for column, mix in enumerate(mixes, start=models):
                counts[column] += histogram(weighted_mean(part, mix), known)
    return counts


@dataclass(frozen=True)
class MethodFigures:
    """Figures of one model, or of one method of combination.

    Args:
        threshold_level: Threshold with a figure near the highest, as a level in 255ths.
        fitted: Figure at this threshold: the mean over the sets.
        own: Figure of a model at its own threshold; None for a method.
        by_set: `fitted` of each set.
    """

    name: str
    threshold_level: int
    fitted: float
    own: float | None
    by_set: tuple[float, ...]

    @classmethod
    def of(
        cls,
        name: str,
        counted: Sequence[NDArray[np.int64]],
        metric: CurveMetric,
        own: int | None = None,
    ) -> MethodFigures:
        """Return the figures of the histograms of each set.

        Args:
            counted: (2, 256) histogram of each set.
            own: Level at which the figure is measured, too.
        """
        curve = mean_curve(counted, metric)
        best = middle_of_plateau(np.arange(len(curve), dtype=np.float64), curve)
        by_set = tuple(float(mean_curve([one], metric)[best]) for one in counted)
        at_own = None if own is None else float(curve[own - 1])
        return cls(name, best + 1, float(curve[best]), at_own, by_set)


@dataclass(frozen=True)
class EnsembleFit:
    """Figures of all models and methods."""

    weights: tuple[float, ...]
    models: tuple[MethodFigures, ...]
    average: MethodFigures
    weighted: MethodFigures

    @property
    def best_model(self) -> MethodFigures:
        """The model with the highest figure."""
        return max(self.models, key=lambda one: one.fitted)


def fit_ensemble(
    sets: Sequence[MemberSets],
    thresholds: Sequence[float],
    names: Sequence[str],
    metric: CurveMetric,
) -> EnsembleFit:
    """Fit weights, choose thresholds, and measure every model and both methods of combination.

    Args:
        sets: Probabilities of the sets, each with a building; every set has the same weight.
        thresholds: Own threshold of each model.
    """
    weights = fit_weights(sample_pixels(sets), len(names), metric)
    counted = [method_histograms(one, weights) for one in sets]

    def figures(name: str, column: int, own: float | None = None) -> MethodFigures:
        level = None if own is None else level_of(own)
        return MethodFigures.of(name, [one[column] for one in counted], metric, level)

    count = len(names)
    alone = tuple(
        figures(name, place, own) for place, (name, own) in enumerate(zip(names, thresholds))
    )
    return EnsembleFit(weights, alone, figures("average", count), figures("weighted", count + 1))


@dataclass(frozen=True)
class EnsembleReport:
    """Result of `rooftrace fit` for several models.

    Args:
        metric: The figure that was maximised, as the mean over the sets.
        weights: Weights of the members; None where they are not weighted.
    """

    out: Path
    combine: Combine
    metric: CurveMetric
    members: tuple[str, ...]
    weights: tuple[float, ...] | None
    threshold: float
    fit: EnsembleFit
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> MethodFigures:
        """Figures of the method in the file."""
        return self.fit.average if self.combine == "average" else self.fit.weighted

    @property
    def rows(self) -> tuple[MethodFigures, ...]:
        """Figures of every model alone and of every method of combination."""
        return (*self.fit.models, self.fit.average, self.fit.weighted)

    def to_json(self) -> dict[str, Any]:
        return {
            "ensemble": str(self.out),
            "combine": self.combine,
            "metric": self.metric,
            "members": list(self.members),
            "weights": None if self.weights is None else list(self.weights),
            "threshold": self.threshold,
            "figures": [_to_json(one, self.names) for one in self.rows],
            "notes": list(self.notes),
        }


def _to_json(one: MethodFigures, names: Sequence[str]) -> dict[str, Any]:
    return {
        "name": one.name,
        "threshold": threshold_at(one.threshold_level),
        "at_own_threshold": None if one.own is None else round(one.own, 5),
        "fitted": round(one.fitted, 5),
        "fitted_by_data": {name: round(value, 5) for name, value in zip(names, one.by_set)},
    }


def run_ensemble(
    bundles: Sequence[Path | None],
    folders: Sequence[SourceConfig],
    out: Path,
    *,
    how: Combine = "weighted",
    metric: CurveMetric = "iou",
    split: str | None = None,
    engine: str | None = None,
    precision: str | None = None,
    images: SceneOptions = AS_FOUND,
    progress: Progress | None = None,
) -> EnsembleReport:
    """Fit an ensemble: predict labelled scenes with every model, fit the combination, and write the
    ensemble file.

    Each model predicts on the tiles of the ensemble. A model with weight 0 is left out of the file.
    An earlier ensemble file of the same name is replaced; any other file is not.

    Args:
        bundles: At least two models of one contract, see `combine`; None is the default model.
        folders: Labelled data that no model was trained on; the mean over the folders is maximised.
        out: Path of the ensemble file, `NAME.ensemble.json`.
        metric: Figure of pixels to maximise, pooled over a set.
        split: `FILE:PART` to choose scenes; None for all.
        engine, precision: Engine and precision; default as in `rooftrace predict`.
        images: Bands, stretch and scale with which images are read.
        progress: Function called with the number of images done and their total number, over all
            models.

    Raises:
        ConfigError: There are fewer than two bundles, one of them is an ensemble file or has more
            than two classes, or `out` has another file ending or is a file that is no ensemble.
        DataError: There is no data, it has no labelled image or no building, or it cannot be read.
        BundleError, PredictError, ExportError: A model cannot be used, or `out` cannot be written.
    """
    bundles = [None if path is None else bundle_file(path) for path in bundles]
    replaced = _check(bundles, out)
    read = [path for folder in folders for path in folder.paths]
    check_outputs([out], [*bundles, *read, None if split is None else parse_reference(split)[0]])
    members = [load(path, engine=engine, precision=precision) for path in bundles]
    specs = [member.bundle.spec for member in members]
    combined = combine(members).bundle.spec
    data = LabelledSets.open(members[0], folders, split, images, progress)
    data.rounds = len(members)
    with TemporaryDirectory(prefix="rooftrace-") as folder:
        scratch, sets, doubts = Path(folder), [], list[str]()
        for number, source in enumerate(data.sources):
            sets.append(
                tuple(
                    predict_set(
                        member_in_ensemble(member, combined), source, scratch / f"{number}-{place}",
                        data,
                    )
                    for place, member in enumerate(members)
                )
            )  # fmt: skip
            has_any = any((scene.truth & scene.evaluated).any() for scene in sets[-1][0])
            check_buildings(has_any, source)
            doubts += doubts_of(sets[-1][0], specs[0].threshold)
        for member in members:
            member.engine.release()
        names = distinct([spec.name for spec in specs])
        fit = fit_ensemble(sets, [spec.threshold for spec in specs], names, metric)
    kept = [place for place, weight in enumerate(fit.weights) if how != "weighted" or weight]
    chosen = fit.average if how == "average" else fit.weighted
    threshold = threshold_at(chosen.threshold_level)
    weights = tuple(fit.weights[place] for place in kept) if how == "weighted" else None
    file = EnsembleFile(
        members=members_from(
            [bundles[place] for place in kept],
            [members[place].bundle.sha256 for place in kept],
            out,
        ),
        combine=how,
        weights=weights,
        threshold=threshold,
        metrics=_measured(chosen, metric, data, members[0]),
        fitted_fingerprint=data.fingerprint(combined.gsd_m),
    )
    write_ensemble(out, file)
    report = EnsembleReport(
        out=out, combine=how, metric=metric, members=tuple(names[place] for place in kept),
        weights=weights, threshold=threshold, fit=fit,
        names=data.names,
        notes=(
            *replaced, *training_ground_notes([member.bundle for member in members], data),
            *doubts, *_left_out_note(names, kept), *data.scale_notes(combined.gsd_m),
        ),
    )  # fmt: skip
    if chosen.fitted > fit.best_model.fitted:
        return report
    text = f"on these images {how} is no better than {fit.best_model.name} alone"
    return replace(report, notes=(*report.notes, text))


def _check(bundles: Sequence[Path | None], out: Path) -> list[str]:
    """Check the request, and return a note on an earlier ensemble file that is replaced."""
    if len(bundles) < 2:
        raise ConfigError(
            f"{plural(len(bundles), 'model was', 'models were')} given; "
            "an ensemble needs at least two.",
            remedy='Name several .rooftrace files, or "default" for the bundled one, then data.',
        )
    for path in bundles:
        if is_ensemble(path):
            raise ConfigError(
                f"{path} is an ensemble file; an ensemble cannot be a member of another one.",
                remedy="Name its bundles instead.",
            )
    if not is_ensemble(out):
        raise ConfigError(
            f"{out} was given for the ensemble file; expected a name that ends in .json.",
            remedy="For example: -o team.ensemble.json",
        )
    return check_replaced([out], partial(read_ensemble, out), "an ensemble file")


def _left_out_note(names: Sequence[str], kept: Sequence[int]) -> tuple[str, ...]:
    left_out = [name for place, name in enumerate(names) if place not in kept]
    if not left_out:
        return ()
    text = f"without weight, and so not in the ensemble: {', '.join(left_out)}"
    return (text if len(kept) > 1 else f"{text}; none was better together with {names[kept[0]]}",)


def _measured(
    chosen: MethodFigures, metric: CurveMetric, data: LabelledSets, member: Predictor
) -> tuple[MeasuredMetrics, ...]:
    protocol = (
        f"pooled over pixels, {protocol_of(member)}; the ensemble was fitted on these images for "
        f"the highest {metric}"
    )
    return tuple(
        MeasuredMetrics(
            data=name, split=data.part, protocol=protocol, values={metric: round(value, 5)}
        )
        for name, value in zip(data.names, chosen.by_set)
    )
