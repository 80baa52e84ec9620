"""Encoding and decoding runs is the identity, text is canonical, and any text is handled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rooftrace.core.errors import LabelError
from rooftrace.core.types import Window
from rooftrace.labels.rle import Order, decode_runs, draw_runs, encode_runs, parse_runs

ORDERS = st.sampled_from(["row", "column"])
MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=24))


@given(MASKS, ORDERS)
def test_what_was_encoded_is_decoded(mask: np.ndarray, order: Order) -> None:
    text = encode_runs(mask, order)
    assert np.array_equal(decode_runs(text, mask.shape, order, where="here"), mask)


@given(st.data(), MASKS, ORDERS)
def test_split_and_shuffled_runs_are_the_same_mask(
    data: st.DataObject, mask: np.ndarray, order: Order
) -> None:
    canonical = encode_runs(mask, order)
    pixels = np.flatnonzero(mask.ravel("C" if order == "row" else "F")) + 1
    shuffled = data.draw(st.permutations(pixels.tolist()))
    text = "  ".join(f"{pixel}\t1" for pixel in shuffled)
    assert encode_runs(decode_runs(text, mask.shape, order, where="here"), order) == canonical


@given(st.data(), MASKS, ORDERS)
def test_a_window_is_the_part_of_the_whole(
    data: st.DataObject, mask: np.ndarray, order: Order
) -> None:
    height, width = mask.shape
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = Window(
        row, col, data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col))
    )
    bounds = parse_runs(encode_runs(mask, order), mask.shape, where="here")
    drawn = draw_runs(bounds, mask.shape, order, window)
    assert drawn.flags.c_contiguous
    assert np.array_equal(drawn, mask[window.slices()])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 x 3", "the start of run 2 is 'x'; expected a whole number from 1"),
        ("0 2", "the start of run 1 is '0'"),
        ("3 0", "the length of run 1 is '0'"),
        ("[1, 2]", "the start of run 1 is '[1,'"),
        ("1 2 5", "holds 3 numbers, expected pairs of start and length: the last start, 5, has no"),
        ("62 3", "the run 62 3 ends at pixel 64, but the image has 63 (7 rows × 9 columns)"),
        ("1 5 4 2", "the run 1 5 and the run 4 2 overlap"),
        ("20 2 4 2 1 5", "the run 1 5 and the run 4 2 overlap"),
    ],
)
def test_errors_name_the_run(text: str, message: str) -> None:
    with pytest.raises(LabelError) as caught:
        decode_runs(text, (7, 9), "row", where="t.csv, row 5, column 'mask_rle'")
    assert "t.csv, row 5, column 'mask_rle'" in caught.value.message
    assert message in caught.value.message
