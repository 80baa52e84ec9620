"""Weights of the models of an ensemble, by the figure that it is to be good at.

Neither a soft IoU nor a soft Dice will do: each is a ratio of two linear functions of the weights,
and such a ratio is highest at a corner, where one model has all the weight (Charnes & Cooper 1962,
"Programming with Linear Fractional Functionals"). The log loss has an optimum between corners, but
it asks for probabilities that are calibrated, which networks trained by Dice are far from. So what
is maximised is the figure itself, of the mask at the best threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from rooftrace.metrics.curves import CurveMetric, ThresholdCurve

__all__ = ["LEVELS", "PixelSample", "best_of", "fit_weights", "histogram", "mixed"]

LEVELS = 256

_PACKED = 8
"""Models whose bytes make one number."""

_UNITS = 20
"""That each model has to begin with. Finer weights are chance."""

_STEPS = (4, 2, 1)
"""What is moved from one model to another at a time, in shares of a model's units times the models:
a fifth of all, a tenth, a twentieth."""

_GAIN = 1e-4
"""A hundredth of a point: for less, weights stay as they are."""


@dataclass(frozen=True)
class PixelSample:
    """Pixels, those alike counted together.

    Args:
        rows: (n, models) uint8, what each says, in 255ths.
        counts: (2, n) how many of them are no building, and how many are.
    """

    rows: NDArray[np.uint8]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, rows: NDArray[np.uint8], truth: NDArray[np.bool_]) -> PixelSample:
        """(n, models) answers and (n,) whether each pixel is a building."""
        count, models = rows.shape
        if models > _PACKED:
            return cls(rows, np.stack([~truth, truth]).astype(np.int64))
        packed = np.zeros((count, _PACKED), np.uint8)
        packed[:, :models] = rows
        keys, which = np.unique(packed.view(np.uint64)[:, 0], return_inverse=True)
        counts = np.bincount(which + truth * len(keys), minlength=2 * len(keys))
        return cls(keys[:, None].view(np.uint8)[:, :models].copy(), counts.reshape(2, len(keys)))


def mixed(rows: NDArray[np.uint8], weights: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(n,) weighted means of (n, models) answers, to the nearest 255th; weights sum to one."""
    mean = rows.astype(np.float32) @ weights.astype(np.float32)
    mean += np.float32(0.5)
    return np.asarray(mean.astype(np.uint8))


def histogram(
    levels: NDArray[np.uint8],
    truth: NDArray[np.bool_] | None,
    counts: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """(2, 256) pixels that are no building and that are one, by level.

    Args:
        levels: (n,).
        truth: (n,); None where `counts` are given.
        counts: (2, n) how many pixels of either kind each stands for.
    """
    if counts is None:
        assert truth is not None
        place = levels + truth.astype(np.int64) * LEVELS
        return np.bincount(place, minlength=2 * LEVELS).reshape(2, LEVELS)
    return np.stack([np.bincount(levels, side, LEVELS) for side in counts]).astype(np.int64)


def best_of(histograms: Sequence[NDArray[np.int64]], metric: CurveMetric) -> NDArray[np.float64]:
    """(255,) the mean over sets of the figure, at each level from 1; sets without a building are
    left out. Zeros where none has one.
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
    """The weights with the highest mean over sets of a figure at its best threshold.

    From equal weights on, or from one model alone where that is clearly better, weight is moved
    from one model to another while the figure rises by a hundredth of a point: by fifths, then by
    tenths, then by twentieths of the whole.

    Args:
        sets: samples of each; every set counts alike.
        models: how many.
        metric: of pixels, pooled over a set.

    Returns:
        One of each model, 0 or more, their sum being 1.
    """
    known: dict[tuple[int, ...], float] = {}

    def value(units: tuple[int, ...]) -> float:
        if units not in known:
            weights = np.asarray(units, np.float64) / sum(units)
            counted = [
                sum(
                    (histogram(mixed(s.rows, weights), None, s.counts) for s in samples),
                    np.zeros((2, LEVELS), np.int64),
                )
                for samples in sets
            ]
            known[units] = float(best_of(counted, metric).max())
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
                _moved(current, i, j, step * models)
                for i, j in permutations(range(models), 2)
                if current[i]
            ]
            best = max(moves, key=value, default=current)
            if value(best) <= value(current) + _GAIN:
                break
            current = best
    return tuple(unit / whole for unit in current)


def _moved(units: tuple[int, ...], giver: int, taker: int, step: int) -> tuple[int, ...]:
    made = list(units)
    amount = min(step, made[giver])
    made[giver] -= amount
    made[taker] += amount
    return tuple(made)
