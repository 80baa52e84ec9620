"""Any pixels become something to look at."""

from __future__ import annotations

import numpy as np
import pytest

from rooftrace.io.display import as_rgb

RNG = np.random.default_rng(0)


def test_eight_bits_stay_as_they_are() -> None:
    data = RNG.integers(0, 256, (5, 6, 7), dtype=np.uint8)
    np.testing.assert_array_equal(as_rgb(data), np.moveaxis(data[:3], 0, -1))
    np.testing.assert_array_equal(as_rgb(data[:2]), np.repeat(data[0][..., None], 3, axis=2))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_others_are_stretched_over_what_is_valid(dtype: type) -> None:
    data = np.linspace(200, 900, 300).reshape(3, 10, 10).astype(dtype)
    valid = np.ones((10, 10), dtype=bool)
    valid[0] = False
    data[:, 0] = 60000
    shown = as_rgb(data, valid)
    assert shown.dtype == np.uint8
    assert (shown[0] == 255).all()
    assert shown[1:].min() == 0
    assert shown[1:].max() == 255
    # Without it what is not valid takes the whole range.
    assert as_rgb(data)[1:].max() < 10


def test_where_nothing_is_valid() -> None:
    assert as_rgb(np.zeros((1, 2, 2), np.float32), np.zeros((2, 2), bool)).shape == (2, 2, 3)
