"""Pictures that are nearly the same: a perceptual hash, and the search for hashes that are near.

The hash is that of C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions
(2010), section 3.2.1, and N. Krawetz, Looks Like It (2011): the 8 × 8 lowest frequencies of the
picture's cosine transform, one bit each; that of the constant term is always 0. A bit here is the
sign of a coefficient, where they compare it with the median of all: the two are nearly the same,
and the hashes of the picture turned and mirrored then follow from the one hash, without the
picture. Those copies are found as well, since sets are augmented by them.

A near hash is a suspicion; `confirm` compares the pictures themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LEAST_LIKENESS",
    "MOST_BITS",
    "NO_HASH",
    "THUMBNAIL_PX",
    "Pairs",
    "across",
    "confirm",
    "groups",
    "hash_of",
    "likeness",
    "near_duplicates",
    "phash",
    "symmetries",
    "thumbnail",
]

NO_HASH = 0
"""In place of the hash of a picture that shows nothing: it is near to no other."""

MOST_BITS = 9
"""Of 64, in how many the hashes of two copies differ at most.

On 2,206 tiles of nine places: JPEG of quality 60, half the size, a tenth more light or less were
missed never, a shift by 2 px of 256 once, by 4 px 13 times; of 2.4 million pairs of different
tiles, turned or not, three were as near, and `confirm` refused them.
"""

LEAST_LIKENESS = 0.85
"""Least correlation of the thumbnails of two copies; it is lowest where one is shifted."""

THUMBNAIL_PX = 32
"""Side of a thumbnail."""

_FLAT = 0.005
"""Root mean square of the low frequencies, in shares of full scale: below it, noise decides."""

_BANDS = 5
"""The search cuts a hash into so many pieces: few candidates, and few keys to look up."""

_BLOCK = 2**21
"""So many candidates are compared at a time."""

Hashes = NDArray[np.uint64]
Indices = NDArray[np.intp]
Small = Callable[[int], NDArray[np.float32]]


@dataclass(frozen=True)
class Pairs:
    """Pictures with near hashes.

    Args:
        first, second: (n,) indices into what was searched.
        bits: (n,) uint8, how many bits of the two hashes differ.
        symmetry: (n,) uint8, index into `symmetries` of the turn of the second at which it is
            nearest to the first; 0 where it is not turned.
    """

    first: Indices
    second: Indices
    bits: NDArray[np.uint8]
    symmetry: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.first)

    def only(self, chosen: NDArray[np.bool_] | Indices) -> Pairs:
        """Those for which `chosen` (n,) is true, or whose numbers it holds, in that order."""
        return Pairs(
            self.first[chosen], self.second[chosen], self.bits[chosen], self.symmetry[chosen]
        )


def thumbnail(
    luma: NDArray[np.uint8] | NDArray[np.float32], valid: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """A picture in 32 × 32 means of areas, in 0..1.

    Args:
        luma: (y, x), uint8, or float32 in whatever unit: then the brightest area is 1.
        valid: (y, x), False where nodata, which gets the mean of the rest; default all valid.
    """
    scale = 255.0 if luma.dtype == np.uint8 else 0.0
    if valid is not None and not valid.all():
        luma = np.where(valid, luma, luma[valid].mean() if valid.any() else 0).astype(np.float32)
    small: NDArray[np.float32] = cv2.resize(
        luma, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA
    ).astype(np.float32)
    brightest = scale or float(small.max())
    return small / np.float32(brightest) if brightest > 0 else np.zeros_like(small)


def hash_of(small: NDArray[np.float32]) -> int:
    """The hash of a `thumbnail`: 64 bits, or NO_HASH where it shows nothing."""
    low = _BASIS @ small @ _BASIS.T
    low[0, 0] = 0
    if np.sqrt((low**2).sum()) < _FLAT * THUMBNAIL_PX:
        return NO_HASH
    # What is zero but for rounding gets the same bit on every machine.
    return int.from_bytes(np.packbits(low > 1e-5).tobytes(), "big")


def phash(
    luma: NDArray[np.uint8] | NDArray[np.float32], valid: NDArray[np.bool_] | None = None
) -> int:
    """The perceptual hash of a picture: 64 bits that compression, resizing and light leave alone.

    Args:
        luma, valid: see `thumbnail`.

    Returns:
        0..2**64 - 1; NO_HASH where the picture shows nothing that a hash could hold on to (water,
        nodata, one colour).
    """
    return hash_of(thumbnail(luma, valid))


def symmetries(hashes: Hashes) -> tuple[Hashes, ...]:
    """The hashes of the pictures as they are, turned and mirrored: (n,) uint64, eight times.

    In order: as it is; mirrored left to right, top to bottom, both; and transposed (rows become
    columns), each of these afterwards.
    """
    plain = (hashes, _transposed(hashes))
    return tuple(one ^ np.uint64(flip) for one in plain for flip in _FLIPS)


def near_duplicates(hashes: Hashes, *, most_bits: int = MOST_BITS, turned: bool = True) -> Pairs:
    """Pairs of one set whose hashes differ in at most `most_bits`, each once, `first` < `second`.

    The search is exact. Equal hashes are each paired with the first of them alone, so that a
    thousand copies are not half a million pairs; what is near to them is paired with that one.

    Args:
        hashes: (n,) uint64; NO_HASH takes no part.
        most_bits: 0 or more; the time grows steeply beyond 9.
        turned: whether copies that are turned or mirrored count.
    """
    own = _Distinct(hashes)
    found = [
        (own.first[i], own.first[j], bits, symmetry)
        for i, j, bits, symmetry in _search(own.hashes, own.hashes, most_bits, turned)
    ]
    pairs = _nearest([*found, (own.first[own.of_copies], own.copies, 0, 0)])
    return pairs.only(pairs.first < pairs.second)


def across(a: Hashes, b: Hashes, *, most_bits: int = MOST_BITS, turned: bool = True) -> Pairs:
    """Pairs of two sets; `first` counts in `a` and `second` in `b`. See `near_duplicates`.

    Of equal hashes in one set, all are paired with the first only of those in the other.
    """
    one, other = _Distinct(a), _Distinct(b)
    found = list(_search(one.hashes, other.hashes, most_bits, turned))
    whole = []
    for i, j, bits, symmetry in found:
        whole.append((one.first[i], other.first[j], bits, symmetry))
        pair, copy = _joined(i, one.of_copies)
        whole.append((one.copies[copy], other.first[j[pair]], bits[pair], symmetry))
        pair, copy = _joined(j, other.of_copies)
        whole.append((one.first[i[pair]], other.copies[copy], bits[pair], symmetry))
    return _nearest(whole)


def likeness(one: NDArray[np.float32], other: NDArray[np.float32], symmetry: int = 0) -> float:
    """Correlation of two thumbnails, -1..1, the second turned as `Pairs.symmetry` says."""
    if symmetry >= 4:
        other = other.T
    rows = slice(None, None, -1 if symmetry % 4 >= 2 else 1)
    cols = slice(None, None, -1 if symmetry % 2 else 1)
    a, b = one - one.mean(), other[rows, cols] - other.mean()
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-12))


def confirm(pairs: Pairs, first: Small, second: Small | None = None) -> Pairs:
    """Those pairs whose pictures are alike, and not their hashes alone.

    Args:
        first: gives the thumbnail of a number in `pairs.first`.
        second: that of a number in `pairs.second`; default the same.
    """
    second = second or first
    numbers = zip(pairs.first.tolist(), pairs.second.tolist(), pairs.symmetry.tolist())
    alike = [likeness(first(i), second(j), turn) >= LEAST_LIKENESS for i, j, turn in numbers]
    return pairs.only(np.array(alike, dtype=bool))


def groups(count: int, pairs: Pairs) -> Indices:
    """(count,) for each picture the smallest index of those that pairs lead to; else its own."""
    parent = np.arange(count)

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = int(parent[index])
        return index

    for first, second in zip(pairs.first.tolist(), pairs.second.tolist()):
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return np.array([root(index) for index in range(count)], dtype=np.intp)


class _Distinct:
    """What hashes a set has.

    `hashes` are sorted, NO_HASH is not among them, and `first` is the index of each in the set;
    `copies` are the indices of those that have the hash number `of_copies`, and are not its first.
    """

    def __init__(self, hashes: Hashes) -> None:
        given = np.asarray(hashes, dtype=np.uint64)
        shown = np.flatnonzero(given != NO_HASH)
        self.hashes, first, number = np.unique(given[shown], return_index=True, return_inverse=True)
        self.first: Indices = shown[first]
        later = self.first[number] != shown
        self.copies: Indices = shown[later]
        self.of_copies: Indices = number[later]


_Found = tuple[Indices, Indices, NDArray[np.uint8], int]


def _search(a: Hashes, b: Hashes, most_bits: int, turned: bool) -> Iterator[_Found]:
    """Pairs of distinct hashes, some several times.

    Two hashes that differ in d bits differ in at most d / n bits of one of n pieces (M. Norouzi
    et al., Fast Exact Search in Hamming Space with Multi-Index Hashing, 2014); so only those with
    such a piece are compared.
    """
    edges = [64 * band // _BANDS for band in range(_BANDS + 1)]
    for low, high in pairwise(edges):
        piece = np.uint64(2 ** (high - low) - 1)
        keys_a = ((a >> np.uint64(low)) & piece).astype(np.intp)
        order = np.argsort(keys_a, kind="stable")
        starts = np.searchsorted(keys_a[order], np.arange(int(piece) + 2))
        for symmetry, hashes in enumerate(symmetries(b) if turned else (b,)):
            keys_b = ((hashes >> np.uint64(low)) & piece).astype(np.intp)
            for flip in _flips(high - low, most_bits // _BANDS):
                wanted = keys_b ^ flip
                for part in _parts(starts[wanted + 1] - starts[wanted]):
                    j, place = _ranges(starts[wanted[part]], starts[wanted[part] + 1])
                    i, j = order[place], j + part.start
                    bits = np.bitwise_count(a[i] ^ hashes[j])
                    near = bits <= most_bits
                    if near.any():
                        yield i[near], j[near], bits[near], symmetry


def _flips(width: int, most: int) -> list[int]:
    """All numbers of `width` bits of which at most `most` are set."""
    return [
        sum(1 << bit for bit in bits)
        for count in range(most + 1)
        for bits in combinations(range(width), count)
    ]


def _parts(counts: Indices) -> Iterator[slice]:
    """Consecutive slices in which the counts sum up to about _BLOCK."""
    total = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + _BLOCK, side="right")))
        yield slice(start, stop)
        start = stop


def _ranges(starts: Indices, stops: Indices) -> tuple[Indices, Indices]:
    """All numbers of ranges, one range after another: which range, and the number."""
    counts = stops - starts
    which = np.repeat(np.arange(len(counts)), counts)
    offset = starts - np.cumsum(counts) + counts
    return which, np.arange(len(which)) + offset[which]


def _joined(keys: Indices, others: Indices) -> tuple[Indices, Indices]:
    """Indices into both of all pairs of equal numbers."""
    order = np.argsort(others, kind="stable")
    ranked = others[order]
    which, place = _ranges(np.searchsorted(ranked, keys), np.searchsorted(ranked, keys, "right"))
    return which, order[place]


def _nearest(found: Sequence[tuple[Indices, Indices, NDArray[np.uint8] | int, int]]) -> Pairs:
    """All that was found, each pair once, as it is nearest."""
    if not found:
        none = np.zeros(0, dtype=np.intp)
        return Pairs(none, none, none.astype(np.uint8), none.astype(np.uint8))
    first, second = (np.concatenate([one[side] for one in found]) for side in (0, 1))
    bits, symmetry = (
        np.concatenate([np.broadcast_to(np.uint8(one[k]), one[0].shape) for one in found])
        for k in (2, 3)
    )
    order = np.lexsort((symmetry, bits, second, first))
    first, second = first[order], second[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return Pairs(first[fresh], second[fresh], bits[order][fresh], symmetry[order][fresh])


def _transposed(hashes: Hashes) -> Hashes:
    """The 8 × 8 bits of each with rows as columns (H. S. Warren, Hacker's Delight, 7-3)."""
    for shift, mask in (
        (7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0),
    ):  # fmt: skip
        moved = (hashes ^ (hashes >> np.uint64(shift))) & np.uint64(mask)
        hashes = hashes ^ moved ^ (moved << np.uint64(shift))
    return hashes


def _basis() -> NDArray[np.float32]:
    """(8, THUMBNAIL_PX) cosines of the lowest frequencies, of unit length."""
    frequency, place = np.ogrid[:8, :THUMBNAIL_PX]
    length = np.where(frequency == 0, np.sqrt(1 / THUMBNAIL_PX), np.sqrt(2 / THUMBNAIL_PX))
    wave = np.cos(np.pi * frequency * (place + 0.5) / THUMBNAIL_PX) * length
    basis: NDArray[np.float32] = wave.astype(np.float32)
    return basis


def _odd_columns() -> int:
    """The bits of the frequencies that change their sign when left and right are swapped."""
    return int.from_bytes(np.packbits(np.tile(np.arange(8) % 2, 8)).tobytes(), "big")


_BASIS = _basis()
_LEFT_RIGHT = _odd_columns()
_TOP_BOTTOM = int(_transposed(np.array([_LEFT_RIGHT], dtype=np.uint64))[0])
_FLIPS = (0, _LEFT_RIGHT, _TOP_BOTTOM, _LEFT_RIGHT ^ _TOP_BOTTOM)
