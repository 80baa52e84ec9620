"""What a bundle says of its scores: how the mean probability of a building's pixels becomes the
probability that it is a building.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "MAX_COEFFICIENT",
    "MAX_KNOTS",
    "Calibration",
    "CalibrationData",
    "IsotonicMap",
    "LogisticMap",
    "logit",
]

MAX_KNOTS = 64
MAX_COEFFICIENT = 1000.0

_EDGE = 1 / 510
"""Half of a 255th, which probabilities of pixels are counted in: a score nearer to 0 or 1 says no
more."""

Unit = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Coefficient = Annotated[float, Field(ge=-MAX_COEFFICIENT, le=MAX_COEFFICIENT)]
Floats = NDArray[np.float64]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def logit(score: NDArray[np.floating]) -> Floats:
    """ln(s / (1 - s)) of scores in 0..1, which are kept 1/510 away from both ends."""
    inside = np.clip(np.asarray(score, np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside / (1 - inside)), np.float64)


class LogisticMap(_Frozen):
    """The logistic function of `slope · logit(score) + intercept`.

    Args:
        kind: `temperature` (Guo et al. 2017, "On Calibration of Modern Neural Networks"; its
            temperature is 1 / slope, and there is no intercept) or `platt` (Platt 1999,
            "Probabilistic Outputs for Support Vector Machines").
        slope: 0 or more, so that a better score is never less probable.
        intercept: 0 with `temperature`.
    """

    kind: Literal["temperature", "platt"]
    slope: Annotated[Coefficient, Field(ge=0)]
    intercept: Coefficient = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> LogisticMap:
        if self.kind == "temperature" and self.intercept != 0:
            raise ValueError(f"a temperature has no intercept, and {self.intercept} was given")
        return self

    def apply(self, score: NDArray[np.floating]) -> Floats:
        """(n,) scores to (n,) probabilities."""
        # This form of the logistic function does not overflow.
        halved = (self.slope * logit(score) + self.intercept) / 2
        return np.asarray((1 + np.tanh(halved)) / 2, np.float64)


class IsotonicMap(_Frozen):
    """Straight lines between knots, and constant beyond the first and the last (isotonic
    regression; Zadrozny and Elkan 2002, "Transforming Classifier Scores into Accurate Multiclass
    Probability Estimates").

    Args:
        scores: of the knots, each above the one before.
        probabilities: at the knots, none below the one before.
    """

    kind: Literal["isotonic"] = "isotonic"
    scores: Annotated[tuple[Unit, ...], Field(min_length=1, max_length=MAX_KNOTS)]
    probabilities: Annotated[tuple[Unit, ...], Field(min_length=1, max_length=MAX_KNOTS)]

    @model_validator(mode="after")
    def _consistent(self) -> IsotonicMap:
        if len(self.scores) != len(self.probabilities):
            raise ValueError(
                f"there are {len(self.scores)} scores for {len(self.probabilities)} probabilities"
            )
        if any(before >= after for before, after in pairwise(self.scores)):
            raise ValueError("the scores do not increase from knot to knot")
        if any(before > after for before, after in pairwise(self.probabilities)):
            raise ValueError("the probabilities decrease from one knot to another")
        return self

    def apply(self, score: NDArray[np.floating]) -> Floats:
        """(n,) scores to (n,) probabilities."""
        return np.asarray(np.interp(score, self.scores, self.probabilities), np.float64)


class CalibrationData(_Frozen):
    """What a calibration was fitted on.

    Args:
        data: name of the folder.
        split: the part of a split that was taken, `all` of it, or `val`.
        scenes: in which buildings were predicted.
        objects: predicted buildings that were judged.
        right: those of them whose IoU with a labelled building is above 0.5.
    """

    data: str
    split: str
    scenes: Count
    objects: Count
    right: Count


class Calibration(_Frozen):
    """From the score of a building to the probability that it is one: that its IoU with a building
    of the label is above 0.5.

    Args:
        map: the function, which is monotone.
        fitted_on: the data.
        protocol: how its buildings were predicted.
        ece_before, ece_after: expected calibration error (`metrics.reliability`) of the scores
            themselves, and of the function's values. The latter are of scenes that were left out
            when they were fitted.
        log_loss_before, log_loss_after: the same of the mean log loss.
    """

    map: Annotated[LogisticMap | IsotonicMap, Field(discriminator="kind")]
    fitted_on: Annotated[tuple[CalibrationData, ...], Field(min_length=1)]
    protocol: str = ""
    ece_before: Unit
    ece_after: Unit
    log_loss_before: Annotated[float, Field(ge=0)]
    log_loss_after: Annotated[float, Field(ge=0)]

    def apply(self, score: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores to probabilities.

        Args:
            score: (n,) in 0..1; NaN where there is none, and stays it.

        Returns:
            (n,) float32 in 0..1, in the order of the scores.
        """
        return self.map.apply(score).astype(np.float32)
