"""Scenes that show the same ground, by their landmarks.

One near hash is chance, and so are several at odd places; but landmarks whose places agree up to
one shift, and one turn or mirroring, are the same ground (the voting of D. G. Lowe, Distinctive
Image Features from Scale-Invariant Keypoints, 2004, section 7.3). Small scenes are also compared as
a whole, where no metres are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rooftrace.data.duplicates import across
from rooftrace.data.landmarks import Landmarks

__all__ = ["LEAST_POINTS", "Shared", "can_be_known", "shared_ground"]

LEAST_POINTS = 2
"""So many landmarks of two scenes must agree."""

_LEAST_SHARE = 0.2
"""And this share of those that lie where both scenes do, lest chance decide in large scenes.

Of 2,100 tiles and scenes of nine places against 231 of nine sets, those that do show the same
agreed in 0.38 or more, and three points by chance in 0.00 (with all landmarks that there are).
"""

_PAIR_SHARE = 0.5
_PAIR_BITS = 4
"""Of two points alone: a pair of tiles from two continents had a share of 0.5, and 5 bits."""

_POINT_BITS = 9
_WHOLE_BITS = 4
"""Of whole scenes nothing else confirms that they are alike."""

_AGREE_PX = 4
"""Places agree if their shifts differ by no more than this."""

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Shared:
    """Two scenes that show the same ground.

    Args:
        first, second: numbers of the scenes.
        points: how many of their landmarks agree; 0 where the scenes are alike as a whole.
        bits: of 64, in how many the hashes differ; of landmarks the median.
        share: of the landmarks that lie where both scenes do, how many agree, in 0..1; of scenes
            that are alike as a whole the share of bits that are the same.
    """

    first: int
    second: int
    points: int
    bits: float
    share: float


def can_be_known(scene: Landmarks) -> bool:
    """Whether a scene has landmarks enough for a part of it to be known again."""
    return len(scene) >= LEAST_POINTS


def shared_ground(first: Sequence[Landmarks], second: Sequence[Landmarks]) -> list[Shared]:
    """Which scenes of two sets show the same ground, each pair once, in order of their numbers.

    Args:
        first, second: all looked at in the same metres per pixel.
    """
    found: dict[tuple[int, int], Shared] = {}
    whole = [np.array([one.whole for one in each], dtype=np.uint64) for each in (first, second)]
    alike = across(*whole, most_bits=_WHOLE_BITS)
    for i, j, bits in zip(alike.first.tolist(), alike.second.tolist(), alike.bits.tolist()):
        found[i, j] = Shared(i, j, 0, bits, 1 - bits / 64)
    for one in _agreeing(_Points(first), _Points(second)):
        before = found.get((one.first, one.second))
        if before is None or before.points < one.points:
            found[one.first, one.second] = one
    return [found[pair] for pair in sorted(found)]


class _Points:
    """The points of all scenes, one after another, with the number of the scene of each."""

    def __init__(self, scenes: Sequence[Landmarks]) -> None:
        counts = [len(scene) for scene in scenes]
        self.hashes = np.concatenate([np.zeros(0, np.uint64), *(scene.hashes for scene in scenes)])
        places = [np.zeros((0, 2), np.int32), *(scene.places for scene in scenes)]
        self.places: Places = np.concatenate(places).astype(np.int64)
        self.owner = np.repeat(np.arange(len(scenes)), counts)
        self._ends = np.cumsum([0, *counts])

    def of(self, scene: int) -> Places:
        """(n, 2) places of one scene's points."""
        return self.places[self._ends[scene] : self._ends[scene + 1]]


def _agreeing(one: _Points, other: _Points) -> Iterator[Shared]:
    """Pairs of scenes with landmarks that agree, some several times."""
    pairs = across(one.hashes, other.hashes, most_bits=_POINT_BITS)
    if len(pairs) < LEAST_POINTS:
        return
    shift = one.places[pairs.first] - _turned(other.places[pairs.second], pairs.symmetry)
    scenes = np.stack([one.owner[pairs.first], other.owner[pairs.second], pairs.symmetry], axis=1)
    side = 2 * _AGREE_PX
    # What agrees may lie to both sides of an edge between two bins, but not in all four layouts.
    for layout in ((0, 0), (0, _AGREE_PX), (_AGREE_PX, 0), (_AGREE_PX, _AGREE_PX)):
        keys = np.concatenate([scenes, (shift + np.array(layout)) // side], axis=1)
        _, vote = np.unique(keys, axis=0, return_inverse=True)
        vote = vote.reshape(-1)
        # A point that is like many counts once, on either side.
        votes = np.minimum(_distinct(vote, pairs.first), _distinct(vote, pairs.second))
        order = np.argsort(vote, kind="stable")
        starts = np.searchsorted(vote[order], np.arange(len(votes) + 1))
        for number in np.flatnonzero(votes >= LEAST_POINTS).tolist():
            members = order[starts[number] : starts[number + 1]]
            i, j, symmetry = scenes[members[0]].tolist()
            moved = _turned(other.of(j), np.full(len(other.of(j)), symmetry))
            expected = _overlapping(one.of(i), moved + np.median(shift[members], axis=0))
            share = min(1.0, int(votes[number]) / max(expected, 1))
            bits = float(np.median(pairs.bits[members]))
            is_pair = share >= _PAIR_SHARE and bits <= _PAIR_BITS
            if share >= _LEAST_SHARE and (votes[number] > LEAST_POINTS or is_pair):
                yield Shared(i, j, int(votes[number]), bits, share)


def _turned(places: Places, symmetry: NDArray[np.integer]) -> Places:
    """(n, 2) places after the turns of `duplicates.symmetries`, around the origin."""
    turned = np.where((symmetry >= 4)[:, None], places[:, ::-1], places)
    rows = np.where(symmetry % 4 >= 2, -1, 1)
    cols = np.where(symmetry % 2 == 1, -1, 1)
    return np.asarray(turned * np.stack([rows, cols], axis=1), dtype=np.int64)


def _overlapping(places: Places, others: NDArray[np.float64]) -> int:
    """How many landmarks could agree: of either scene those in the other's rectangle, the fewer."""
    return min(_inside(places, others), _inside(others, places))


def _inside(places: NDArray[np.number], others: NDArray[np.number]) -> int:
    low, high = others.min(axis=0) - _AGREE_PX, others.max(axis=0) + _AGREE_PX
    return int(((places >= low) & (places <= high)).all(axis=1).sum())


def _distinct(vote: NDArray[np.intp], point: NDArray[np.intp]) -> NDArray[np.intp]:
    """(votes,) how many points each has."""
    pairs = np.unique(np.stack([vote, point], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=int(vote.max()) + 1)
