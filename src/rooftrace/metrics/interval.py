"""How far a figure would be off on other scenes of the kind: intervals by the bootstrap.

A figure over scenes is a function of counts that are added over them, so that the figure of scenes
that were drawn anew is that function of a weighted sum: thousands of draws are one product of
matrices (Efron & Tibshirani 1993, "An Introduction to the Bootstrap"). Pixels or buildings of one
scene are alike and are not drawn apart; scenes are drawn whole, and where they come from enough
groups (places, flights), whole groups.

The limits are expanded percentiles of the draws (Hesterberg 2015, "What Teachers Should Know About
the Bootstrap", Amer. Statistician 69): percentiles so far out that for a mean the interval becomes
that of Student's t. Plain percentiles are too narrow for the few scenes of an evaluation; BCa
limits are no better, and worse where scenes are of very unequal size. In simulated evaluations
(pooled IoU, the largest scenes a hundred times the smallest) 95 % intervals held the truth:

    scenes        5      10     20     50     200
    plain         0.79   0.86   0.89   0.91   0.94
    BCa           0.77   0.83   0.85   0.87   0.91
    expanded      0.90   0.92   0.92   0.91   0.94

Of the 185 images of Rotterdam, taken for all there is, 5 held it in 0.79, 10 and 20 in 0.90, 50 in
0.91 of the cases. So limits of few scenes say that they are likely too narrow.

An interval tells of the choice of scenes alone. It does not tell how other places differ from all
those that were looked at, nor what another training of the model would have come to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rooftrace.metrics.units import UnitKind, Units, draw

__all__ = [
    "DRAWS",
    "LEVEL",
    "MEAN",
    "Interval",
    "Ratio",
    "Resampled",
    "bootstrap_mean",
    "bootstrap_pooled",
    "mean_counts",
    "quotient",
    "resample",
]

DRAWS = 2000
LEVEL = 0.95

Floats = NDArray[np.float64]

Ratio = Callable[[Floats], Floats]
"""Of (n, k) sums of counts the (n,) figures, NaN where one is not defined."""

_FEW = 10
"""With fewer units, limits are likely too narrow."""

_MOST_UNDEFINED = 0.05
"""Of the draws: of scenes of which three have what a figure is of, one draw in twenty has none."""


@dataclass(frozen=True)
class Interval:
    """A figure, and between what limits it is likely to lie on scenes of the kind.

    Args:
        value: on the scenes themselves; NaN where it is not defined.
        low, high: limits; NaN where there are none.
        level: how likely.
        draws: those that the figure is defined on.
        units: what was drawn, whole: `scene` or `group`.
        count: of the units.
        reason: why there are no limits; else empty.
        note: what makes the limits doubtful; else empty.
    """

    value: float
    low: float
    high: float
    level: float
    draws: int
    units: UnitKind
    count: int
    reason: str = ""
    note: str = ""

    @property
    def is_known(self) -> bool:
        """Whether there are limits."""
        return not self.reason

    def to_json(self) -> dict[str, Any]:
        """All fields but empty texts; None in place of NaN."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        texts = {"reason": self.reason, "note": self.note}
        return (
            {name: None if math.isnan(v) else round(v, 6) for name, v in numbers.items()}
            | {"level": self.level, "draws": self.draws, "units": self.units, "count": self.count}
            | {name: text for name, text in texts.items() if text}
        )


@dataclass(frozen=True)
class Resampled:
    """The sums of draws of scenes, for any number of figures.

    Args:
        units: what was drawn.
        drawn: (draws, k) sums of counts.
    """

    units: Units
    drawn: Floats

    @cached_property
    def total(self) -> Floats:
        """(k,) sums over all scenes."""
        return np.asarray(self.units.sums.sum(axis=0), np.float64)

    def interval(self, ratio: Ratio, *, level: float = LEVEL) -> Interval:
        """Of one figure; without limits where fewer than two units were drawn, or where it is not
        defined on more than a twentieth of the draws, as too few scenes have what it is of.

        Args:
            ratio: the figure.
            level: in 0..1.
        """
        value = float(ratio(self.total[None])[0])
        figures = ratio(self.drawn)
        known = figures[~np.isnan(figures)]
        count, kind = len(self.units), self.units.kind
        reason = ""
        if math.isnan(value):
            reason = "the figure is not defined on these scenes"
        elif count < 2:
            reason = f"there is only one {kind}"
        elif len(known) < (1 - _MOST_UNDEFINED) * len(figures):
            share = 1 - len(known) / len(figures)
            reason = f"too few {kind}s bear on it: {share:.0%} of the draws do not define it"
        low = high = math.nan
        if not reason:
            outside = expanded((1 - level) / 2, count)
            low, high = np.quantile(known, [outside, 1 - outside]).tolist()
        few = f"only {count} {kind}s: the limits are likely too narrow" if count < _FEW else ""
        note = "; ".join(filter(None, (few, self.units.note)))
        return Interval(
            value, low, high, level, len(known), kind, count, reason, "" if reason else note
        )  # fmt: skip


def resample(
    counts: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Resampled:
    """Draw as many units as there are, with replacement, and add their counts; many times.

    Args:
        counts: (scenes, k), what figures are made of; side by side for several.
        groups: the group of each scene, see `Units.of`.
        draws: how many times.
        seed: of the draws; the same draws for equal numbers of units.

    Raises:
        ValueError: see `Units.of`.
    """
    units = Units.of(counts, groups)
    return Resampled(units, units.weighted(draw(len(units), draws, seed)))


def bootstrap_pooled(
    counts: ArrayLike,
    ratio: Ratio,
    *,
    groups: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """The interval of a figure of counts that are added over scenes, see `resample`."""
    return resample(counts, groups=groups, draws=draws, seed=seed).interval(ratio, level=level)


def bootstrap_mean(
    values: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Interval:
    """The interval of the mean of (scenes,) values, those that are NaN left out."""
    counts = mean_counts(values)
    return bootstrap_pooled(counts, MEAN, groups=groups, draws=draws, seed=seed, level=level)


def quotient(over: ArrayLike, under: ArrayLike) -> Ratio:
    """The figure whose parts are both weighted sums of counts, NaN where the lower is 0.

    Args:
        over, under: (k,) weights.
    """
    upper, lower = np.asarray(over, np.float64), np.asarray(under, np.float64)

    def ratio(sums: Floats) -> Floats:
        part, whole = sums @ upper, sums @ lower
        made = np.full(len(sums), np.nan)
        return np.asarray(np.divide(part, whole, out=made, where=whole != 0))

    return ratio


def mean_counts(values: ArrayLike) -> Floats:
    """(scenes, 2) counts, of which `MEAN` makes the mean of (scenes,) values; without the NaN."""
    each = np.asarray(values, np.float64)
    return np.stack([np.nan_to_num(each), ~np.isnan(each)], axis=1)


MEAN = quotient((1, 0), (0, 1))


def expanded(outside: float, count: int) -> float:
    """The share of draws to leave out at an end, for `outside` of what is true to lie beyond it.

    Args:
        outside: above 0, at most 0.5.
        count: of the units, at least 2.
    """
    quantile = _student(1 - outside, count - 1)
    return NormalDist().cdf(-math.sqrt(count / (count - 1)) * quantile)


def _student(share: float, freedom: int) -> float:
    """The quantile of Student's t by the expansion of Cornish & Fisher (Abramowitz & Stegun 1964,
    26.7.5): of the 0.975 quantile it misses 1 % at two degrees of freedom, 0.01 % at five.
    """
    z = NormalDist().inv_cdf(share)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(float(term / freedom**power) for power, term in enumerate(terms))
