"""Reliability of building scores, and the functions that turn scores into probabilities.

A building's score is the mean probability of its pixels. How often buildings with a certain score
are right is a different quantity. It is learned here from predicted buildings that were matched
with labels. Scores are probabilities where four in five of the buildings with a score of 0.8 are
right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.text import plural
from rooftrace.core.types import BoolArray, Floats
from rooftrace.models.spec import MAX_COEFFICIENT, Calibration, CalibrationData, LogisticMap

BINS = 10

_DRAWS = 2000
"""Draws of outcomes for the calibration error that chance alone gives."""

_CLIP = 1e-6
"""Distance from 0 and 1 to which probabilities are clipped in a log loss."""


@dataclass(frozen=True)
class Reliability:
    """Reliability diagram: scores against outcomes, in bins of equal width over 0..1.

    Args:
        count: (bins,) int64 number of objects with a score in each bin.
        mean_score: (bins,) mean score of the objects in each bin; NaN for an empty bin.
        share_right: (bins,) share of right objects in each bin; NaN for an empty bin.
        brier: Mean squared difference of score and outcome (Brier 1950, "Verification of Forecasts
            Expressed in Terms of Probability").
        log_loss: Mean of -ln of the probability that was given to the actual outcome.
    """

    count: NDArray[np.int64]
    mean_score: Floats
    share_right: Floats
    brier: float
    log_loss: float

    @classmethod
    def of(cls, score: NDArray[np.floating], right: NDArray[np.bool_]) -> Reliability:
        """Count objects.

        Args:
            score: (n,) in 0..1, at least one.
            right: (n,) True for each object that is right.
        """
        score = np.asarray(score, np.float64)
        which = np.minimum((score * BINS).astype(np.int64), BINS - 1)
        count = np.bincount(which, minlength=BINS)
        each = np.where(count > 0, count, np.nan)
        return cls(
            count=count,
            mean_score=np.bincount(which, score, minlength=BINS) / each,
            share_right=np.bincount(which, right, minlength=BINS) / each,
            brier=float(np.mean((score - right) ** 2)),
            log_loss=float(_log_loss(score, right).mean()),
        )

    @property
    def objects(self) -> int:
        return int(self.count.sum())

    @property
    def ece(self) -> float:
        """Expected calibration error in 0..1 (Naeini et al. 2015, "Obtaining Well Calibrated
        Probabilities Using Bayesian Binning"; Guo et al. 2017).

        It is the mean, over all objects, of the difference between the share of right objects in
        their bin and the mean score there. Few objects have an error by chance alone; see
        `ece_by_chance`.
        """
        gap = np.abs(self.share_right - self.mean_score)
        return float(np.nansum(gap * self.count) / self.count.sum())

    @cached_property
    def ece_by_chance(self) -> float:
        """Calibration error in 0..1 that chance alone exceeds in 5 of 100 cases.

        If the scores are probabilities, so that the right objects of a bin are a binomial draw with
        its mean score, 95 of 100 such draws have a lower error. A larger one is a fault of the
        scores (Bröcker and Smith 2007, "Increasing the Reliability of Reliability Diagrams"). The
        draws are the same in every call.
        """
        filled = self.count > 0
        count, score = self.count[filled], self.mean_score[filled].clip(0, 1)
        right = np.random.default_rng(0).binomial(count, score, (_DRAWS, len(count)))
        errors = np.abs(right - count * score).sum(axis=1) / count.sum()
        return float(np.quantile(errors, 0.95))


LEAST_OBJECTS = 50
"""Minimum number of buildings; a fit to fewer would be chance."""

_LEAST_OF_EACH = 5
"""Minimum number of right buildings, and of wrong ones, for the same reason."""

_FOLDS = 5

Fit = Callable[[Floats, BoolArray, BoolArray, Floats], LogisticMap]
"""Function that fits a map to (n,) scores, `divided`, `right` and weights of buildings."""


SceneOutcomes = tuple[NDArray[np.float32], BoolArray, BoolArray]
"""`score`, `right` and `divided` of the buildings of one scene, see `BuildingOutcomes`."""


@dataclass(frozen=True)
class BuildingOutcomes:
    """Predicted buildings of one folder of data, each matched with the labels.

    Args:
        data: Name of the folder.
        split: Name of the part of a split, or `all`.
        score: (n,) float32 in 0..1, mean probability of the pixels of each building.
        right: (n,) True where the IoU with a labelled building is above 0.5.
        divided: (n,) True for a piece of a region that was divided into buildings.
        scene: (n,) int64 number of the scene of each building; buildings of one scene are in the
            order of their position.
        scenes: Number of scenes, including scenes without a building.
    """

    data: str
    split: str
    score: NDArray[np.float32]
    right: BoolArray
    divided: BoolArray
    scene: NDArray[np.int64]
    scenes: int

    @classmethod
    def of_scenes(cls, data: str, split: str, scenes: Sequence[SceneOutcomes]) -> BuildingOutcomes:
        """Join the buildings of scenes."""
        none = (np.zeros(0, np.float32), np.zeros(0, np.bool_), np.zeros(0, np.bool_))
        score, right, divided = map(np.concatenate, zip(none, *scenes))
        scene = np.repeat(np.arange(len(scenes)), [len(scores) for scores, _, _ in scenes])
        return cls(data, split, score, right, divided, scene, len(scenes))

    @property
    def record(self) -> CalibrationData:
        """Description of the data for the bundle."""
        return CalibrationData(
            data=self.data, split=self.split, scenes=self.scenes,
            objects=len(self.score), right=int(self.right.sum()),
        )  # fmt: skip


def fit_calibration(
    folders: Sequence[BuildingOutcomes], *, protocol: str = ""
) -> tuple[Calibration | None, str]:
    """Fit each kind of function, and take the simplest of those that are as good as the best.

    The best function has the lowest log loss in cross-validation. Functions within one standard
    error of it are as good (Breiman et al. 1984, "Classification and Regression Trees"). The
    simplest choice of all is to leave the scores unchanged.

    There are five folds of whole scenes. Where fewer scenes have buildings, the folds are runs of
    neighbouring buildings. Every folder has the same weight, however many buildings it has.

    Args:
        folders: At least one.
        protocol: Way in which the buildings were predicted, for the record.

    Returns:
        The best calibration and an empty text, or None and the reason, for people.
    """
    score = np.concatenate([f.score for f in folders]).astype(np.float64)
    right = np.concatenate([f.right for f in folders])
    divided = np.concatenate([f.divided for f in folders])
    if not len(score):
        return None, "no building was predicted"
    rare = min(int(right.sum()), int((~right).sum()))
    if len(score) < LEAST_OBJECTS or rare < _LEAST_OF_EACH:
        return None, (
            f"{plural(len(score), 'building was', 'buildings were')} judged, {int(right.sum())} of "
            f"them right; at least "
            f"{LEAST_OBJECTS} are needed, with {_LEAST_OF_EACH} right and {_LEAST_OF_EACH} wrong"
        )
    weight = np.concatenate([np.full(len(f.score), 1 / max(len(f.score), 1)) for f in folders])
    fold = _folds(folders)
    values = {"none": score} | {
        kind: _cross_validated(fit, score, divided, right, weight, fold)
        for kind, fit in FITS.items()
    }
    losses = {kind: _log_loss(value, right) for kind, value in values.items()}
    mean = {kind: float(np.average(loss, weights=weight)) for kind, loss in losses.items()}
    least = losses[min(mean, key=lambda kind: mean[kind])]
    kind = next(kind for kind, loss in losses.items() if _is_as_good(loss, least, weight))
    if kind == "none":
        loss = f"log loss {mean[kind]:.4f}"
        return None, f"no function is clearly better than the scores are ({loss})"
    before, after = Reliability.of(score, right), Reliability.of(values[kind], right)
    calibration = Calibration(
        map=FITS[kind](score, divided, right, weight),
        fitted_on=tuple(folder.record for folder in folders),
        protocol=protocol,
        ece_before=round(before.ece, 5),
        ece_after=round(after.ece, 5),
        log_loss_before=round(before.log_loss, 5),
        log_loss_after=round(after.log_loss, 5),
    )
    return calibration, ""


def _folds(folders: Sequence[BuildingOutcomes]) -> NDArray[np.int64]:
    """Return the (n,) fold of each building."""
    first = np.cumsum([0, *(f.scene.max(initial=-1) + 1 for f in folders)])
    scene = np.concatenate([f.scene + start for f, start in zip(folders, first)])
    _, unit, size = np.unique(scene, return_inverse=True, return_counts=True)
    if len(size) < _FOLDS:
        return np.asarray(np.arange(len(scene)) * _FOLDS // len(scene), np.int64)
    # The largest first, each into the smallest fold: the folds get similar sizes.
    held = np.zeros(_FOLDS, np.int64)
    fold_of = np.empty(len(size), np.int64)
    for which in np.argsort(-size, kind="stable"):
        fold_of[which] = held.argmin()
        held[fold_of[which]] += size[which]
    return np.asarray(fold_of[unit], np.int64)


def _cross_validated(
    fit: Fit,
    score: Floats,
    divided: BoolArray,
    right: BoolArray,
    weight: Floats,
    fold: NDArray[np.int64],
) -> Floats:
    """Return the (n,) score of each building after the function that the other folds give."""
    value = np.empty(len(score))
    for number in range(_FOLDS):
        out = fold == number
        fitted = fit(score[~out], divided[~out], right[~out], weight[~out])
        value[out] = fitted.apply(score[out], divided[out])
    return value


def _log_loss(value: NDArray[np.floating], right: BoolArray) -> Floats:
    """Return the (n,) log loss of each building."""
    inside = np.clip(value, _CLIP, 1 - _CLIP)
    return np.asarray(-np.log(np.where(right, inside, 1 - inside)), np.float64)


def _is_as_good(loss: Floats, least: Floats, weight: Floats) -> bool:
    """Return True if the mean of (n,) losses is within one standard error of the least loss."""
    more = loss - least
    mean = np.average(more, weights=weight)
    error = np.sqrt((weight**2 * (more - mean) ** 2).sum()) / weight.sum()
    return bool(mean <= error)


def _plain(score: Floats, divided: BoolArray, right: BoolArray, weight: Floats) -> LogisticMap:
    """Fit the logistic function of the scores.

    Of the scores, not of their logits: nearly all pixels of a clear building are near 1, where
    logits are far apart although the buildings are right equally often.
    """
    slope, intercept = _slope_and_rest(score, np.ones((len(score), 1)), right, weight)
    return LogisticMap(kind="logistic", slope=_bounded(slope, 0.0), intercept=_bounded(intercept))


def _divided(score: Floats, divided: BoolArray, right: BoolArray, weight: Floats) -> LogisticMap:
    """Fit it with another intercept for the pieces of divided regions."""
    if not 0 < divided.sum() < len(divided):
        return _plain(score, divided, right, weight)
    rest = np.column_stack([np.ones(len(score)), divided])
    slope, intercept, more = _slope_and_rest(score, rest, right, weight)
    return LogisticMap(
        kind="logistic-divided", slope=_bounded(slope, 0.0), intercept=_bounded(intercept),
        divided=_bounded(more),
    )  # fmt: skip


def _slope_and_rest(score: Floats, rest: Floats, right: BoolArray, weight: Floats) -> list[float]:
    """Return the slope of the scores, 0 or more, and the coefficients of `rest` (n, k)."""
    slope, *others = _logistic(np.column_stack([score, rest]), right, weight).tolist()
    if slope < 0:
        # A higher score must not mean a lower probability: it makes no difference instead.
        slope, others = 0.0, _logistic(rest, right, weight).tolist()
    return [slope, *others]


def _bounded(value: float, low: float = -MAX_COEFFICIENT) -> float:
    return float(np.clip(value, low, MAX_COEFFICIENT))


def _logistic(x: Floats, right: BoolArray, weight: Floats) -> Floats:
    """Return the coefficients of a logistic regression on (n, k) predictors, by Newton's method.

    The outcomes are Platt's: slightly inside of 0 and 1, so that a finite optimum always exists.
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


FITS: dict[str, Fit] = {
    "logistic": _plain,
    "logistic-divided": _divided,
}
"""Kinds of functions, the simplest first."""
