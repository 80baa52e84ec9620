"""Fits find the function that the data was made with, and are calibrations for any data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rooftrace.metrics.calibration import (
    FITS,
    LEAST_OBJECTS,
    BuildingOutcomes,
    Reliability,
    _folds,
    fit_calibration,
)


def judged(
    score: np.ndarray,
    right: np.ndarray,
    scenes: int = 10,
    name: str = "a",
    divided: np.ndarray | None = None,
) -> BuildingOutcomes:
    scene = np.sort(np.arange(len(score)) % scenes)
    pieces = none_of(score) if divided is None else divided
    return BuildingOutcomes(name, "val", score.astype(np.float32), right, pieces, scene, scenes)


def none_of(score: np.ndarray) -> np.ndarray:
    """No building is a piece of a divided region."""
    return np.zeros(len(score), np.bool_)


def drawn(
    count: int, slope: float, intercept: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and outcomes that follow a logistic function of them."""
    rng = np.random.default_rng(seed)
    score = rng.uniform(0.3, 0.99, count)
    chance = 1 / (1 + np.exp(-(slope * score + intercept)))
    return score, rng.random(count) < chance


@pytest.mark.parametrize(("slope", "intercept"), [(4.0, -2.0), (9.0, -6.0), (2.0, 0.7)])
def test_a_fit_finds_what_was_put_in(slope: float, intercept: float) -> None:
    score, right = drawn(40_000, slope, intercept)
    found = FITS["logistic"](score, none_of(score), right, np.ones(len(score)))
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept), rel=0.06, abs=0.06)


def test_the_pieces_of_divided_regions_have_an_intercept_of_their_own() -> None:
    whole, pieces = drawn(20_000, 6.0, -2.0), drawn(20_000, 6.0, -3.5, seed=1)
    score, right = (np.concatenate(both) for both in zip(whole, pieces))
    divided = np.arange(40_000) >= 20_000
    found = FITS["logistic-divided"](score, divided, right, np.ones(40_000))
    assert (found.slope, found.intercept, found.divided) == pytest.approx((6, -2, -1.5), rel=0.06)
    assert found.apply(np.array([0.8, 0.8]), np.array([False, True])) == pytest.approx(
        1 / (1 + np.exp([2 - 6 * 0.8, 3.5 - 6 * 0.8])), abs=0.02
    )
    shuffled = np.random.default_rng(0).permutation(40_000)
    folder = judged(score[shuffled], right[shuffled], divided=divided[shuffled])
    made, _ = fit_calibration([folder])
    assert made is not None
    assert made.map.kind == "logistic-divided"


def test_an_outcome_has_the_score_and_the_kind_of_its_building() -> None:
    made = BuildingOutcomes.of_scenes("a", "val", [
        (np.float32([0.5, 0.7]), np.array([True, False]), np.array([True, True])),
        (np.float32([]), np.array([], bool), np.array([], bool)),
        (np.float32([0.8]), np.array([True]), np.array([False])),
    ])  # fmt: skip
    assert made.score == pytest.approx([0.5, 0.7, 0.8])
    assert made.right.tolist() == [True, False, True]
    assert made.divided.tolist() == [True, True, False]
    assert (made.scene.tolist(), made.scenes) == ([0, 0, 2], 3)


def test_calibration_error_falls_on_scenes_that_were_left_out() -> None:
    folder = judged(*drawn(3000, 8.0, -6.0))
    made, _ = fit_calibration([folder])
    assert made is not None
    assert made.ece_after < 0.05 < 0.1 < made.ece_before
    assert made.log_loss_after < made.log_loss_before
    assert (made.fitted_on[0].objects, made.fitted_on[0].right) == (3000, folder.right.sum())
    # New buildings, of the same kind.
    score, right = drawn(20_000, 8.0, -6.0, seed=5)
    value = made.apply(score.astype(np.float32), none_of(score))
    for low in np.arange(0.1, 0.9, 0.2):
        here = (value >= low) & (value < low + 0.2)
        assert right[here].mean() == pytest.approx(value[here].mean(), abs=0.06)


@pytest.mark.parametrize(
    ("right", "reported"),
    [
        (np.zeros(0, bool), "no building was predicted"),
        (np.arange(LEAST_OBJECTS - 1) % 2 == 0, "49 buildings were judged, 25 of them right"),
        (np.ones(500, bool), "500 buildings were judged, 500 of them right"),
        (np.arange(500) < 4, "4 of them right"),
    ],
)
def test_too_few_are_not_fitted(right: np.ndarray, reported: str) -> None:
    made, reason = fit_calibration([judged(np.linspace(0.3, 0.9, len(right)), right)])
    assert made is None
    assert reported in reason


@pytest.mark.parametrize("kind", FITS)
@given(data=st.data())
def test_the_function_is_monotone_for_any_input(kind: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 80))
    levels = data.draw(st.integers(1, 256))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    score = rng.integers(0, levels, count) / max(levels - 1, 1)
    right = rng.random(count) < data.draw(st.floats(0, 1))
    made = FITS[kind](score, rng.random(count) < 0.3, right, rng.uniform(0.1, 1, count))
    values = made.apply(np.linspace(0, 1, 200), np.full(200, data.draw(st.booleans())))
    assert (np.diff(values) >= 0).all()
    assert values.min() >= 0
    assert values.max() <= 1


@given(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=3))
def test_a_scene_is_never_on_both_sides(folders: list[list[int]]) -> None:
    """Numbers of buildings, by scene and folder."""
    made = []
    for sizes in folders:
        scene = np.repeat(np.arange(len(sizes)), sizes)
        score = np.full(len(scene), 0.5, np.float32)
        made.append(BuildingOutcomes("a", "val", score, score > 0, score > 1, scene, len(sizes)))
    fold = _folds(made)
    assert len(fold) == sum(map(sum, folders))
    scenes = [(n, int(s)) for n, folder in enumerate(made) for s in folder.scene]
    held = sum(size > 0 for sizes in folders for size in sizes)
    if held >= 5:
        assert set(fold) == set(range(5))
        assert len({(one, int(f)) for one, f in zip(scenes, fold)}) == held
    else:
        # Runs of neighbours.
        assert (np.diff(fold) >= 0).all()


def test_by_hand() -> None:
    score = np.array([0.85, 0.89, 0.81, 0.25, 1.0], np.float32)
    right = np.array([True, True, False, False, True])
    found = Reliability.of(score, right)
    assert found.count.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 3, 1]
    assert found.objects == 5
    assert found.mean_score[8] == pytest.approx(0.85)
    assert found.share_right[8] == pytest.approx(2 / 3)
    # Three objects are off by 0.85 - 2/3, one by 0.25, one by nothing.
    assert found.ece == pytest.approx((3 * (0.85 - 2 / 3) + 0.25) / 5)
    squares = [0.15**2, 0.11**2, 0.81**2, 0.25**2, 0]
    assert found.brier == pytest.approx(np.mean(squares))
    logs = [np.log(0.85), np.log(0.89), np.log(0.19), np.log(0.75), 0]
    assert found.log_loss == pytest.approx(-np.mean(logs), abs=1e-5)
