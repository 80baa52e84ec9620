"""Polygons of a scene that comes block by block: those of the whole scene, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Window
from rooftrace.vector.corners import Corners, Ints, find_corners, merge_corners
from rooftrace.vector.polygonize import (
    Mask8,
    Prob,
    Regions,
    TracedPolygons,
    check_shapes,
    mean_score,
)

__all__ = ["BlockPolygonizer"]


class BlockPolygonizer:
    """Polygons of a scene from blocks that partition it, fed in any order.

    A region that touches no other block is finished when its block is fed. Of the others only the
    corners and the runs along block edges are kept, so memory grows with the outlines and not with
    the scene.

    Args:
        shape_yx: (rows, columns) of the scene.
    """

    def __init__(self, shape_yx: tuple[int, int]) -> None:
        self._scene = Window.whole(shape_yx)
        self._windows: list[Window] = []
        self._done: list[TracedPolygons] = []
        self._pending: list[_Pieces] = []

    def feed(self, window: Window, mask: Mask8, prob: Prob) -> None:
        """Takes one block.

        Args:
            window: of the scene; shares no pixel with a block fed before.
            mask: (y, x) of the window; everything but 0 is foreground.
            prob: (y, x) of the window, float32 in 0..1 or uint8 standing for 0..1 by 255ths.

        Raises:
            ValueError: the block leaves the scene, overlaps another or has other shapes, or a
                foreground pixel's probability is not finite.
        """
        check_shapes(mask, window, prob)
        self._check_place(window)
        regions = Regions.of(find_corners(mask).moved(window.row, window.col))
        total = regions.integrate(mask, prob, window)
        runs = _Runs.of(regions, window, self._scene)
        pending = np.zeros(len(regions), np.bool_)
        pending[runs.owner] = True
        number = np.cumsum(pending) - 1
        area, first = regions.area_px, regions.first_pixel_yx
        self._pending.append(
            _Pieces(
                regions.corners_of(pending),
                runs.owned_by(number[runs.owner]),
                total[pending],
                area[pending],
                first[pending],
            )
        )
        done = ~pending
        score = mean_score(total[done], area[done])
        self._done.append(TracedPolygons(regions.polygons(done), score, area[done], first[done]))
        self._windows.append(window)

    def skip(self, window: Window) -> None:
        """Takes one block that has no foreground, without looking at it.

        Raises:
            ValueError: as `feed`.
        """
        self._check_place(window)
        self._windows.append(window)

    def _check_place(self, window: Window) -> None:
        if window.intersection(self._scene) != window:
            raise ValueError(f"block {window} leaves the scene, {self._scene}")
        for other in self._windows:
            if window.intersection(other):
                raise ValueError(f"block {window} overlaps block {other}, which was fed before")

    def finish(self) -> TracedPolygons:
        """All polygons of the scene, ordered by their first pixel, row by row.

        Raises:
            ValueError: the blocks do not cover the scene.
        """
        covered = sum(window.area_px for window in self._windows)
        if covered != self._scene.area_px:
            raise ValueError(
                f"the blocks cover {covered} of the scene's {self._scene.area_px} pixels; "
                "feed every block before finish()"
            )
        parts = [*self._done, _join(self._pending)]
        first = np.concatenate([part.first_pixel_yx for part in parts])
        order = np.lexsort((first[:, 1], first[:, 0]))
        return TracedPolygons(
            np.concatenate([part.polygons for part in parts])[order],
            np.concatenate([part.score for part in parts])[order],
            np.concatenate([part.area_px for part in parts])[order],
            first[order],
        )


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
    before: NDArray[np.bool_]
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
                # Nothing lies beyond the scene's own edges.
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


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Regions of one block that may go on in others.

    Args:
        corners: of all of them.
        runs: where they touch other blocks, owned by the numbers of the pieces.
        total: (n,) what `Regions.integrate` gives.
        area_px: (n,) int64.
        first_pixel_yx: (n, 2) int64.
    """

    corners: Corners
    runs: _Runs
    total: Ints
    area_px: Ints
    first_pixel_yx: Ints


def _join(parts: Sequence[_Pieces]) -> TracedPolygons:
    """The regions that the pieces of all blocks make up.

    One trace of the summed corners gives their polygons. Their sums come from the pieces: those
    that touch along a line are one region, and its first pixel tells which polygon is its own.
    """
    if not parts:
        return _nothing()
    regions = Regions.of(merge_corners([part.corners for part in parts]))
    count = np.array([len(part.area_px) for part in parts])
    base = np.cumsum(count) - count
    key = np.concatenate([part.runs.key for part in parts])
    before = np.concatenate([part.runs.before for part in parts])
    owner = np.concatenate([part.runs.owner + at for part, at in zip(parts, base)])
    group = _groups(int(count.sum()), *_touching(key, before, owner))

    first = np.concatenate([part.first_pixel_yx for part in parts])
    order = np.lexsort((first[:, 1], first[:, 0], group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    if not len(starts):
        return _nothing()
    total = np.add.reduceat(np.concatenate([part.total for part in parts])[order], starts)
    area = np.add.reduceat(np.concatenate([part.area_px for part in parts])[order], starts)
    first = first[order][starts]
    order = np.lexsort((first[:, 1], first[:, 0]))
    # Two independent ways to the same regions: pieces that touch, and rings through the corners.
    assert np.array_equal(first[order], regions.first_pixel_yx)
    assert np.array_equal(area[order], regions.area_px)
    every = np.ones(len(regions), np.bool_)
    score = mean_score(total[order], regions.area_px)
    return TracedPolygons(regions.polygons(every), score, regions.area_px, regions.first_pixel_yx)


def _nothing() -> TracedPolygons:
    none = np.zeros(0, np.int64)
    return TracedPolygons(
        np.zeros(0, np.object_), np.zeros(0, np.float32), none, none.reshape(0, 2)
    )


def _touching(key: Ints, before: NDArray[np.bool_], owner: Ints) -> tuple[Ints, Ints]:
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


def _groups(count: int, one: Ints, other: Ints) -> Ints:
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
