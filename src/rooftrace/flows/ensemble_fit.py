"""Fit of an ensemble: weights and thresholds, and figures on scenes that were left out.

Scenes are divided into folds. Scenes of one group are always in the same fold, and neighbours by
name stay together. On each fold, an ensemble or a single model is measured with weights and a
threshold that were chosen on the other folds. In this way all methods are compared on equal terms,
and none on scenes to which it was fitted.

The search for weights maximises the figure itself, computed from the mask at the best threshold.
Neither a soft IoU nor a soft Dice works as the objective: each is a ratio of two linear functions
of the weights, and such a ratio is highest at a corner, where one model has all the weight (Charnes
& Cooper 1962, "Programming with Linear Fractional Functionals"). The log loss has an optimum
between corners, but it needs calibrated probabilities, and the probabilities of networks trained by
Dice are far from calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Floats, Ints
from rooftrace.flows.labelled_predictions import SetProbabilities, level_of
from rooftrace.labels.source import SceneSet
from rooftrace.metrics.pixel import CurveMetric, ThresholdCurve, middle_of_best
from rooftrace.metrics.resampling import PairedTest, paired_permutation_test

LEVELS = 256

_UNITS = 20
"""Units of weight that each model starts with; finer weights would only follow chance."""

_STEPS = (4, 2, 1)
"""Units per model that are moved at a time, times the number of models: a fifth of the whole
weight, a tenth, a twentieth."""

_GAIN = 1e-4
"""Minimum gain for a change of weights: a hundredth of a point."""


@dataclass(frozen=True)
class PixelSample:
    """Pixels, with equal ones counted together.

    Args:
        rows: (n, models) uint8 probability from each model in 255ths.
        truth: (n,) True inside of buildings.
        counts: (n,) number of such pixels.
    """

    rows: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, rows: NDArray[np.uint8], truth: NDArray[np.bool_]) -> PixelSample:
        """Count (n, models) probabilities of pixels; (n,) `truth` marks buildings."""
        # Equal rows of bytes are found about ten times faster as one value each.
        both = np.column_stack([truth.view(np.uint8), rows])
        keys, counts = np.unique(both.view(f"V{both.shape[1]}")[:, 0], return_counts=True)
        values = keys.view(np.uint8).reshape(-1, both.shape[1])
        return cls(values[:, 1:], values[:, 0] > 0, counts)


def weighted_mean(rows: NDArray[np.uint8], weights: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the (n,) weighted means of (n, models) probabilities, rounded to 255ths; weights sum
    to one.
    """
    mean = rows.astype(np.float32) @ weights.astype(np.float32)
    mean += np.float32(0.5)
    return np.asarray(mean.astype(np.uint8))


def histogram(
    levels: NDArray[np.uint8],
    truth: NDArray[np.bool_],
    counts: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Return the (2, 256) number of pixels outside of buildings and inside of them at each level.

    Args:
        levels: (n,) levels.
        truth: (n,) mask of buildings.
        counts: (n,) number of pixels of each kind; default one each.
    """
    place = levels + truth.astype(np.int64) * LEVELS
    return np.bincount(place, counts, 2 * LEVELS).reshape(2, LEVELS).astype(np.int64)


def mean_curve(histograms: Sequence[NDArray[np.int64]], metric: CurveMetric) -> NDArray[np.float64]:
    """Return the (255,) mean over sets of the figure at each level from 1.

    Sets without a building are left out; zeros where no set has one.
    """
    curves = [
        getattr(ThresholdCurve(LEVELS, counted), metric)()
        for counted in histograms
        if counted[1].any()
    ]
    return np.mean(curves, axis=0) if curves else np.zeros(LEVELS - 1)


def fit_weights(
    sets: Sequence[Sequence[PixelSample]], models: int, metric: CurveMetric
) -> tuple[float, ...]:
    """Find the weights with the highest mean over sets of a figure at its best threshold.

    The search starts from equal weights, or from one model alone where that is clearly better. It
    moves weight from one model to another while the figure rises by at least a hundredth of a
    point: first fifths of the whole weight, then tenths, then twentieths.

    Args:
        sets: Samples of each set; every set has the same weight.
        models: Number of models.
        metric: Figure of pixels, pooled over a set.

    Returns:
        One weight for each model, 0 or more; they sum to 1.
    """
    known: dict[tuple[int, ...], float] = {}

    def value(units: tuple[int, ...]) -> float:
        if units not in known:
            weights = np.asarray(units, np.float64) / sum(units)
            counted = [
                sum(
                    (histogram(weighted_mean(s.rows, weights), s.truth, s.counts) for s in samples),
                    np.zeros((2, LEVELS), np.int64),
                )
                for samples in sets
            ]
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
            moves = [
                _shifted_units(current, i, j, step * models)
                for i, j in permutations(range(models), 2)
                if current[i]
            ]
            best = max(moves, key=value, default=current)
            if value(best) <= value(current) + _GAIN:
                break
            current = best
    return tuple(unit / whole for unit in current)


def _shifted_units(units: tuple[int, ...], source: int, target: int, step: int) -> tuple[int, ...]:
    amount = min(step, units[source])
    return tuple(u + amount * ((i == target) - (i == source)) for i, u in enumerate(units))


_SAMPLE_PX = 2**20
"""Maximum number of pixels, over all sets, to which weights are fitted."""

_CHUNK_PX = 2**20


MemberSets = tuple[SetProbabilities, ...]
"""Probabilities that each member predicts for one set, on the tiles of the ensemble."""


def sample_pixels(
    sets: Sequence[MemberSets], folds: Sequence[Ints]
) -> list[dict[int, PixelSample]]:
    """Draw random pixels of each set and fold; every set has the same share of the sample.

    Args:
        sets: Probabilities of the sets.
        folds: (scenes,) fold of each scene, for each set.
    """
    made = []
    for one, fold in zip(sets, folds):
        area_px = sum(scene.score.size for scene in one[0])
        share = min(1.0, _SAMPLE_PX / len(sets) / area_px)
        rng = np.random.default_rng(0)
        drawn: dict[int, list[tuple[NDArray[np.uint8], NDArray[np.bool_]]]] = {}
        for which, *scenes in zip(fold.tolist(), *one):
            taken = scenes[0].evaluated & (rng.random(scenes[0].score.shape) < share)
            said = np.stack([scene.score[taken] for scene in scenes], axis=1)
            drawn.setdefault(which, []).append((said, scenes[0].truth[taken]))
        joined = {which: map(np.concatenate, zip(*parts)) for which, parts in drawn.items()}
        made.append({which: PixelSample.of(*parts) for which, parts in joined.items()})
    return made


def method_histograms(one: MemberSets, weights: Floats, path: Path) -> NDArray[np.uint32]:
    """Return histograms (scenes, columns, 2, 256) of the evaluated pixels of a set by level.

    The columns are: each member alone, the average, and each row of weights.

    Args:
        one: Probabilities of the set.
        weights: (rows, models); each row sums to one.
        path: File for the histograms, which take a few kilobytes per scene.
    """
    models = weights.shape[1]
    mixes = np.concatenate([np.full((1, models), 1 / models), weights])
    shape = (len(one[0]), models + len(mixes), 2, LEVELS)
    counts = np.lib.format.open_memmap(path, "w+", np.uint32, shape)
    for number, out in enumerate(counts):
        scenes = [member[number] for member in one]
        evaluated = scenes[0].evaluated
        right = scenes[0].truth[evaluated]
        rows = np.stack([scene.score[evaluated] for scene in scenes], axis=1)
        for member in range(models):
            out[member] = histogram(rows[:, member], right)
        for first in range(0, len(rows), _CHUNK_PX):
            part, known = rows[first : first + _CHUNK_PX], right[first : first + _CHUNK_PX]
            for column, mix in enumerate(mixes, start=models):
                out[column] += histogram(weighted_mean(part, mix), known).astype(np.uint32)
    return np.asarray(counts)


FOLDS = 5


@dataclass(frozen=True)
class MethodFigures:
    """Figures of one model, or of one method of combination.

    Args:
        name: Name of the model or method.
        threshold_level: Threshold chosen on all scenes, as a level in 255ths.
        fitted: Figure at this threshold on the same scenes: the mean over the sets.
        left_out: Figure on scenes that were left out of the choice; NaN where there are too few
            scenes.
        own: For a model, the figure at its own threshold; otherwise NaN.
        by_set: (sets,) `left_out` of each set.
        counts: (scenes, 3 · sets) true, labelled and predicted pixels of each left-out scene, in
            the columns of its set.
    """

    name: str
    threshold_level: int
    fitted: float
    left_out: float
    own: float
    by_set: Floats
    counts: Ints


@dataclass(frozen=True)
class EnsembleFit:
    """Figures of all models and methods.

    Args:
        weights: Weight of each model, fitted on all scenes.
        models: Figures of each model alone.
        average, weighted: Figures of the methods of combination.
        scenes: Number of scenes.
        groups: Group of each scene.
        metric: The figure.
    """

    weights: tuple[float, ...]
    models: tuple[MethodFigures, ...]
    average: MethodFigures
    weighted: MethodFigures
    scenes: int
    groups: tuple[str, ...]
    metric: CurveMetric

    @property
    def best_model(self) -> MethodFigures:
        """The model with the highest figure on left-out scenes, or on all scenes where none were
        left out.
        """
        return max(self.models, key=lambda one: np.nan_to_num(one.left_out, nan=one.fitted))

    def against_best(self, one: MethodFigures) -> PairedTest | None:
        """Test a method against the best single model; None where no scenes could be left out."""
        if np.isnan(one.left_out):
            return None
        return paired_permutation_test(
            one.counts, self.best_model.counts, self._figure, groups=self.groups
        )

    def _figure(self, sums: Floats) -> Floats:
        true, labelled, predicted = np.moveaxis(sums.reshape(len(sums), -1, 3), 2, 0)
        return np.asarray(_mean_figure(self.metric, true, labelled, predicted))


def _figure_of(metric: CurveMetric, true: Floats, labelled: Floats, predicted: Floats) -> Floats:
    """Return the figure; NaN where there is neither label nor prediction."""
    over = 2 * true if metric == "dice" else true
    under = labelled + predicted - (0 if metric == "dice" else true)
    made = np.full(under.shape, np.nan)
    return np.asarray(np.divide(over, under, out=made, where=under > 0))


def _mean_figure(metric: CurveMetric, true: Floats, labelled: Floats, predicted: Floats) -> Floats:
    """Return the (n,) mean over the sets of (n, sets) counts, where the figure is defined."""
    each = _figure_of(metric, true, labelled, predicted)
    known = ~np.isnan(each)
    total, count = np.where(known, each, 0).sum(axis=1), known.sum(axis=1)
    made = np.full(len(each), np.nan)
    return np.asarray(np.divide(total, count, out=made, where=count > 0))


def folds_of(source: SceneSet) -> Ints:
    """Return the (scenes,) fold of each scene: runs of groups where there are enough, otherwise of
    scenes.
    """
    groups = [entry.group for entry in source.entries]
    distinct = list(dict.fromkeys(groups))
    units = [entry.id for entry in source.entries] if len(distinct) < FOLDS else groups
    order = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    return np.array([order[unit] * FOLDS // len(order) for unit in units], np.int64)


def fit_ensemble(
    sets: Sequence[MemberSets],
    thresholds: Sequence[float],
    names: Sequence[str],
    metric: CurveMetric,
    scratch: Path,
) -> EnsembleFit:
    """Fit weights, choose thresholds, and measure every model and every method of combination.

    Args:
        sets: Probabilities of the sets; every set has the same weight.
        thresholds: Own threshold of each model.
        names: Names of the models.
        metric: Figure of pixels, pooled over a set.
        scratch: Folder for the histograms, which take a few kilobytes per scene.
    """
    models = len(names)
    folds = [folds_of(one[0].source) for one in sets]
    samples = sample_pixels(sets, folds)
    weights = [fit_weights([list(by.values()) for by in samples], models, metric)]
    for fold in range(FOLDS):
        others = [[one for f, one in by.items() if f != fold] for by in samples]
        weights.append(fit_weights(others, models, metric) if any(others) else weights[0])
    counted = [
        method_histograms(one, np.array(weights), scratch / f"counts-{number}.npy")
        for number, one in enumerate(sets)
    ]

    def measured(name: str, columns: Sequence[int], own: int | None) -> MethodFigures:
        return _measure(name, counted, folds, metric, columns, own)

    alone = tuple(
        measured(name, [place] * (FOLDS + 1), level_of(threshold))
        for place, (name, threshold) in enumerate(zip(names, thresholds))
    )
    average, first = models, models + 1
    return EnsembleFit(
        weights=weights[0],
        models=alone,
        average=measured("average", [average] * (FOLDS + 1), None),
        weighted=measured("weighted", range(first, first + FOLDS + 1), None),
        scenes=sum(len(one[0]) for one in sets),
        groups=tuple(
            f"{number}/{entry.group}" if entry.group else ""
            for number, one in enumerate(sets)
            for entry in one[0].source.entries
        ),
        metric=metric,
    )


def _measure(
    name: str,
    counted: Sequence[NDArray[np.uint32]],
    folds: Sequence[Ints],
    metric: CurveMetric,
    columns: Sequence[int],
    own: int | None,
) -> MethodFigures:
    """Measure one model or method.

    Args:
        name: Name of the model or method.
        counted: Histograms of each set, see `method_histograms`.
        folds: (scenes,) fold of each scene, for each set.
        metric: The figure.
        columns: Columns of `counted`: the one fitted on all scenes, then those fitted without each
            fold.
        own: Level at which the figure is measured, too.
    """

    def level(column: int, without: int | None) -> int | None:
        pooled = [
            np.asarray(counts[fold != without, column].sum(axis=0), np.int64)
            for counts, fold in zip(counted, folds)
        ]
        if not any(one[1].any() for one in pooled):
            return None
        return middle_of_best(mean_curve(pooled, metric)) + 1

    def figure(counts: Ints) -> tuple[float, Floats]:
        true, labelled, predicted = np.moveaxis(
            counts.sum(axis=0).astype(np.float64).reshape(1, -1, 3), 2, 0
        )
        mean = _mean_figure(metric, true, labelled, predicted)
        return float(mean[0]), _figure_of(metric, true, labelled, predicted)[0]

    def at(levels: Sequence[int], which: Sequence[int]) -> Ints:
        """Return (scenes, 3 · sets) counts at the level and in the column of each scene's fold."""
        parts = []
        for number, (counts, fold) in enumerate(zip(counted, folds)):
            part = np.zeros((len(fold), len(folds), 3), np.int64)
            for scene, f in enumerate(fold.tolist()):
                false, true = counts[scene, which[f]]
                reached = int(true[levels[f] :].sum())
                seen = reached + int(false[levels[f] :].sum())
                part[scene, number] = reached, int(true.sum()), seen
            parts.append(part.reshape(len(fold), -1))
        return np.concatenate(parts)

    chosen = level(columns[0], None)
    assert chosen is not None
    everywhere = [columns[0]] * FOLDS
    fitted, _ = figure(at([chosen] * FOLDS, everywhere))
    own_figure = np.nan if own is None else figure(at([own] * FOLDS, everywhere))[0]
    without = [level(columns[1 + fold], fold) for fold in range(FOLDS)]
    used = {f for fold in folds for f in fold.tolist()}
    if any(without[f] is None for f in used):
        none = np.full(len(folds), np.nan)
        return MethodFigures(
            name, chosen, fitted, np.nan, own_figure, none, np.zeros((0, 0), np.int64)
        )
    counts = at([one or 1 for one in without], columns[1:])
    left_out, by_set = figure(counts)
    return MethodFigures(name, chosen, fitted, left_out, own_figure, by_set, counts)
