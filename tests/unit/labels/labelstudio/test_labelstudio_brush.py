"""Brush masks are decoded to what was encoded, and malformed bit streams are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from rooftrace.labels.labelstudio_regions import (
    BrushError,
    decode_alpha,
    decode_brush,
    encode_brush,
)

shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
masks = shapes.flatmap(lambda shape: arrays(np.bool_, shape))


def pack(words: list[int], chunks: list[tuple[bool, int]], word_bits: int = 8) -> bytes:
    """Encode a stream as @thi.ng/rle-pack defines it, from (repeated, count) for each chunk."""
    sizes = (2, 5, 7, 12)
    bits = f"{len(words):032b}{word_bits - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    at = 0
    for repeated, count in chunks:
        index = next(i for i, size in enumerate(sizes) if count <= 1 << size)
        bits += f"{repeated:b}{index:02b}{count - 1:0{sizes[index]}b}"
        for word in words[at : at + (1 if repeated else count)]:
            bits += f"{word:0{word_bits}b}"
        at += count
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@given(masks)
def test_what_is_encoded_is_decoded(mask: NDArray[np.bool_]) -> None:
    packed = encode_brush(mask)
    assert np.array_equal(decode_brush(packed, mask.shape), mask)
    assert set(np.unique(decode_alpha(packed, mask.shape))) <= {0, 255}


def test_runs_that_no_count_can_hold() -> None:
    mask = np.zeros((300, 301), dtype=bool)
    mask[120:, :] = True
    assert np.array_equal(decode_brush(encode_brush(mask), mask.shape), mask)
    # 4 × 65536 words fill whole counts, and one more pixel does not.
    for extra in (0, 1):
        full = np.ones((1, 65536 + extra), dtype=bool)
        assert decode_brush(encode_brush(full), full.shape).all()


def test_what_is_wrong_is_said() -> None:
    packed = encode_brush(np.ones((4, 4), dtype=bool))
    with pytest.raises(BrushError, match=r"for 64 values, not for the 4 × 20 of 4 rows × 5 col"):
        decode_alpha(packed, (4, 5))
    huge = bytes([255] * 4) + packed[4:]
    with pytest.raises(BrushError, match="for 4,294,967,295 values"):
        decode_alpha(huge, (4, 4))
    with pytest.raises(BrushError, match="its values have 16 bits"):
        decode_alpha(packed[:4] + bytes([0b01111_000]) + packed[5:], (4, 4))
    with pytest.raises(BrushError, match="goes 4 values beyond the image"):
        decode_alpha(pack([1] * 8, [(True, 12)]), (1, 2))
