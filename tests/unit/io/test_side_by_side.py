"""Panels side by side: unknown pixels, and colours that everyone can distinguish."""

import numpy as np

from rooftrace.core.types import GeoGrid, Mask
from rooftrace.io.legend import Legend
from rooftrace.io.picture import side_by_side

SHAPE = (300, 400)
LEGEND = Legend(("land", "building"))


def mask_of(data: np.ndarray, valid: np.ndarray | None = None) -> Mask:
    known = np.ones(SHAPE, bool) if valid is None else valid
    return Mask(data.astype(np.uint8), known, GeoGrid(SHAPE))


def test_what_the_prediction_does_not_know_is_grey_in_it_alone() -> None:
    valid = np.ones(SHAPE, bool)
    valid[:, :100] = False
    data = np.where(valid, 0, 255)
    pixels = np.full((3, *SHAPE), 120, np.uint8)
    zeros = np.zeros(SHAPE)
    sheet = side_by_side(pixels, mask_of(zeros), mask_of(data, valid), "", LEGEND)
    _, truth, predicted, errors = (sheet[34:, n * 408 :][:, :400] for n in range(4))
    assert (truth == 120).all()
    for panel in (predicted, errors):
        assert (panel[:, :100] == 70).all()
        assert (panel[:, 100:] == 120).all()
