"""Label Studio's brush masks: run lengths, packed by the bit.

The bit stream of @thi.ng/rle-pack, which Label Studio's editor writes:
https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack

    32 bits   how many words follow: 4 for each pixel, red, green, blue and alpha, row by row
     5 bits   bits of a word, less one
    4×4 bits  bits of a count, less one, for each of four sizes
    chunks    1 bit: whether one word is repeated; 2 bits: which size the count has; the count, less
              one; then the one word, or as many words as were counted

The mask is the alpha channel; the editor writes the same into all four.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import BoolArray

__all__ = ["BrushError", "decode_alpha", "decode_brush", "encode_brush"]

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

_HEADER_BITS = 32 + 5 + 4 * 4
_MOST_WORDS = 2**32 - 1
_CHANNELS = 4
_OPAQUE = 255

_SIZES = np.array([3, 4, 8, 16])
"""Bits of the counts that are written: the editor's own."""

_WORD_BITS = 8
_LONGEST_RUN = 1 << int(_SIZES[-1])

_BLOCK_BYTES = 1 << 16
"""Read at a time; each byte is looked at from each of its eight bits."""

_PADDING = np.zeros(8, dtype=np.uint8)


class BrushError(ValueError):
    """Bytes that are no brush mask of the size that was expected; says why."""


def encode_brush(mask: BoolArray) -> bytes:
    """A mask (y, x) as the editor would store it, opaque white where it is True.

    Raises:
        BrushError: it has 2^30 pixels or more, which the format cannot count.
    """
    words = mask.size * _CHANNELS
    if words > _MOST_WORDS or not words:
        raise BrushError(f"it has {mask.size:,} pixels; a brush mask holds 1 to 2^30 - 1")
    flat = mask.ravel()
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size) * _CHANNELS
    values = np.where(flat[starts], _OPAQUE, 0)
    # A run that no count can hold goes into several.
    full = (lengths - 1) // _LONGEST_RUN
    last = np.cumsum(full + 1) - 1
    counts = np.full(int(last[-1]) + 1, _LONGEST_RUN, dtype=np.int64)
    counts[last] = lengths - full * _LONGEST_RUN
    values = np.repeat(values, full + 1)
    which = np.searchsorted(1 << _SIZES, counts)
    code = ((0b100 | which) << _SIZES[which] | (counts - 1)) << _WORD_BITS | values
    width = 3 + _SIZES[which] + _WORD_BITS
    at = _HEADER_BITS + np.cumsum(width) - width
    bits = np.zeros(_HEADER_BITS + int(width.sum()), dtype=np.uint8)
    header = words << 5 | (_WORD_BITS - 1)
    for size in _SIZES.tolist():
        header = header << 4 | (size - 1)
    bits[:_HEADER_BITS] = [header >> shift & 1 for shift in reversed(range(_HEADER_BITS))]
    for index in range(len(_SIZES)):
        chosen = which == index
        span = np.arange(3 + _SIZES[index] + _WORD_BITS)
        bits[at[chosen][:, None] + span] = code[chosen][:, None] >> span[::-1] & 1
    return np.packbits(bits).tobytes()


def decode_brush(rle: bytes, shape_yx: tuple[int, int]) -> BoolArray:
    """The mask (y, x) of a brush: where alpha is more than half of the most that it reaches.

    The editor smooths the edge of a stroke, and a few scripts write 1 for 255.

    Raises:
        BrushError: as in `decode_alpha`.
    """
    alpha = decode_alpha(rle, shape_yx)
    mask: BoolArray = alpha > alpha.max(initial=0) // 2
    return mask


def decode_alpha(rle: bytes, shape_yx: tuple[int, int]) -> NDArray[np.uint8]:
    """The alpha channel (y, x) of a brush.

    Nothing is allocated by what the bytes claim: they must claim the size of the image.

    Args:
        rle: the bytes that Label Studio lists as numbers.
        shape_yx: of the image.

    Raises:
        BrushError: the bytes are for another size, are too few, or go on beyond the image.
    """
    pixels = shape_yx[0] * shape_yx[1]
    data = np.frombuffer(rle, dtype=np.uint8)
    if len(data) * 8 < _HEADER_BITS:
        raise BrushError(f"it has {len(data)} bytes, less than its header of {_HEADER_BITS} bits")
    header = int.from_bytes(rle[:7], "big") >> (56 - _HEADER_BITS)
    words = header >> 21
    word_bits = (header >> 16 & 31) + 1
    if words != pixels * _CHANNELS:
        raise BrushError(
            f"it is for {words:,} values, not for the {_CHANNELS} × {pixels:,} of "
            f"{shape_yx[0]} rows × {shape_yx[1]} columns"
        )
    if word_bits > 8:
        raise BrushError(f"its values have {word_bits} bits; expected 8 or less")
    sizes = np.array([(header >> shift & 15) + 1 for shift in (12, 8, 4, 0)], dtype=np.uint64)
    chunks = _find_chunks(data, sizes, word_bits, words)
    ends = np.cumsum(chunks.counts)
    starts = ends - chunks.counts
    # Of the words from start to end every fourth is alpha, and as many pixels are theirs.
    first, last = starts // _CHANNELS, ends // _CHANNELS
    alpha = np.repeat(chunks.values, last - first)
    if not chunks.repeated.all():
        literal = ~chunks.repeated
        n = (last - first)[literal]
        pixel = np.repeat(first[literal] - np.cumsum(n) + n, n) + np.arange(n.sum())
        origin = np.repeat(chunks.data_bit[literal] - starts[literal] * word_bits, n)
        bit = origin + (pixel * _CHANNELS + _CHANNELS - 1) * word_bits
        alpha[pixel] = _words_at(data, bit, word_bits)
    return alpha.reshape(shape_yx)


@dataclass(frozen=True, slots=True)
class _Chunks:
    """What a stream is made of, (n,) each: words counted, repeated or listed, and where."""

    counts: Ints
    repeated: BoolArray
    values: NDArray[np.uint8]
    data_bit: Ints


def _find_chunks(data: NDArray[np.uint8], sizes: Words, word_bits: int, words: int) -> _Chunks:
    """The chunks that hold `words` words together.

    Where a chunk begins is known when the one before it is read. So all bits of a block are read
    as if a chunk began there, at once, and only the steps from one to the next are taken singly.
    """
    padded = np.concatenate((data, _PADDING))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 8)
    end_bit = len(data) * 8
    bit, left = _HEADER_BITS, words
    found: list[_Chunks] = []
    while left > 0:
        byte = bit // 8
        block = np.ascontiguousarray(windows[byte : min(byte + _BLOCK_BYTES, len(data))])
        # Each bit of the block, with those that follow it from the highest place down.
        ahead = block.view(">u8").astype(np.uint64) << np.arange(8, dtype=np.uint64)
        ahead = ahead.ravel()
        repeated = ahead >> np.uint64(63) == 1
        size = sizes[(ahead >> np.uint64(61)).astype(np.intp) & 3]
        counts = ((ahead << np.uint64(3)) >> (64 - size)).astype(np.int64) + 1
        head = size.astype(np.int64) + 3
        step = (head + np.where(repeated, word_bits, counts * word_bits)).tolist()
        here: list[int] = []
        at = bit - byte * 8
        while at < len(step):
            here.append(at)
            at += step[at]
        chosen = np.array(here, dtype=np.int64)
        # What follows the last word fills up its byte, and means nothing.
        needed = int(np.searchsorted(np.cumsum(counts[chosen]), left)) + 1
        if needed < len(here):
            at, chosen = here[needed], chosen[:needed]
        left -= int(counts[chosen].sum())
        value = ahead[chosen] << (size[chosen] + np.uint64(3)) >> np.uint64(64 - word_bits)
        found.append(
            _Chunks(
                counts[chosen],
                repeated[chosen],
                value.astype(np.uint8),
                byte * 8 + chosen + head[chosen],
            )
        )
        bit = byte * 8 + at
        if bit > end_bit or (left > 0 and bit == end_bit):
            raise BrushError(f"it ends after {words - max(left, 0):,} of {words:,} values")
    if left < 0:
        raise BrushError(f"its last run goes {-left:,} values beyond the image")
    return _Chunks(
        np.concatenate([part.counts for part in found]),
        np.concatenate([part.repeated for part in found]),
        np.concatenate([part.values for part in found]),
        np.concatenate([part.data_bit for part in found]),
    )


def _words_at(data: NDArray[np.uint8], bit: Ints, word_bits: int) -> NDArray[np.uint8]:
    """Words of up to 8 bits that begin at any bit."""
    padded = np.concatenate((data, _PADDING))
    byte = bit // 8
    pair = padded[byte].astype(np.uint16) << 8 | padded[byte + 1]
    shift = (16 - word_bits - bit % 8).astype(np.uint16)
    return (pair >> shift & ((1 << word_bits) - 1)).astype(np.uint8)
