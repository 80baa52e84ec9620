"""Weights and thresholds of ensembles, and figures of scenes that were left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rooftrace.core.types import Scene
from rooftrace.flows.ensemble_fit import (
    FOLDS,
    MemberSets,
    PixelSample,
    fit_ensemble,
    fit_weights,
    folds_of,
    histogram,
    mean_curve,
    weighted_mean,
)
from rooftrace.flows.labelled_predictions import SetProbabilities
from rooftrace.labels.source import SceneEntry, SceneSet

KNOWN_AND_LABELLED, TRUTH = 1 | 8, 4


def never(entry: SceneEntry) -> Scene:
    raise AssertionError("images are not opened")


def scene_set(count: int, groups: list[str] | None = None) -> SceneSet:
    entries = tuple(
        SceneEntry(f"{number:03}", None, "" if groups is None else groups[number])
        for number in range(count)
    )
    return SceneSet("made", "made", ("background", "building"), 1, entries, never)


def stored(folder: Path, said: NDArray[np.uint8], truth: NDArray[np.bool_]) -> SetProbabilities:
    """Store a model's scores and the truth of scenes, each (scenes, y, x)."""
    folder.mkdir(parents=True)
    for number, (score, right) in enumerate(zip(said, truth)):
        bits = np.uint8(KNOWN_AND_LABELLED) + right * np.uint8(TRUTH)
        np.save(folder / f"{number}.npy", np.stack([score, bits]))
    return SetProbabilities(scene_set(len(said)), folder)


def noisy(truth: NDArray[np.bool_], spread: float, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return (truth * 120 + 60 + rng.normal(0, spread, truth.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def truth() -> NDArray[np.bool_]:
    return np.random.default_rng(9).random((10, 40, 50)) < 0.3


@given(st.integers(1, 10), st.integers(0, 200), st.integers(0, 2**31))
def test_a_sample_counts_as_its_pixels_do(models: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 4, (count, models), np.uint8) * np.uint8(60)
    truth = rng.random(count) < 0.5
    weights = rng.dirichlet(np.ones(models))
    sample = PixelSample.of(rows, truth)
    levels = weighted_mean(rows, weights)
    assert np.array_equal(
        histogram(weighted_mean(sample.rows, weights), sample.truth, sample.counts),
        histogram(levels, truth),
    )
    assert histogram(levels, truth).sum() == count


def samples_of(truth: NDArray[np.bool_], *said: NDArray[np.uint8]) -> list[list[PixelSample]]:
    return [[PixelSample.of(np.stack([s.ravel() for s in said], axis=1), truth.ravel())]]


def test_a_model_that_knows_nothing_has_none(truth: NDArray[np.bool_]) -> None:
    said = [noisy(truth, 50, 0), noisy(truth, 50, 1), noisy(truth[::-1], 10, 2)]
    weights = fit_weights(samples_of(truth, *said), 3, "dice")
    assert weights[2] == 0
    assert min(weights[:2]) > 0.25


def test_the_better_of_two_weighs_more(truth: NDArray[np.bool_]) -> None:
    samples = samples_of(truth, noisy(truth, 45, 0), noisy(truth, 75, 1))
    better, worse = fit_weights(samples, 2, "iou")
    assert better > worse > 0
    # As good as any on a finer grid, but for a hundredth of a point or so.
    (sample,) = samples[0]

    def value(share: float) -> float:
        levels = weighted_mean(sample.rows, np.array([share, 1 - share]))
        return float(mean_curve([histogram(levels, sample.truth, sample.counts)], "iou").max())

    assert value(better) > max(map(value, np.linspace(0, 1, 101))) - 0.002


def test_folds_keep_groups_together() -> None:
    assert folds_of(scene_set(10)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert folds_of(scene_set(2)).tolist() == [0, 2]
    groups = [f"flight {number // 3}" for number in range(18)]
    folds = folds_of(scene_set(18, groups))
    assert set(folds.tolist()) == set(range(FOLDS))
    for group in set(groups):
        assert len({f for f, g in zip(folds.tolist(), groups) if g == group}) == 1
    # Four places are too few to be left out one by one.
    few = [f"place {number % 4}" for number in range(20)]
    assert folds_of(scene_set(20, few)).tolist() == folds_of(scene_set(20)).tolist()


def team(tmp_path: Path, truth: NDArray[np.bool_], *said: NDArray[np.uint8]) -> list[MemberSets]:
    made = tuple(stored(tmp_path / f"m{n}", one, truth) for n, one in enumerate(said))
    return [made]


def fitted(tmp_path: Path, sets: list[MemberSets], models: int, **given: Any) -> Any:
    settings: dict[str, Any] = {
        "thresholds": [0.5] * models,
        "names": [f"model {n}" for n in range(models)],
        "metric": "iou",
        **given,
    }
    return fit_ensemble(sets, scratch=tmp_path, **settings)


def pooled_iou(seen: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((seen & truth).sum() / (seen | truth).sum())


def test_figures_at_own_thresholds_by_hand(tmp_path: Path, truth: NDArray[np.bool_]) -> None:
    said = [noisy(truth, 60, seed) for seed in range(2)]
    fit = fitted(tmp_path, team(tmp_path, truth, *said), 2, thresholds=[0.5, 0.4])
    seen = [said[0] >= 128, said[1] >= 102]  # threshold 0.4 is 102.5 of 255ths
    for one, mask in zip(fit.models, seen):
        assert one.own == pytest.approx(pooled_iou(mask, truth), abs=2e-3)
    assert fit.models[0].own == pytest.approx(pooled_iou(seen[0], truth))
    assert fit.scenes == 10


def test_models_that_err_apart_are_better_together(
    tmp_path: Path, truth: NDArray[np.bool_]
) -> None:
    fit = fitted(tmp_path, team(tmp_path, truth, *(noisy(truth, 70, s) for s in range(3))), 3)
    best = fit.best_model
    assert fit.average.left_out > best.left_out + 0.1
    assert fit.weighted.left_out > best.left_out + 0.1
    gain = fit.against_best(fit.weighted)
    assert gain.difference.value == pytest.approx(fit.weighted.left_out - best.left_out)
    assert gain.difference.low > 0
    assert gain.p_value < 0.01
    assert gain.better == gain.scenes == 10


def test_what_is_left_out_is_judged_by_what_was_fitted_without_it(tmp_path: Path) -> None:
    """The scenes of one fold are answered the other way round: no threshold that the others give
    finds them, while one that was fitted on all would.
    """
    truth = np.zeros((5, 20, 20), bool)
    truth[:, :10] = True
    said = np.where(truth, 200, 100).astype(np.uint8)
    said[4] = np.where(truth[4], 90, 40)
    fit = fitted(tmp_path, team(tmp_path, truth, said, said), 2)
    one = fit.models[0]
    # Fitted on all, or on others with the fifth: 41 to 90 finds it, and all else beside; 101 to
    # 200 finds four of five scenes.
    assert one.fitted == pytest.approx(0.8)
    assert 101 <= one.threshold_level <= 200
    assert one.left_out == pytest.approx(0.8)
    assert one.counts[:, 0].tolist() == [200, 200, 200, 200, 0]
