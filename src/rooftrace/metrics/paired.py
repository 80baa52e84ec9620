"""Whether one model is better than another on the same scenes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rooftrace.metrics.interval import DRAWS, LEVEL, Interval, Ratio, resample
from rooftrace.metrics.units import CHUNK, Units

__all__ = ["PairedTest", "paired"]

Floats = NDArray[np.float64]

_EXACT_UNITS = 12
"""Of so many all 4,096 exchanges are looked at."""

_ROUNDING = 1e-12


@dataclass(frozen=True)
class PairedTest:
    """How two models compare.

    Args:
        first, second: the figure of each over all scenes.
        difference: first - second, with its interval.
        p_value: how often a difference at least as large, of either sign, comes of exchanging the
            two models' results in scenes at random; NaN where the difference is not defined.
        is_exact: every exchange was looked at.
        scenes: how many.
        better, worse, equal: scenes by whether the figure of the first is higher, lower, the same.
    """

    first: float
    second: float
    difference: Interval
    p_value: float
    is_exact: bool
    scenes: int
    better: int
    worse: int
    equal: int

    def to_json(self) -> dict[str, Any]:
        """All fields; None in place of NaN."""
        numbers = {"first": self.first, "second": self.second, "p_value": self.p_value}
        return {name: None if math.isnan(v) else round(v, 6) for name, v in numbers.items()} | {
            "difference": self.difference.to_json(),
            "exact": self.is_exact,
            "scenes": self.scenes,
            "better": self.better,
            "worse": self.worse,
            "equal": self.equal,
        }


def paired(
    first: ArrayLike,
    second: ArrayLike,
    ratio: Ratio,
    *,
    groups: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> PairedTest:
    """Compare two models by a figure of counts that are added over scenes.

    The interval is of the difference on scenes that are drawn anew, the same for both. The p-value
    is that of the randomisation test: were the models alike, either result of a scene might be
    either's (Noreen 1989, "Computer-Intensive Methods for Testing Hypotheses"; for pooled figures
    Yeh 2000, "More Accurate Tests for the Statistical Significance of Result Differences"). All
    exchanges are looked at for up to 12 scenes, or groups; of more a sample, to which the result
    itself is added (Phipson & Smyth 2010, "Permutation P-values Should Never Be Zero"). The
    smallest p-value that n scenes can give is 2 / 2^n.

    Both tell of the choice of scenes alone: that these two models, as they are, differ on scenes of
    this kind. They do not tell that one way of training is better than another: a second training
    with another seed gives another model (Bouthillier et al. 2021, "Accounting for Variance in
    Machine Learning Benchmarks"). Nor do they allow for the best having been picked of many.

    Args:
        first, second: (scenes, k) counts of each, scenes in the same order.
        ratio: the figure; a scene where it is not defined counts as 1 in `better` to `equal`, as
            nothing was there to find, and nothing found.
        groups: the group of each scene, see `Units.of`.
        draws: of scenes, and of exchanges.
        seed: of both.
        level: of the interval.

    Raises:
        ValueError: counts of different shapes, or see `Units.of`.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != other.shape:
        raise ValueError(f"counts of shapes {one.shape} and {other.shape}; expected equal ones")
    both = resample(np.hstack([one, other]), groups=groups, draws=draws, seed=seed)
    size = one.shape[1]

    def difference(sums: Floats) -> Floats:
        return np.asarray(ratio(sums[:, :size]) - ratio(sums[:, size:]), np.float64)

    gain = _of_scenes(ratio, one) - _of_scenes(ratio, other)
    alike = np.abs(gain) <= _ROUNDING
    return PairedTest(
        first=float(ratio(one.sum(axis=0)[None])[0]),
        second=float(ratio(other.sum(axis=0)[None])[0]),
        difference=both.interval(difference, level=level),
        p_value=_p_value(ratio, both.units, draws, seed),
        is_exact=len(both.units) <= _EXACT_UNITS,
        scenes=len(one),
        better=int(((gain > 0) & ~alike).sum()),
        worse=int(((gain < 0) & ~alike).sum()),
        equal=int(alike.sum()),
    )


def _of_scenes(ratio: Ratio, counts: Floats) -> Floats:
    """(scenes,) the figure of each."""
    figure = ratio(counts)
    return np.where(np.isnan(figure), 1.0, figure)


def _p_value(ratio: Ratio, units: Units, draws: int, seed: int) -> float:
    """Of units whose counts are those of both models, side by side."""
    size = units.sums.shape[1] // 2
    one, other = units.sums[:, :size], units.sums[:, size:]
    total = one.sum(axis=0), other.sum(axis=0)
    exact = len(units) <= _EXACT_UNITS
    swaps = _all_swaps(len(units)) if exact else _random_swaps(len(units), draws, seed)
    moved = Units(other - one, units.kind).weighted(swaps)
    away = np.abs(ratio(total[0] + moved) - ratio(total[1] - moved))
    seen = abs(float(ratio(total[0][None])[0] - ratio(total[1][None])[0]))
    if math.isnan(seen):
        return math.nan
    # An exchange that leaves nothing to compare is no sign of a difference.
    as_large = int((np.isnan(away) | (away >= seen - _ROUNDING)).sum())
    return as_large / len(away) if exact else (1 + as_large) / (1 + len(away))


def _all_swaps(count: int) -> Iterator[Floats]:
    yield (np.arange(1 << count)[:, None] >> np.arange(count) & 1).astype(np.float64)


def _random_swaps(count: int, draws: int, seed: int) -> Iterator[Floats]:
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // count)
    for first in range(0, draws, step):
        yield rng.integers(2, size=(min(step, draws - first), count)).astype(np.float64)
