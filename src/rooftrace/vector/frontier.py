"""Regions of a scene that may go on in blocks to come, until all that they touch has been seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Window
from rooftrace.vector.corners import Corners, Ints, merge_corners
from rooftrace.vector.polygonize import Regions, TracedPolygons, mean_score

__all__ = ["Frontier", "Pieces", "components", "pieces_of"]

Bools = NDArray[np.bool_]

_FEW_CORNERS = 1 << 15
"""So many new ones are a megabyte, and not worth a look."""


class Frontier:
    """Takes the regions of blocks that touch other blocks, and gives those that are complete.

    A region is complete when every pixel that lies opposite to it across a block's edge has been
    fed, be it foreground or not. Only corners, runs along edges and sums are held.

    Args:
        scene: all of it.
    """

    def __init__(self, scene: Window) -> None:
        self._scene = scene
        self._held = Pieces.none()
        self._new: list[Pieces] = []
        self._new_corners = 0
        self._fed = (_Stretches(), _Stretches())

    @property
    def ripe(self) -> bool:
        """Whether so much is new that a look at all that is held is worth it.

        What is new is at least as much as what is held, so that the looks add up to a multiple of
        what was fed, whatever the order of the blocks.
        """
        return self._new_corners >= max(len(self._held.corners), _FEW_CORNERS)

    def feed(self, window: Window) -> None:
        """Notes that a block has been seen."""
        for key, before in _edges_of(window, self._scene):
            self._fed[before].add(*key)

    def add(self, pieces: Pieces) -> None:
        """Takes what `pieces_of` gave of a block."""
        if len(pieces):
            self._new.append(pieces)
            self._new_corners += len(pieces.corners)

    def take(self) -> TracedPolygons:
        """The regions that have become complete, ordered by their first pixel."""
        if not (self._new or len(self._held)):
            return TracedPolygons.none()
        pieces = Pieces.joined([self._held, *self._new])
        runs = pieces.runs
        # What lies opposite to a run that is before its line was fed as after it.
        seen = np.where(runs.before, self._fed[0].covered(runs.key), self._fed[1].covered(runs.key))
        unseen = seen < runs.key[:, 1] - runs.key[:, 0]
        complete = np.ones(len(pieces), np.bool_)
        complete[runs.owner[unseen]] = False
        self._held = pieces.chosen(~complete, unseen)
        self._new.clear()
        self._new_corners = 0
        return pieces.traced(complete, self._scene.width)


def pieces_of(regions: Regions, total: Ints, window: Window, scene: Window) -> tuple[Pieces, Bools]:
    """The regions of a block that touch other blocks.

    Args:
        regions: of the block.
        total: (regions,) of each, see `Regions.integrate`.
        window: of the block.
        scene: all of it.

    Returns:
        What a `Frontier` takes, and (regions,) True for those that are in it.
    """
    runs = _Runs.of(regions, window, scene)
    taken = np.zeros(len(regions), np.bool_)
    taken[runs.owner] = True
    if not len(runs.owner):
        return Pieces.none(), taken
    number = np.cumsum(taken) - 1
    edge_of = regions.region_of_edge
    first = regions.first_pixel_yx[taken]
    pieces = Pieces(
        regions.corners_of(taken),
        number[edge_of[taken[edge_of]]],
        runs.owned_by(number[runs.owner]),
        total[taken],
        regions.area_px[taken],
        first[:, 0] * scene.width + first[:, 1],
    )
    return pieces, taken


class _Stretches:
    """Parts of an axis, half-open and without overlaps; those that meet are one."""

    def __init__(self) -> None:
        self._merged = np.zeros((0, 2), np.int64)
        self._new: list[tuple[int, int]] = []

    def add(self, start: int, stop: int) -> None:
        self._new.append((start, stop))

    def covered(self, key: Ints) -> Ints:
        """(n,) how much of each stretch (n, 2) lies in these."""
        if self._new:
            parts = np.concatenate([self._merged, np.array(self._new, np.int64)])
            parts = parts[np.argsort(parts[:, 0])]
            begins = np.append(True, parts[1:, 0] != parts[:-1, 1])
            ends = np.append(begins[1:], True)
            self._merged = np.stack([parts[begins, 0], parts[ends, 1]], axis=1)
            self._new.clear()
        if not len(self._merged):
            return np.zeros(len(key), np.int64)
        start, stop = self._merged.T
        total = np.concatenate([[0], np.cumsum(stop - start)])
        index = np.searchsorted(start, key, side="right")
        before = total[index] - np.where(index > 0, (stop[index - 1] - key).clip(min=0), 0)
        return np.asarray(before[:, 1] - before[:, 0], np.int64)


def _edges_of(window: Window, scene: Window) -> list[tuple[tuple[int, int], bool]]:
    """The edges that a block shares with others, as stretches on the axis of `_Runs`.

    With each, whether the block lies before it: above the line, or to the left of it.
    """
    stride = max(scene.shape_yx) + 2
    sides = (
        (window.row, window.row_stop, window.col, window.col_stop, 0, scene.height),
        (window.col, window.col_stop, window.row, window.row_stop, scene.height + 1, scene.width),
    )
    return [
        ((start + (line + shift) * stride, stop + (line + shift) * stride), before)
        for first, last, start, stop, shift, size in sides
        for line, before in ((first, False), (last, True))
        # Nothing lies beyond the scene's own edges.
        if 0 < line < size
    ]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Stretches of foreground along lines that blocks share.

    Args:
        key: (n, 2) where each begins and ends, half-open, on an axis on which all lines of the
            scene lie one after the other with gaps between them.
        before: (n,) True where the foreground lies above the line or to the left of it.
        owner: (n,) the number of the region or piece that it belongs to.
    """

    key: Ints
    before: Bools
    owner: Ints

    @classmethod
    def of(cls, regions: Regions, window: Window, scene: Window) -> _Runs:
        """Those of a block's regions, along the edges that it shares with other blocks."""
        corners = regions.corners
        horizontal = np.arange(len(corners)).reshape(-1, 2)
        # The first part of the axis takes the rows of corners, the second the columns.
        sides = (
            (horizontal, corners.row, corners.col, 0, window.row, window.row_stop, scene.height),
            (
                *(regions.rings.vertical, corners.col, corners.row, scene.height + 1),
                *(window.col, window.col_stop, scene.width),
            ),
        )
        stride = max(scene.shape_yx) + 2
        key, before, corner = [], [], []
        for pairs, across, along, shift, start, stop, size in sides:
            at = across[pairs[:, 0]]
            for line in (start, stop):
                edges = pairs[at == line] if 0 < line < size else pairs[:0]
                key.append(along[edges] + (line + shift) * stride)
                before.append(np.full(len(edges), line == stop))
                corner.append(edges[:, 0])
        # The edges that meet at a corner are of one region.
        owner = regions.region_of_edge[np.concatenate(corner) >> 1]
        return cls(np.concatenate(key), np.concatenate(before), owner)

    def owned_by(self, owner: Ints) -> _Runs:
        """The same runs under other numbers."""
        return _Runs(self.key, self.before, owner)

    def chosen(self, kept: Bools) -> _Runs:
        return _Runs(self.key[kept], self.before[kept], self.owner[kept])


@dataclass(frozen=True, slots=True)
class Pieces:
    """Parts of regions, from one block or from several.

    Args:
        corners: of all of them, pair by pair.
        owner: (pairs,) the piece of each pair of corners.
        runs: where they touch other blocks.
        total: (n,) what `Regions.integrate` gives.
        area_px: (n,) int64.
        first: (n,) int64, the first pixel's row times the scene's width, plus its column.
    """

    corners: Corners
    owner: Ints
    runs: _Runs
    total: Ints
    area_px: Ints
    first: Ints

    def __len__(self) -> int:
        return len(self.total)

    @classmethod
    def none(cls) -> Pieces:
        none = np.zeros(0, np.int64)
        runs = _Runs(none.reshape(0, 2), np.zeros(0, np.bool_), none)
        return cls(Corners(none, none, np.zeros(0, np.int8)), none, runs, none, none, none)

    @classmethod
    def joined(cls, parts: Sequence[Pieces]) -> Pieces:
        """All that `parts` hold, those that touch along a line as one."""
        count = np.array([len(part) for part in parts])
        base = np.cumsum(count) - count
        key = np.concatenate([part.runs.key for part in parts])
        before = np.concatenate([part.runs.before for part in parts])
        owner = np.concatenate([part.runs.owner + at for part, at in zip(parts, base)])
        group = components(int(count.sum()), *_touching(key, before, owner))
        leaders, group = np.unique(group, return_inverse=True)
        total, area = np.zeros((2, len(leaders)), np.int64)
        np.add.at(total, group, np.concatenate([part.total for part in parts]))
        np.add.at(area, group, np.concatenate([part.area_px for part in parts]))
        first = np.full(len(leaders), np.iinfo(np.int64).max)
        np.minimum.at(first, group, np.concatenate([part.first for part in parts]))
        pairs = np.concatenate([part.owner + at for part, at in zip(parts, base)])
        corners = Corners(
            np.concatenate([part.corners.row for part in parts]),
            np.concatenate([part.corners.col for part in parts]),
            np.concatenate([part.corners.weight for part in parts]),
        )
        return cls(corners, group[pairs], _Runs(key, before, group[owner]), total, area, first)

    def chosen(self, kept: Bools, runs: Bools) -> Pieces:
        """Some of them (n,), with some of the runs (m,), all of which are theirs."""
        number = np.cumsum(kept) - 1
        pairs = kept[self.owner]
        left = self.runs.chosen(runs)
        return Pieces(
            self._corners_of(pairs), number[self.owner[pairs]], left.owned_by(number[left.owner]),
            self.total[kept], self.area_px[kept], self.first[kept],
        )  # fmt: skip

    def _corners_of(self, pairs: Bools) -> Corners:
        both = np.repeat(pairs, 2)
        return Corners(self.corners.row[both], self.corners.col[both], self.corners.weight[both])

    def traced(self, complete: Bools, width: int) -> TracedPolygons:
        """Those that are `complete` (n,) as polygons.

        One trace of their summed corners gives the polygons. Their sums come from the pieces, and
        the first pixel tells which polygon is whose.

        Args:
            width: of the scene.
        """
        if not complete.any():
            return TracedPolygons.none()
        regions = Regions.of(merge_corners([self._corners_of(complete[self.owner])]))
        order = np.flatnonzero(complete)
        order = order[np.argsort(self.first[order])]
        # Two independent ways to the same regions: pieces that touch, and rings through corners.
        first = np.stack(np.divmod(self.first[order], width), axis=1)
        assert np.array_equal(first, regions.first_pixel_yx)
        assert np.array_equal(self.area_px[order], regions.area_px)
        score = mean_score(self.total[order], regions.area_px)
        return TracedPolygons(regions.polygons(complete[order]), score, regions.area_px, first)


def _touching(key: Ints, before: Bools, owner: Ints) -> tuple[Ints, Ints]:
    """Owners of runs that lie opposite each other along a line, pair by pair."""
    order = np.argsort(key[:, 0])
    key, before, owner = key[order], before[order], owner[order]
    here, there = key[before], key[~before]
    # The runs of one side share nothing, so both their ends ascend.
    low = np.searchsorted(there[:, 1], here[:, 0], side="right")
    high = np.searchsorted(there[:, 0], here[:, 1], side="left")
    times = high - low
    pair = np.arange(times.sum()) + np.repeat(low - (np.cumsum(times) - times), times)
    return np.repeat(owner[before], times), owner[~before][pair]


def components(count: int, one: Ints, other: Ints) -> Ints:
    """(count,) the smallest member of each one's connected component, given the pairs that join.

    Labels fall to the smallest of the neighbours' and through pointers to pointers, until no pair
    is left that differs.
    """
    label = np.arange(count)
    while True:
        low, high = np.minimum(label[one], label[other]), np.maximum(label[one], label[other])
        apart = low < high
        if not apart.any():
            return label
        np.minimum.at(label, high[apart], low[apart])
        while (label[label] != label).any():
            label = label[label]
