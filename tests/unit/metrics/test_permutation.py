"""Two models on the same scenes: by hand, as SciPy has it, and how often chance is a finding."""

import numpy as np
import pytest

from rooftrace.metrics.resampling import mean_counts, paired_permutation_test, quotient

MEAN = IOU = quotient((1, 0), (0, 1))


def models(scenes: int, gain: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts of two models that share what is hard in a scene; the first is better by `gain`."""
    rng = np.random.default_rng(seed)
    union = rng.lognormal(8, 0.8, scenes).round()
    shared = rng.beta(5, 2, scenes)
    sides = (np.clip(shared + g + rng.normal(0, 0.03, scenes), 0, 1) for g in (gain, 0))
    first, second = (np.stack([(union * side).round(), union], axis=1) for side in sides)
    return first, second


def test_by_hand() -> None:
    found = paired_permutation_test(
        mean_counts([0.9, 0.8, 0.7]), mean_counts([0.5, 0.7, 0.7]), MEAN
    )
    assert (found.first, found.second) == pytest.approx((2.4 / 3, 1.9 / 3))
    assert found.difference.value == pytest.approx(0.5 / 3)
    assert (found.scenes, found.better, found.worse, found.equal) == (3, 2, 0, 1)
    # Of the eight exchanges those that part the two gains undo some of the difference: four.
    assert found.p_value == 0.5
    assert found.is_exact
    back = paired_permutation_test(mean_counts([0.5, 0.7, 0.7]), mean_counts([0.9, 0.8, 0.7]), MEAN)
    assert (back.better, back.worse, back.p_value) == (0, 2, 0.5)
    assert back.difference.low == pytest.approx(-found.difference.high)


@pytest.mark.parametrize("scenes", [8, 13])
def test_exact_as_scipy_has_it(scenes: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = models(scenes, 0.01)
    both = np.concatenate([first, second])

    def difference(one, other, axis):  # type: ignore[no-untyped-def]
        sums = [both[np.asarray(which, int)].sum(axis=-2) for which in (one, other)]
        ious = [part[..., 0] / part[..., 1] for part in sums]
        return ious[0] - ious[1]

    reference = stats.permutation_test(
        np.arange(2.0 * scenes).reshape(2, scenes), difference, permutation_type="samples",
        vectorized=True, n_resamples=np.inf,
    )  # fmt: skip
    found = paired_permutation_test(first, second, IOU)
    assert found.difference.value == pytest.approx(reference.statistic)
    assert found.p_value == pytest.approx(reference.pvalue)


def test_places_are_exchanged_whole() -> None:
    first, second = models(60, 0.01)
    places = [f"{number % 12}" for number in range(60)]
    found = paired_permutation_test(first, second, IOU, groups=places)
    assert (found.difference.units, found.difference.count) == ("group", 12)
    assert found.is_exact
    assert found.scenes == found.better + found.worse + found.equal == 60
    assert paired_permutation_test(first, second, IOU).difference.units == "scene"


def test_nothing_to_find_and_nothing_found_is_right() -> None:
    empty, false_alarm, hit = [0.0, 0.0], [0.0, 5.0], [4.0, 5.0]
    found = paired_permutation_test([empty, empty, hit], [empty, false_alarm, hit], IOU)
    assert (found.better, found.worse, found.equal) == (1, 0, 2)
