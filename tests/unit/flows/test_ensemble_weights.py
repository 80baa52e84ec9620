"""Weights and thresholds of ensembles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rooftrace.core.types import Scene
from rooftrace.flows.ensemble import (
    MemberSets,
    PixelSample,
    fit_ensemble,
    fit_weights,
    histogram,
    mean_curve,
    weighted_mean,
)
from rooftrace.flows.labelled_predictions import SetProbabilities
from rooftrace.labels.source import SceneEntry, SceneSet

KNOWN_AND_LABELLED, TRUTH = 1 | 4, 2


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


def samples_of(truth: NDArray[np.bool_], *said: NDArray[np.uint8]) -> list[PixelSample]:
    return [(np.stack([s.ravel() for s in said], axis=1), truth.ravel())]


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
    ((rows, is_building),) = samples

    def value(share: float) -> float:
        levels = weighted_mean(rows, np.array([share, 1 - share]))
        return float(mean_curve([histogram(levels, is_building)], "iou").max())

    assert value(better) > max(map(value, np.linspace(0, 1, 101))) - 0.002


def team(tmp_path: Path, truth: NDArray[np.bool_], *said: NDArray[np.uint8]) -> list[MemberSets]:
    made = tuple(stored(tmp_path / f"m{n}", one, truth) for n, one in enumerate(said))
    return [made]


def fitted(sets: list[MemberSets], models: int, **given: Any) -> Any:
    settings: dict[str, Any] = {
        "thresholds": [0.5] * models,
        "names": [f"model {n}" for n in range(models)],
        "metric": "iou",
        **given,
    }
    return fit_ensemble(sets, **settings)


def pooled_iou(seen: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((seen & truth).sum() / (seen | truth).sum())


def test_figures_at_own_thresholds_by_hand(tmp_path: Path, truth: NDArray[np.bool_]) -> None:
    said = [noisy(truth, 60, seed) for seed in range(2)]
    fit = fitted(team(tmp_path, truth, *said), 2, thresholds=[0.5, 0.4])
    seen = [said[0] >= 128, said[1] >= 102]  # threshold 0.4 is 102.5 of 255ths
    for one, mask in zip(fit.models, seen):
        assert one.own == pytest.approx(pooled_iou(mask, truth), abs=2e-3)
    assert fit.models[0].own == pytest.approx(pooled_iou(seen[0], truth))


def test_models_that_err_apart_are_better_together(
    tmp_path: Path, truth: NDArray[np.bool_]
) -> None:
    fit = fitted(team(tmp_path, truth, *(noisy(truth, 70, s) for s in range(3))), 3)
    best = fit.best_model
    assert fit.average.fitted > best.fitted + 0.1
    assert fit.weighted.fitted >= fit.average.fitted - 1e-3
    assert fit.weighted.by_set == (fit.weighted.fitted,)
    assert sum(fit.weights) == pytest.approx(1)
