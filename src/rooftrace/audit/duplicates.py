"""Find near-duplicate images with a perceptual hash and a search for similar hashes.

The hash is that of C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions
(2010), section 3.2.1, and N. Krawetz, Looks Like It (2011): one bit for each of the 8 × 8 lowest
frequencies of the image's cosine transform. The bit of the constant term is always 0. Here a bit is
the sign of a coefficient, whereas the sources compare it with the median of all coefficients. Both
give nearly the same hash, but with signs the hashes of the rotated and mirrored image follow from
the hash alone. Such copies are found too, because sets are often augmented with them.

A similar hash makes a pair a candidate; `confirm` compares the images themselves.
`duplicate_findings` reports the pairs inside a set and across two sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.audit.facts import MOST_IDS, Finding, SceneFacts
from rooftrace.core.arrays import components
from rooftrace.core.text import plural
from rooftrace.core.types import RasterSource, Window

NO_HASH = 0
"""Hash of an image without detail; it is similar to no other hash."""

MOST_BITS = 9
"""Maximum number of bits of 64 in which the hashes of two copies differ.

Measured on 2,206 tiles of nine places: copies with JPEG quality 60, of half the size, or a tenth
brighter or darker were never missed; a shift by 2 px of 256 was missed once and a shift by 4 px 13
times. Of 2.4 million pairs of different tiles, rotated or not, three were as similar, and `confirm`
rejected them.
"""

LEAST_LIKENESS = 0.85
"""Least correlation of the thumbnails of two copies; it is lowest if one copy is shifted."""

THUMBNAIL_PX = 32
"""Side of a thumbnail in pixels."""

_FLAT = 0.005
"""Root mean square of the low frequencies, in shares of full scale, below which noise decides."""

_BANDS = 5
"""Number of pieces of a hash in the search, which keeps both candidates and keys few."""

_BLOCK = 2**21
"""Number of candidates that are compared at a time."""

Hashes = NDArray[np.uint64]
Indices = NDArray[np.intp]
Thumbnails = Sequence[NDArray[np.floating] | None]
"""Thumbnail of each image; None where it is not known."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of images with similar hashes.

    Args:
        first, second: (n,) indices of the images.
        bits: (n,) uint8 number of bits in which the two hashes differ.
        symmetry: (n,) uint8 index into `symmetries` of the rotation or mirroring of the second at
            which it is most similar to the first; 0 if it is not rotated.
    """

    first: Indices
    second: Indices
    bits: NDArray[np.uint8]
    symmetry: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.first)

    def only(self, chosen: NDArray[np.bool_] | Indices) -> Pairs:
        """Return the pairs selected by a mask (n,) or by indices, in that order."""
        return Pairs(
            self.first[chosen], self.second[chosen], self.bits[chosen], self.symmetry[chosen]
        )


def grey_thumbnail(
    luma: NDArray[np.uint8] | NDArray[np.float32], valid: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Return a thumbnail: 32 × 32 means of areas, in 0..1.

    Args:
        luma: (y, x) brightness, uint8, or float32 in any unit; then the brightest area becomes 1.
        valid: (y, x), False where nodata; nodata gets the mean of the rest. None if all is valid.
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
    """Return the 64-bit hash of a thumbnail, or NO_HASH if it has no detail."""
    low = _BASIS @ small @ _BASIS.T
    low[0, 0] = 0
    if np.sqrt((low**2).sum()) < _FLAT * THUMBNAIL_PX:
        return NO_HASH
    # The limit gives coefficients that are zero but for rounding the same bit on every machine.
    return int.from_bytes(np.packbits(low > 1e-5).tobytes(), "big")


def phash(
    luma: NDArray[np.uint8] | NDArray[np.float32], valid: NDArray[np.bool_] | None = None
) -> int:
    """Return the perceptual hash of an image, which compression, resizing and light hardly change.

    Args:
        luma, valid: Image, see `grey_thumbnail`.

    Returns:
        0..2**64 - 1; NO_HASH if the image has no detail (water, nodata, a single colour).
    """
    return hash_of(grey_thumbnail(luma, valid))


def symmetries(hashes: Hashes) -> tuple[Hashes, ...]:
    """Return the hashes of the images in all eight orientations, (n,) uint64 each.

    The order is: unchanged; mirrored left to right, top to bottom, and both; then the same four
    after transposing rows and columns.
    """
    plain = (hashes, _transposed(hashes))
    return tuple(one ^ np.uint64(flip) for one in plain for flip in _FLIPS)


def near_duplicates(hashes: Hashes, *, most_bits: int = MOST_BITS) -> Pairs:
    """Return the pairs of one set whose hashes differ in at most `most_bits`, `first` < `second`.

    The search is exact, and each pair appears once. One of each pair is the first image with its
    hash, so that a thousand copies do not make half a million pairs.

    Args:
        hashes: (n,) uint64; NO_HASH is ignored.
        most_bits: Maximum number of different bits, 0 or more; the time grows steeply beyond 9.
    """
    pairs = across(hashes, hashes, most_bits=most_bits)
    return pairs.only(pairs.first < pairs.second)


def across(a: Hashes, b: Hashes, *, most_bits: int = MOST_BITS) -> Pairs:
    """Return the pairs of two sets, see `near_duplicates`: `first` indexes `a`, `second` `b`.

    Equal hashes in one set are all paired, but only with the first of equal hashes in the other.
    """
    one, other = _DistinctHashes(a), _DistinctHashes(b)
    found = list(_search(one.hashes, other.hashes, most_bits))
    pairs = []
    for i, j, bits, symmetry in found:
        pairs.append((one.first[i], other.first[j], bits, symmetry))
        pair, copy = _joined(i, one.of_copies)
        pairs.append((one.copies[copy], other.first[j[pair]], bits[pair], symmetry))
        pair, copy = _joined(j, other.of_copies)
        pairs.append((one.first[i[pair]], other.copies[copy], bits[pair], symmetry))
    return _nearest(pairs)


def likeness(one: NDArray[np.floating], other: NDArray[np.floating], symmetry: int = 0) -> float:
    """Return the correlation of two thumbnails, -1..1, with the second in the given orientation.

    Args:
        one, other: Thumbnails.
        symmetry: Orientation of the second, see `Pairs.symmetry`.
    """
    if symmetry >= 4:
        other = other.T
    rows = slice(None, None, -1 if symmetry % 4 >= 2 else 1)
    cols = slice(None, None, -1 if symmetry % 2 else 1)
    a, b = (side.astype(np.float32) for side in (one, other[rows, cols]))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-12))


def confirm(pairs: Pairs, first: Thumbnails, second: Thumbnails | None = None) -> Pairs:
    """Return the pairs whose images are similar, not only their hashes.

    Args:
        pairs: Candidate pairs.
        first: Thumbnails of the images of `pairs.first`; without one, the hashes decide.
        second: The same of `pairs.second`; None for those of `first`.
    """
    sides = first, first if second is None else second
    alike = []
    for i, j, turn in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.symmetry.tolist()):
        one, other = sides[0][i], sides[1][j]
        is_known = one is not None and other is not None
        alike.append(not is_known or likeness(one, other, turn) >= LEAST_LIKENESS)
    return pairs.only(np.array(alike, dtype=bool))


class _DistinctHashes:
    """The distinct hashes of a set.

    `hashes` are sorted and exclude NO_HASH; `first` is the index of the first image with each hash.
    `copies` are the indices of further images, and `of_copies` the numbers of their hashes.
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


def _search(a: Hashes, b: Hashes, most_bits: int) -> Iterator[_Found]:
    """Yield pairs of distinct hashes, some of them several times.

    Two hashes that differ in d bits differ in at most d / n bits of one of n pieces (M. Norouzi
    et al., Fast Exact Search in Hamming Space with Multi-Index Hashing, 2014). So only hashes with
    such a piece are compared.
    """
    edges = [64 * band // _BANDS for band in range(_BANDS + 1)]
    for low, high in pairwise(edges):
        piece = np.uint64(2 ** (high - low) - 1)
        keys_a = ((a >> np.uint64(low)) & piece).astype(np.intp)
        order = np.argsort(keys_a, kind="stable")
        starts = np.searchsorted(keys_a[order], np.arange(int(piece) + 2))
        for symmetry, hashes in enumerate(symmetries(b)):
            keys_b = ((hashes >> np.uint64(low)) & piece).astype(np.intp)
            flips = [
                sum(1 << bit for bit in bits)
                for count in range(most_bits // _BANDS + 1)
                for bits in combinations(range(high - low), count)
            ]
            for flip in flips:
                wanted = keys_b ^ flip
                for part in _parts(starts[wanted + 1] - starts[wanted]):
                    j, place = _ranges(starts[wanted[part]], starts[wanted[part] + 1])
                    i, j = order[place], j + part.start
                    bits = np.bitwise_count(a[i] ^ hashes[j])
                    near = bits <= most_bits
                    if near.any():
                        yield i[near], j[near], bits[near], symmetry


def _parts(counts: Indices) -> Iterator[slice]:
    """Yield consecutive slices in which the counts add up to about _BLOCK."""
    total = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, before + _BLOCK, side="right")))
        yield slice(start, stop)
        start = stop


def _ranges(starts: Indices, stops: Indices) -> tuple[Indices, Indices]:
    """Return all numbers of the ranges, one range after another, and the range of each."""
    counts = stops - starts
    which = np.repeat(np.arange(len(counts)), counts)
    offset = starts - np.cumsum(counts) + counts
    return which, np.arange(len(which)) + offset[which]


def _joined(keys: Indices, others: Indices) -> tuple[Indices, Indices]:
    """Return the indices into both arrays of all pairs of equal numbers."""
    order = np.argsort(others, kind="stable")
    ranked = others[order]
    which, place = _ranges(np.searchsorted(ranked, keys), np.searchsorted(ranked, keys, "right"))
    return which, order[place]


def _nearest(found: Sequence[tuple[Indices, Indices, NDArray[np.uint8] | int, int]]) -> Pairs:
    """Return each pair once, in the orientation with the fewest different bits."""
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
    """Transpose the 8 × 8 bits of each hash (H. S. Warren, Hacker's Delight, 7-3)."""
    for shift, mask in (
        (7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0),
    ):  # fmt: skip
        swapped = (hashes ^ (hashes >> np.uint64(shift))) & np.uint64(mask)
        hashes = hashes ^ swapped ^ (swapped << np.uint64(shift))
    return hashes


def _basis() -> NDArray[np.float32]:
    """Return (8, THUMBNAIL_PX) cosines of the lowest frequencies, of unit length."""
    frequency, place = np.ogrid[:8, :THUMBNAIL_PX]
    length = np.where(frequency == 0, np.sqrt(1 / THUMBNAIL_PX), np.sqrt(2 / THUMBNAIL_PX))
    wave = np.cos(np.pi * frequency * (place + 0.5) / THUMBNAIL_PX) * length
    basis: NDArray[np.float32] = wave.astype(np.float32)
    return basis


_BASIS = _basis()
# The bits of the frequencies whose sign changes when left and right are swapped.
_LEFT_RIGHT = int.from_bytes(np.packbits(np.tile(np.arange(8) % 2, 8)).tobytes(), "big")
_TOP_BOTTOM = int(_transposed(np.array([_LEFT_RIGHT], dtype=np.uint64))[0])
_FLIPS = (0, _LEFT_RIGHT, _TOP_BOTTOM, _LEFT_RIGHT ^ _TOP_BOTTOM)

_WHOLE_PX = 2**22
"""Number of pixels above which a scene is read in strips of that size."""


def luma_of(data: NDArray[Any]) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return the (y, x) brightness of (band, y, x) pixels, uint8 or else float32 in their unit.

    It is computed from the first three bands (ITU-R BT.601), or is the first band of fewer.
    """
    if data.dtype != np.uint8:
        data = data.astype(np.float32, copy=False)
    if len(data) < 3:
        return np.asarray(data[0])
    return np.asarray(cv2.cvtColor(cv2.merge(tuple(data[:3])), cv2.COLOR_RGB2GRAY))


class ThumbnailBuilder:
    """Thumbnail of a large scene that comes in parts; only means of small areas are kept."""

    _SIDE = 4 * THUMBNAIL_PX
    """Cells are four times as fine as the thumbnail, so that areas cut by its edges are small."""

    def __init__(self, shape_yx: tuple[int, int]) -> None:
        self._shape_yx = shape_yx
        self._total, self._count = np.zeros((2, self._SIDE, self._SIDE))
        self._is_bytes = False

    def feed(
        self,
        luma: NDArray[np.uint8] | NDArray[np.float32],
        valid: NDArray[np.bool_] | None,
        window: Window,
    ) -> None:
        """Add the (y, x) brightness of a part, 0 where it is not `valid`."""
        side, shape = self._SIDE, self._total.shape
        rows = np.arange(window.row, window.row_stop) * side // self._shape_yx[0]
        cols = np.arange(window.col, window.col_stop) * side // self._shape_yx[1]
        cells = (rows[:, None] * side + cols).ravel()
        weight = None if valid is None else valid.ravel()
        self._total += np.bincount(cells, luma.ravel(), side * side).reshape(shape)
        self._count += np.bincount(cells, weight, side * side).reshape(shape)
        self._is_bytes = luma.dtype == np.uint8

    def finish(self) -> NDArray[np.float32]:
        """Return the thumbnail, see `grey_thumbnail`."""
        means = self._total / np.maximum(self._count, 1)
        if self._is_bytes:
            return grey_thumbnail(np.rint(means).astype(np.uint8), self._count > 0)
        return grey_thumbnail(means.astype(np.float32), self._count > 0)


def thumbnail_of(image: RasterSource) -> NDArray[np.float32]:
    """Return the thumbnail of an image of any size, read in strips."""
    shape = image.grid.shape
    builder = ThumbnailBuilder(shape)
    for window in strips_of(shape):
        raster = image.read(window)
        luma = np.where(raster.valid, luma_of(raster.data), 0)
        if window.shape_yx == shape:
            return grey_thumbnail(luma, raster.valid)
        builder.feed(luma, raster.valid, window)
    return builder.finish()


def strips_of(shape: tuple[int, int]) -> Iterator[Window]:
    """Return the strips in which a scene is read, from top to bottom; a small scene has one."""
    return Window.whole(shape).strips(max(1, _WHOLE_PX // shape[1]))


_SHOWN = 3
"""Number of pairs that a finding names."""

_OTHER_LABEL = 0.1
"""Difference in the share of a class above which two labels are called different."""


def duplicate_findings(
    facts_a: Sequence[SceneFacts],
    facts_b: Sequence[SceneFacts] | None = None,
    *,
    part_of: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Return the findings about near-duplicates in a set, and between it and another set.

    Args:
        facts_a: Facts of every scene of the set.
        facts_b: Facts of every scene of the other set.
        part_of: Part of each scene id of the set, if it has parts of its own.

    Returns:
        `copies.inside` (copies that are not in two parts), `copies.labels` (copies whose labels
        differ) and `copies.across`. Their ids are those of the pairs, the nearest first: inside a
        set both ids of each pair, one after the other; across sets the ids of the first set.
    """
    pairs = find_copies(facts_a)
    parts = np.array([(part_of or {}).get(one.id, "") for one in facts_a], np.object_)
    one, other = parts[pairs.first], parts[pairs.second]
    # Images of no part are not used, or are divided.
    inside = _inside(pairs.only((one == other) | (one == "") | (other == "")), facts_a)
    if part_of is not None and inside is not None:
        remedy = "Remove the copies, unless they are meant as augmentation."
        inside = replace(inside, severity="note", remedy=remedy)
    found = [inside, _labels(pairs, facts_a)]
    if facts_b is not None:
        pairs = across(_hashes(facts_a), _hashes(facts_b))
        pairs = confirm(pairs, *([f.thumbnail for f in facts] for facts in (facts_a, facts_b)))
        found.append(_across(_nearest_first(pairs), facts_a, facts_b))
    return [finding for finding in found if finding is not None]


def _hashes(facts: Sequence[SceneFacts]) -> NDArray[np.uint64]:
    return np.array([one.phash for one in facts], dtype=np.uint64)


def find_copies(facts: Sequence[SceneFacts]) -> Pairs:
    """Return the pairs of near-duplicates of a set, the nearest first."""
    pairs = confirm(near_duplicates(_hashes(facts)), [one.thumbnail for one in facts])
    return _nearest_first(pairs)


def _inside(pairs: Pairs, facts: Sequence[SceneFacts]) -> Finding | None:
    member = components(len(facts), pairs.first, pairs.second)
    copies = int((member != np.arange(len(facts))).sum())
    return _finding(
        "copies.inside",
        pairs,
        (facts, facts),
        title=f"{copies:,} of {len(facts):,} images are near-duplicates of another image",
        detail=f"{_how(pairs)} If one copy is used for training and the other for testing, the "
        "score is too good.",
        remedy="Split the set with rooftrace split, which keeps copies in one part, or remove the "
        "copies.",
        count=copies,
    )


def _labels(pairs: Pairs, facts: Sequence[SceneFacts]) -> Finding | None:
    both = zip(pairs.first.tolist(), pairs.second.tolist())
    pairs = pairs.only(np.array([_labels_differ(facts[i], facts[j]) for i, j in both], bool))
    return _finding(
        "copies.labels",
        pairs,
        (facts, facts),
        title=f"Different labels in {plural(len(pairs), 'pair')} of near-duplicates",
        detail="The same image is labelled in two ways: the share of a class differs by more "
        f"than {_OTHER_LABEL:.0%} of the image.",
        remedy="Look at both labels and keep the right one.",
        count=len(pairs),
    )


def _across(
    pairs: Pairs, facts_a: Sequence[SceneFacts], facts_b: Sequence[SceneFacts]
) -> Finding | None:
    of_a, of_b = len(set(pairs.first.tolist())), len(set(pairs.second.tolist()))
    finding = _finding(
        "copies.across",
        pairs,
        (facts_a, facts_b),
        title=f"Near-duplicates of {plural(of_a, 'image')} in the other set ({of_b:,} of its "
        f"{len(facts_b):,} images)",
        detail=f"{_how(pairs)} The scores of a model that is trained on one set and tested on the "
        "other are too good.",
        remedy="Remove the copies from one of the two sets.",
        count=of_a,
    )
    ids = dict.fromkeys(facts_a[i].id for i in pairs.first.tolist())
    return finding and replace(finding, ids=tuple(ids)[:MOST_IDS])


def _finding(
    key: str,
    pairs: Pairs,
    facts: tuple[Sequence[SceneFacts], Sequence[SceneFacts]],
    *,
    title: str,
    detail: str,
    remedy: str,
    count: int,
) -> Finding | None:
    """Return a warning about pairs, the nearest first, with some of them; None for none."""
    if not len(pairs):
        return None
    numbers = [*zip(pairs.first.tolist(), pairs.second.tolist())]
    shown = [f"{facts[0][i].id} and {facts[1][j].id}" for i, j in numbers[:_SHOWN]]
    more = len(numbers) - len(shown)
    examples = "; ".join(shown) + (f"; and {more} more." if more else ".")
    both = [one for pair in numbers[: MOST_IDS // 2] for one in zip(facts, pair)]
    ids = tuple(some[number].id for some, number in both)
    return Finding(key, "warning", title, f"{detail} Examples: {examples}", remedy, ids, count)


def _labels_differ(one: SceneFacts, other: SceneFacts) -> bool:
    if one.label is None or other.label is None:
        return False
    a, b = (np.array(label.class_px, dtype=float) for label in (one.label, other.label))
    if not a.sum() or not b.sum():
        return False
    return bool(np.abs(a / a.sum() - b / b.sum()).max() > _OTHER_LABEL)


def _nearest_first(pairs: Pairs) -> Pairs:
    return pairs.only(np.lexsort((pairs.second, pairs.first, pairs.bits)))


def _how(pairs: Pairs) -> str:
    turned = int((pairs.symmetry > 0).sum())
    return (
        f"Their perceptual hashes differ in at most {MOST_BITS} of 64 bits: they show the same "
        "image, perhaps compressed again, resized, slightly shifted, lighter or darker"
        + (f"; {turned} of {len(pairs)} pairs are rotated or mirrored." if turned else ".")
    )
