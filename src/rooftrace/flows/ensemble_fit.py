"""What an ensemble is worth on scenes that were left out when it was fitted.

Scenes are divided into folds, those of one group never apart and neighbours by name together. What
an ensemble, or a model alone, comes to on a fold is with weights and a threshold that were chosen
on the others: so they are compared on equal terms, and none is judged on what it was fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rooftrace.data.source import SceneSet
from rooftrace.flows.ensemble_counts import Answers, Counted, sample_pixels
from rooftrace.flows.ensemble_weights import LEVELS, best_of, fit_weights
from rooftrace.flows.scored import level_of
from rooftrace.flows.threshold_search import middle_of_best
from rooftrace.metrics.curves import CurveMetric
from rooftrace.metrics.paired import PairedTest, paired

__all__ = ["FOLDS", "Judged", "TeamFit", "fit_team", "folds_of"]

FOLDS = 5

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """One model, or one way to combine all.

    Args:
        name: of it.
        threshold_level: what was chosen on all scenes, in 255ths.
        fitted: the figure at that, on the same scenes: the mean over the sets.
        left_out: the figure of scenes that were left out of the choice; NaN where there are too few
            scenes to leave some out.
        own: of a model, the figure at its own threshold; of votes, that of the majority; else NaN.
        by_set: (sets,) as `left_out`.
        counts: (scenes, 3 · sets) true, labelled and predicted pixels of each scene, left out, in
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
class TeamFit:
    """All that was found.

    Args:
        weights: fitted on all scenes, one of each model.
        models: each alone.
        average, weighted, vote: ways to combine them.
        tied: of the judged pixels, the share on which votes were tied; 0 of an odd number.
        scenes: how many.
        groups: of each.
    """

    weights: tuple[float, ...]
    models: tuple[Judged, ...]
    average: Judged
    weighted: Judged
    vote: Judged
    tied: float
    scenes: int
    groups: tuple[str, ...]
    metric: CurveMetric

    @property
    def best_model(self) -> Judged:
        """The one with the highest figure of scenes left out, or where there is none, of all."""
        return max(self.models, key=lambda one: np.nan_to_num(one.left_out, nan=one.fitted))

    def against_best(self, one: Judged) -> PairedTest | None:
        """A way to combine against the best model alone; None where nothing could be left out."""
        if np.isnan(one.left_out):
            return None
        return paired(one.counts, self.best_model.counts, self._figure, groups=self.groups)

    def _figure(self, sums: Floats) -> Floats:
        true, labelled, predicted = np.moveaxis(sums.reshape(len(sums), -1, 3), 2, 0)
        return np.asarray(_mean_figure(self.metric, true, labelled, predicted))


def _figure_of(metric: CurveMetric, true: Floats, labelled: Floats, predicted: Floats) -> Floats:
    """NaN where there is neither label nor prediction."""
    over = 2 * true if metric == "dice" else true
    under = labelled + predicted - (0 if metric == "dice" else true)
    made = np.full(under.shape, np.nan)
    return np.asarray(np.divide(over, under, out=made, where=under > 0))


def _mean_figure(metric: CurveMetric, true: Floats, labelled: Floats, predicted: Floats) -> Floats:
    """(n,) from (n, sets): the mean over the sets where it is defined."""
    each = _figure_of(metric, true, labelled, predicted)
    known = ~np.isnan(each)
    total, count = np.where(known, each, 0).sum(axis=1), known.sum(axis=1)
    made = np.full(len(each), np.nan)
    return np.asarray(np.divide(total, count, out=made, where=count > 0))


def folds_of(source: SceneSet) -> Ints:
    """(scenes,) the fold of each: runs of groups where there are enough of them, else of scenes."""
    groups = [entry.group for entry in source.entries]
    distinct = list(dict.fromkeys(groups))
    units = [entry.id for entry in source.entries] if len(distinct) < FOLDS else groups
    order = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    return np.array([order[unit] * FOLDS // len(order) for unit in units], np.int64)


def fit_team(
    sets: Sequence[Answers],
    thresholds: Sequence[float],
    names: Sequence[str],
    metric: CurveMetric,
    scratch: Path,
) -> TeamFit:
    """Fit weights, choose thresholds, and judge every model and every way to combine them.

    Args:
        sets: each counts alike.
        thresholds: of each model, its own.
        names: of each model.
        metric: of pixels, pooled over a set.
        scratch: a folder for counts, of some kilobytes a scene.
    """
    models = len(names)
    folds = [folds_of(one.source) for one in sets]
    samples = sample_pixels(sets, folds)
    weights = [fit_weights([list(by.values()) for by in samples], models, metric)]
    for fold in range(FOLDS):
        others = [[one for f, one in by.items() if f != fold] for by in samples]
        weights.append(fit_weights(others, models, metric) if any(others) else weights[0])
    counted = Counted(sets, np.array(weights), thresholds, scratch)

    def judged(name: str, columns: Sequence[int], own: int | None, fixed: bool = False) -> Judged:
        return _judge(name, counted, folds, metric, columns, own, fixed=fixed)

    alone = tuple(
        judged(name, [place] * (FOLDS + 1), level_of(threshold))
        for place, (name, threshold) in enumerate(zip(names, thresholds))
    )
    average, vote, first = models, models + 1, models + 2
    return TeamFit(
        weights=weights[0],
        models=alone,
        average=judged("average", [average] * (FOLDS + 1), None),
        weighted=judged("weighted", range(first, first + FOLDS + 1), None),
        vote=judged("vote", [vote] * (FOLDS + 1), LEVELS // 2, fixed=True),
        tied=counted.tied,
        scenes=sum(len(one.source) for one in sets),
        groups=tuple(
            f"{number}/{entry.group}" if entry.group else ""
            for number, one in enumerate(sets)
            for entry in one.source.entries
        ),
        metric=metric,
    )


def _judge(
    name: str,
    counted: Counted,
    folds: Sequence[Ints],
    metric: CurveMetric,
    columns: Sequence[int],
    own: int | None,
    *,
    fixed: bool,
) -> Judged:
    """One model or way to combine.

    Args:
        columns: of `counted`: what was fitted on all scenes, then what was fitted without each
            fold.
        own: a level to judge at, besides.
        fixed: that level is not chosen anew.
    """

    def level(column: int, without: int | None) -> int | None:
        if fixed:
            return own
        pooled = [
            np.asarray(counts[fold != without, column].sum(axis=0), np.int64)
            for counts, fold in zip(counted.sets, folds)
        ]
        if not any(one[1].any() for one in pooled):
            return None
        return middle_of_best(best_of(pooled, metric)) + 1

    def figure(counts: Ints) -> tuple[float, Floats]:
        true, labelled, predicted = np.moveaxis(
            counts.sum(axis=0).astype(np.float64).reshape(1, -1, 3), 2, 0
        )
        mean = _mean_figure(metric, true, labelled, predicted)
        return float(mean[0]), _figure_of(metric, true, labelled, predicted)[0]

    def at(levels: Sequence[int], which: Sequence[int]) -> Ints:
        """(scenes, 3 · sets) at the level and in the column of each scene's fold."""
        parts = []
        for number, (counts, fold) in enumerate(zip(counted.sets, folds)):
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
        return Judged(name, chosen, fitted, np.nan, own_figure, none, np.zeros((0, 0), np.int64))
    counts = at([one or 1 for one in without], columns[1:])
    left_out, by_set = figure(counts)
    return Judged(name, chosen, fitted, left_out, own_figure, by_set, counts)
