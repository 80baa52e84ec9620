"""Maps of clicks, and the simulated annotator."""

from __future__ import annotations

import numpy as np
import pytest

from rooftrace.models.clicks import Click, draw_clicks, largest_error, middle, next_click

SHAPE = (20, 30)


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask


def test_maps_fall_with_the_distance_to_the_nearest_click() -> None:
    clicks = [Click(5.5, 5.5), Click(5.5, 25.5), Click(18.5, 15.5, positive=False)]
    positive, negative = draw_clicks(clicks, SHAPE)
    assert positive[5, 5] == positive[5, 25] == negative[18, 15] == 1
    assert positive[5, 13] == pytest.approx(0.5)
    assert positive[13, 5] == pytest.approx(0.5)
    assert (np.diff(positive[5, 5:15]) < 0).all()
    assert negative.argmax() == 18 * SHAPE[1] + 15


def test_the_middle_is_the_deepest_pixel() -> None:
    assert middle(box(2, 3, 5, 5)) == (4.5, 5.5)
    # A region at the edge of the image ends there.
    assert middle(box(0, 0, 3, 3)) == (1.5, 1.5)
    rng = np.random.default_rng(0)
    region = box(2, 3, 7, 9)
    drawn = {middle(region, 0.5, rng) for _ in range(200)}
    assert len(drawn) > 5
    assert all(region[int(row), int(col)] for row, col in drawn)


def test_the_annotator_clicks_in_the_largest_error() -> None:
    truth, known = box(4, 4, 7, 7), np.ones(SHAPE, np.bool_)
    nothing = np.zeros(SHAPE, np.bool_)
    assert next_click(truth, nothing, known) == Click(7.5, 7.5)
    surplus = truth | box(12, 18, 5, 9)
    assert next_click(truth, surplus, known) == Click(14.5, 20.5, positive=False)
    assert next_click(truth, truth, known) is None
    # What is not known is no error.
    assert next_click(truth, surplus, ~box(12, 18, 5, 9)) is None
    error = largest_error(truth, box(4, 4, 7, 4) | box(15, 0, 2, 2), known)
    assert error is not None
    assert np.array_equal(error, box(4, 8, 7, 3))


def test_clicks_of_the_annotator_lead_to_the_truth() -> None:
    """Each click mends the region of the error that it is in."""
    rng = np.random.default_rng(1)
    truth = rng.random(SHAPE) < 0.5
    answer, known = np.zeros(SHAPE, np.bool_), np.ones(SHAPE, np.bool_)
    for _ in range(SHAPE[0] * SHAPE[1]):
        click = next_click(truth, answer, known)
        if click is None:
            break
        region = largest_error(truth, answer, known)
        assert region is not None
        assert region[int(click.row), int(click.col)]
        answer[region] = click.positive
    assert np.array_equal(answer, truth)
