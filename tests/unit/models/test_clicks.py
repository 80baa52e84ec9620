"""Maps of clicks, and the simulated annotator."""

import numpy as np

from rooftrace.models.clicks import Click, largest_error, next_click

SHAPE = (20, 30)


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask


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
