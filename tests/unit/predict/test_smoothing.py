"""Frames mixed over time: the filter by hand, the ground followed, cuts found."""

import cv2
import numpy as np
import pytest

from rooftrace.predict.smoothing import CutFinder, Smoother

SHAPE = (120, 160)
BLACK = np.zeros((*SHAPE, 3), dtype=np.uint8)


def even(value: int) -> np.ndarray:
    return np.full(SHAPE, value, dtype=np.uint8)


def ground(seed: int, shape_yx: tuple[int, int] = (400, 500)) -> np.ndarray:
    """(y, x, 3) something to look at: soft spots of all sizes."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.integers(0, 255, (shape_yx[0] // px, shape_yx[1] // px, 3), dtype=np.uint8),
                   shape_yx[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
        for px in (5, 12, 40)
    ]  # fmt: skip
    return np.mean(layers, axis=0).clip(0, 255).astype(np.uint8)


def view(picture: np.ndarray, row: int, col: int) -> np.ndarray:
    return np.ascontiguousarray(picture[row : row + SHAPE[0], col : col + SHAPE[1]])


@pytest.mark.parametrize("rate", [5, 25, 100])
def test_a_change_has_come_through_by_63_percent_after_the_time_constant(rate: int) -> None:
    """Reach 1 − 1/e of the way from 0 to 200 at every frame rate."""
    smoothed, still = Smoother("flow", 0.4), view(ground(0), 0, 0)
    smoothed.feed(still, even(0), 0.0, cut=False)
    for number in range(1, round(0.4 * rate) + 1):
        known = smoothed.feed(still, even(200), number / rate, cut=False)
    np.testing.assert_allclose(known, 200 * (1 - np.exp(-1)), rtol=1e-4)


def test_frames_that_are_skipped_carry_on() -> None:
    smoothed = Smoother("none", 0.3)
    assert not smoothed.feed(BLACK, None, 0.0, cut=False).any()
    smoothed.feed(BLACK, even(90), 0.1, cut=False)
    np.testing.assert_array_equal(smoothed.feed(BLACK, None, 0.2, cut=False), even(90))


@pytest.mark.parametrize("kind", ["none", "flow"])
def test_a_cut_forgets(kind: str) -> None:
    smoothed = Smoother(kind, 10.0)  # type: ignore[arg-type]
    smoothed.feed(view(ground(0), 0, 0), even(250), 0.0, cut=False)
    known = smoothed.feed(view(ground(1), 0, 0), even(10), 0.04, cut=True)
    np.testing.assert_array_equal(known, even(10))
    assert not smoothed.feed(view(ground(2), 0, 0), None, 0.08, cut=True).any()


@pytest.mark.parametrize("step_yx", [(0, 4), (3, -2), (-2, 5)])
def test_flow_carries_what_is_known_along_with_the_ground(step_yx: tuple[int, int]) -> None:
    """A disc is given once; ten frames later it lies where the ground beneath it does."""
    picture = ground(3)
    smoothed = Smoother("flow", 0.3)
    disc = cv2.circle(even(0), (80, 60), 15, 255, -1)
    smoothed.feed(view(picture, 150, 150), disc, 0.0, cut=False)
    for number in range(1, 8):
        row, col = 150 + number * step_yx[0], 150 + number * step_yx[1]
        known = smoothed.feed(view(picture, row, col), None, number / 25, cut=False)
    rows, cols = np.nonzero(known > 127)
    assert rows.mean() == pytest.approx(60 - 7 * step_yx[0], abs=1)
    assert cols.mean() == pytest.approx(80 - 7 * step_yx[1], abs=1)
    assert rows.size == pytest.approx((disc > 127).sum(), rel=0.1)
    # Without flow it would lie where it was.
    still = Smoother("none", 0.3)
    still.feed(BLACK, disc, 0.0, cut=False)
    np.testing.assert_array_equal(still.feed(BLACK, None, 1.0, cut=False), disc)


def test_cuts_are_found_and_movement_is_none() -> None:
    picture = ground(6)
    finder = CutFinder()
    for number in range(8):
        assert not finder.is_cut(view(picture, 100 + number * 2, 100 + number * 5))
    # The same place in other light.
    assert not finder.is_cut(view(picture, 116, 140) // 2 + 20)
    assert finder.is_cut(view(ground(7), 0, 0))
    assert not finder.is_cut(view(ground(7), 1, 1))
    assert finder.is_cut(BLACK)
    assert not finder.is_cut(BLACK)
