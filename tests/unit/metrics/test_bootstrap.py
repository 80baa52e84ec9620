"""Intervals over scenes: by hand, as SciPy draws them, and how often they hold the truth."""

import math
from typing import Any

import numpy as np
import pytest

from rooftrace.metrics.resampling import (
    Interval,
    Ratio,
    expanded,
    mean_counts,
    quotient,
    resample,
)

MEAN = IOU = quotient((1, 0), (0, 1))


def bootstrap_pooled(counts: object, ratio: Ratio, **options: Any) -> Interval:
    return resample(counts, **options).interval(ratio)  # type: ignore[arg-type]


def town(scenes: int, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    """(scenes, 2) pixels in both masks, and in one at least."""
    rng = np.random.default_rng(seed)
    union = rng.lognormal(8, spread, scenes).round()
    return np.stack([(union * rng.beta(5, 2, scenes)).round(), union], axis=1)


def test_by_hand() -> None:
    # Two scenes: the mean of a draw is 0, 1/2 or 1, with the chances 1/4, 1/2, 1/4.
    found = resample(mean_counts([0.0, 1.0]), draws=4000)
    values, count = np.unique(MEAN(found.drawn), return_counts=True)
    assert values.tolist() == [0, 0.5, 1]
    assert count / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    interval = found.interval(MEAN)
    assert (interval.low, interval.value, interval.high) == (0, 0.5, 1)
    assert (interval.units, interval.count, interval.draws) == ("scene", 2, 4000)
    assert interval.is_known


def test_as_scipy_draws_them() -> None:
    stats = pytest.importorskip("scipy.stats")
    counts = town(30)
    outside = expanded(0.025, 30)
    reference = stats.bootstrap(
        (counts[:, 0], counts[:, 1]),
        lambda both, either, axis=-1: both.sum(axis=axis) / either.sum(axis=axis),
        paired=True, vectorized=True, n_resamples=20_000, method="percentile",
        confidence_level=1 - 2 * outside, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    found = bootstrap_pooled(counts, IOU, draws=20_000)
    width = reference.high - reference.low
    assert (found.low, found.high) == pytest.approx(tuple(reference), abs=0.02 * width)


def test_groups_are_drawn_whole_where_there_are_enough() -> None:
    rng = np.random.default_rng(0)
    share = np.repeat(rng.beta(5, 2, 12), 20)
    counts = np.stack([1000 * share, np.full(240, 1000)], axis=1)
    places = [f"place {number}" for number in np.repeat(range(12), 20)]
    by_scene = bootstrap_pooled(counts, IOU)
    by_group = bootstrap_pooled(counts, IOU, groups=places)
    assert (by_scene.units, by_scene.count) == ("scene", 240)
    assert (by_group.units, by_group.count, by_group.note) == ("group", 12, "")
    assert by_group.value == pytest.approx(by_scene.value)
    # Twenty equal scenes of a place hold no more information than one.
    ratio = (by_group.high - by_group.low) / (by_scene.high - by_scene.low)
    assert ratio == pytest.approx(math.sqrt(20), rel=0.4)


def test_without_limits_the_reason_is_said() -> None:
    one = bootstrap_pooled(town(1), IOU)
    assert not one.is_known
    assert (one.reason, one.count) == ("there is only one scene", 1)
    assert np.isnan([one.low, one.high]).all()
    plain = one.to_json()
    assert (plain["low"], plain["reason"]) == (None, "there is only one scene")
    assert plain["value"] == pytest.approx(one.value, abs=1e-6)
    nothing = bootstrap_pooled(np.zeros((5, 2)), IOU)
    assert nothing.reason == "the figure is not defined on these scenes"
    assert nothing.to_json()["value"] is None
    assert not bootstrap_pooled(np.zeros((0, 2)), IOU).is_known
    rare = np.zeros((50, 2))
    rare[:2] = 3, 4
    # Of fifty scenes two have a building: (1 - 2/50)^50 of the draws have neither.
    assert bootstrap_pooled(rare, IOU).reason.startswith("too few scenes bear on it: 13%")
