"""Fitting what makes probabilities of the scores of buildings.

A building's score is the mean probability of its pixels. How often buildings of one score are right
is another matter: that is learned here from predicted buildings that were compared with a label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rooftrace.metrics.reliability import Reliability
from rooftrace.models.calibration import (
    MAX_COEFFICIENT,
    MAX_KNOTS,
    Calibration,
    CalibrationData,
    IsotonicMap,
    LogisticMap,
    logit,
)

__all__ = [
    "LEAST_OBJECTS",
    "CalibrationFit",
    "JudgedBuildings",
    "fit_calibration",
    "pool_violators",
]

LEAST_OBJECTS = 50
"""With fewer buildings, what is fitted is chance."""

_LEAST_OF_EACH = 5
"""Right ones, and wrong ones: likewise."""

_FOLDS = 5
_OBJECTS_PER_KNOT = 15

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
ScoreMap = LogisticMap | IsotonicMap


@dataclass(frozen=True)
class JudgedBuildings:
    """The predicted buildings of one folder of data, compared with its label.

    Args:
        data: name of the folder.
        split: the part of a split that was taken, or `all`.
        score: (n,) float32 in 0..1, the mean probability of each one's pixels.
        right: (n,) whether its IoU with a labelled building is above 0.5.
        scene: (n,) int64, the scene it is in; buildings of one scene in the order of their places.
        scenes: how many scenes were looked at, those without a building among them.
    """

    data: str
    split: str
    score: NDArray[np.float32]
    right: Bools
    scene: NDArray[np.int64]
    scenes: int

    @property
    def record(self) -> CalibrationData:
        return CalibrationData(
            data=self.data, split=self.split, scenes=self.scenes,
            objects=len(self.score), right=int(self.right.sum()),
        )  # fmt: skip


@dataclass(frozen=True)
class CalibrationFit:
    """What fitting came to.

    Args:
        calibration: the best; None where none was fitted.
        reason: why there is no calibration, for people; else empty.
        left_out: (n,) what the scores became by functions that were fitted without them, folder
            after folder; None without a calibration.
        by_kind: the log loss of each kind of function in cross-validation; of `none`, that of the
            scores themselves.
    """

    calibration: Calibration | None
    reason: str = ""
    left_out: Floats | None = None
    by_kind: dict[str, float] = field(default_factory=dict)


def fit_calibration(folders: Sequence[JudgedBuildings], *, protocol: str = "") -> CalibrationFit:
    """Fit each kind of function, and take the simplest of those that are as good as the best.

    The best has the lowest log loss in cross-validation; as good are those within one standard
    error of it (Breiman et al. 1984, "Classification and Regression Trees"). Simplest of all is to
    leave the scores as they are.

    Five folds of whole scenes, or where fewer scenes have buildings, of runs of neighbouring ones.
    Every folder counts alike, however many buildings it has.

    Args:
        folders: at least one.
        protocol: how their buildings were predicted, for the record.
    """
    score = np.concatenate([f.score for f in folders]).astype(np.float64)
    right = np.concatenate([f.right for f in folders])
    if not len(score):
        return CalibrationFit(None, "no building was predicted")
    rare = min(int(right.sum()), int((~right).sum()))
    if len(score) < LEAST_OBJECTS or rare < _LEAST_OF_EACH:
        reason = (
            f"{len(score)} buildings were judged, {int(right.sum())} of them right; at least "
            f"{LEAST_OBJECTS} are needed, with {_LEAST_OF_EACH} right and {_LEAST_OF_EACH} wrong"
        )
        return CalibrationFit(None, reason)
    weight = np.concatenate([np.full(len(f.score), 1 / max(len(f.score), 1)) for f in folders])
    fold = _folds(folders)
    values = {"none": score} | {
        kind: _cross_validated(fit, score, right, weight, fold) for kind, fit in FITS.items()
    }
    losses = {kind: _log_loss(value, right) for kind, value in values.items()}
    mean = {kind: float(np.average(loss, weights=weight)) for kind, loss in losses.items()}
    least = losses[min(mean, key=lambda kind: mean[kind])]
    kind = next(kind for kind, loss in losses.items() if _is_as_good(loss, least, weight))
    if kind == "none":
        reason = f"no function is clearly better than the scores are (log loss {mean[kind]:.4f})"
        return CalibrationFit(None, reason, by_kind=mean)
    before, after = Reliability.of(score, right), Reliability.of(values[kind], right)
    calibration = Calibration(
        map=FITS[kind](score, right, weight),
        fitted_on=tuple(folder.record for folder in folders),
        protocol=protocol,
        ece_before=round(before.ece, 5),
        ece_after=round(after.ece, 5),
        log_loss_before=round(before.log_loss, 5),
        log_loss_after=round(after.log_loss, 5),
    )
    return CalibrationFit(calibration, "", values[kind], mean)


def _folds(folders: Sequence[JudgedBuildings]) -> NDArray[np.int64]:
    """(n,) the fold of each building."""
    first = np.cumsum([0, *(f.scene.max(initial=-1) + 1 for f in folders)])
    scene = np.concatenate([f.scene + start for f, start in zip(folders, first)])
    _, unit, size = np.unique(scene, return_inverse=True, return_counts=True)
    if len(size) < _FOLDS:
        return np.asarray(np.arange(len(scene)) * _FOLDS // len(scene), np.int64)
    # The largest first, each into the fold that has fewest: the folds become alike.
    held = np.zeros(_FOLDS, np.int64)
    fold_of = np.empty(len(size), np.int64)
    for which in np.argsort(-size, kind="stable"):
        fold_of[which] = held.argmin()
        held[fold_of[which]] += size[which]
    return np.asarray(fold_of[unit], np.int64)


def _cross_validated(
    fit: Callable[[Floats, Bools, Floats], ScoreMap],
    score: Floats,
    right: Bools,
    weight: Floats,
    fold: NDArray[np.int64],
) -> Floats:
    """(n,) what each score becomes by the function that the other folds give."""
    value = np.empty(len(score))
    for number in range(_FOLDS):
        out = fold == number
        value[out] = fit(score[~out], right[~out], weight[~out]).apply(score[out])
    return value


def _log_loss(value: Floats, right: Bools) -> Floats:
    """(n,) of each building."""
    inside = np.clip(value, 1e-6, 1 - 1e-6)
    return np.asarray(-np.log(np.where(right, inside, 1 - inside)), np.float64)


def _is_as_good(loss: Floats, least: Floats, weight: Floats) -> bool:
    """Whether the mean of (n,) losses is within one standard error of the least one."""
    more = loss - least
    mean = np.average(more, weights=weight)
    error = np.sqrt((weight**2 * (more - mean) ** 2).sum()) / weight.sum()
    return bool(mean <= error)


def _temperature(score: Floats, right: Bools, weight: Floats) -> LogisticMap:
    """Guo et al. 2017, "On Calibration of Modern Neural Networks"."""
    (slope,) = _logistic(logit(score)[:, None], right, weight)
    return LogisticMap(kind="temperature", slope=_bounded(slope, 0.0))


def _platt(score: Floats, right: Bools, weight: Floats) -> LogisticMap:
    """Platt 1999, "Probabilistic Outputs for Support Vector Machines"."""
    ones = np.ones(len(score))
    slope, intercept = _logistic(np.column_stack([logit(score), ones]), right, weight)
    if slope < 0:
        # A better score must not be less probable: then all are alike.
        slope, (intercept,) = 0.0, _logistic(ones[:, None], right, weight)
    return LogisticMap(kind="platt", slope=_bounded(slope, 0.0), intercept=_bounded(intercept))


def _bounded(value: float, low: float = -MAX_COEFFICIENT) -> float:
    return float(np.clip(value, low, MAX_COEFFICIENT))


def _logistic(x: Floats, right: Bools, weight: Floats) -> Floats:
    """The coefficients of a logistic regression, by Newton's method.

    The outcomes are Platt's: a little inside 0 and 1, so that there always is a finite best.

    Args:
        x: (n, k).
    """
    positive = int(right.sum())
    negative = len(right) - positive
    target = np.where(right, (positive + 1) / (positive + 2), 1 / (negative + 2))
    weight = weight / weight.sum()

    def loss(beta: Floats) -> float:
        z = x @ beta
        return float(weight @ (np.logaddexp(0, z) - target * z))

    beta = np.zeros(x.shape[1])
    for _ in range(100):
        p = (1 + np.tanh(x @ beta / 2)) / 2
        gradient = x.T @ (weight * (p - target))
        curvature = (x * (weight * p * (1 - p))[:, None]).T @ x
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(beta)), gradient)
        while loss(beta - step) > loss(beta) and np.abs(step).max() > 1e-9:
            step = step / 2
        beta = beta - step
        if np.abs(step).max() <= 1e-9:
            break
    return beta


def _isotonic(score: Floats, right: Bools, weight: Floats) -> IsotonicMap:
    """Zadrozny and Elkan 2002, "Transforming Classifier Scores into Accurate Multiclass Probability
    Estimates". Buildings of neighbouring scores are taken together first, into groups of equal
    weight, so that a step has more than chance to stand on.
    """
    # How many buildings of one weight would tell as much (Kish 1965, "Survey Sampling").
    worth = float(weight.sum() ** 2 / (weight**2).sum())
    groups = int(np.clip(worth // _OBJECTS_PER_KNOT, 1, MAX_KNOTS))
    _, which = np.unique(score, return_inverse=True)
    each = np.bincount(which, weight)
    # By the middle of its weight, so that what has one score is in one group.
    middle = (np.cumsum(each) - each / 2) / weight.sum()
    group = np.unique((middle * groups).astype(int), return_inverse=True)[1][which]
    mass: Floats = np.bincount(group, weight).astype(np.float64)
    share = pool_violators(np.bincount(group, weight * right) / mass, mass)
    # Each run of equal shares becomes one knot, at the mean score of its buildings.
    block = np.cumsum(np.diff(share, prepend=share[0]) > 0)
    block_mass = np.bincount(block, mass)
    knots = np.bincount(block, np.bincount(group, weight * score)) / block_mass
    shares = share[np.flatnonzero(np.diff(block, prepend=-1))]
    # Laplace's rule of succession: nothing is surer than so many buildings can tell.
    edge = 1 / (worth + 2)
    return IsotonicMap(
        scores=tuple(knots.clip(0, 1).tolist()),
        probabilities=tuple(shares.clip(edge, 1 - edge).tolist()),
    )


def pool_violators(value: Floats, weight: Floats) -> Floats:
    """The non-decreasing sequence that is nearest to one, in weighted squares: pool adjacent
    violators (Ayer et al. 1955, "An Empirical Distribution Function for Sampling with Incomplete
    Information").

    Args:
        value: (n,).
        weight: (n,) above 0.
    """
    pools: list[tuple[float, float, int]] = []
    for mean, mass in zip(value.tolist(), weight.tolist()):
        size = 1
        while pools and pools[-1][0] >= mean:
            other, other_mass, other_size = pools.pop()
            mean = (mean * mass + other * other_mass) / (mass + other_mass)
            mass, size = mass + other_mass, size + other_size
        pools.append((mean, mass, size))
    return np.repeat([mean for mean, _, _ in pools], [size for _, _, size in pools])


FITS: dict[str, Callable[[Floats, Bools, Floats], ScoreMap]] = {
    "temperature": _temperature,
    "platt": _platt,
    "isotonic": _isotonic,
}
"""The simplest first."""
