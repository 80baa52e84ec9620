"""Polygons of a scene that arrives in blocks, equal to those of the whole scene at once.

`trace_block` traces one block. Regions that touch other blocks are held by `OpenRegions` until all
neighbouring pixels have arrived. `BlockPolygonizer` does both for one mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rooftrace.core.arrays import components
from rooftrace.core.types import BoolArray, Ints, Window
from rooftrace.vector.trace import (
    Columns,
    Corners,
    Mask8,
    Prob,
    Regions,
    TracedPolygons,
    mean_score,
)

_MIN_NEW_CORNERS = 1 << 15
"""Number of new corners, a megabyte, below which no search for complete regions is made."""


@dataclass(frozen=True)
class _Runs(Columns):
    """Intervals of foreground along lines that blocks share.

    Args:
        key: (n, 2) half-open intervals on an axis on which all lines of the scene lie one after the
            other with gaps between them.
        before: (n,) True where the foreground lies above the line or to the left of it.
        owner: (n,) index of the piece that the run belongs to.
    """

    key: Ints
    before: BoolArray
    owner: Ints


def _shared_lines(window: Window, scene: Window) -> Iterator[tuple[bool, int, int, bool]]:
    """Yield the lines that a block shares with others; there are none at the scene's own edges.

    Yields:
        True for a row of corners, False for a column; its number; the position of its origin on the
        axis of `_Runs`; and True if the block lies before it: above, or to the left.
    """
    stride = max(scene.shape_yx) + 2
    for is_row, first, last, size, shift in (
        (True, window.row, window.row_stop, scene.height, 0),
        (False, window.col, window.col_stop, scene.width, scene.height + 1),
    ):
        for line, before in ((first, False), (last, True)):
            if 0 < line < size:
                yield is_row, line, (line + shift) * stride, before


@dataclass(frozen=True, slots=True)
class RegionPieces:
    """Parts of regions from one or several blocks.

    Args:
        corners: Corners of all pieces, pair by pair.
        owner: (pairs,) piece of each pair of corners.
        runs: Runs along the edges of other blocks.
        total: (n, 2) sums, see `Regions.integrate`.
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
    def of_block(
        cls, regions: Regions, total: Ints, window: Window, scene: Window
    ) -> tuple[RegionPieces, BoolArray]:
        """Return the regions of a block that touch other blocks, and (regions,) which these are.

        Args:
            total: (regions, 2) sums of each region, see `Regions.integrate`.
        """
        corners = regions.corners
        horizontal = np.arange(len(corners)).reshape(-1, 2)
        none = np.zeros(0, np.int64)
        keys, befores, firsts = [none.reshape(0, 2)], [np.zeros(0, np.bool_)], [none]
        for is_row, line, origin, before in _shared_lines(window, scene):
            pairs = horizontal if is_row else regions.vertical
            across, along = (corners.row, corners.col)[:: 1 if is_row else -1]
            edges = pairs[across[pairs[:, 0]] == line]
            keys.append(along[edges] + origin)
            befores.append(np.full(len(edges), before))
            firsts.append(edges[:, 0])
        # Edges that meet at a corner belong to one region.
        owner = regions.region_of_edge[np.concatenate(firsts) >> 1]
        touches = np.zeros(len(total), np.bool_)
        touches[owner] = True
        number = np.cumsum(touches) - 1
        kept = touches[regions.region_of_edge]
        first = regions.first_pixel_yx[touches]
        pieces = cls(
            corners.of(np.repeat(kept, 2)), number[regions.region_of_edge[kept]],
            _Runs(np.concatenate(keys), np.concatenate(befores), number[owner]), total[touches],
            regions.area_px[touches], first[:, 0] * scene.width + first[:, 1],
        )  # fmt: skip
        return pieces, touches

    @classmethod
    def joined(cls, parts: Sequence[RegionPieces]) -> RegionPieces:
        """Return the pieces of one or more parts; those that touch along a line become one."""
        count = np.array([len(part) for part in parts])
        base = np.cumsum(count) - count
        runs = _Runs.joined(
            [replace(part.runs, owner=part.runs.owner + at) for part, at in zip(parts, base)]
        )
        # Runs opposite each other along a line: those of one side do not overlap, so that in their
        # order both their ends ascend.
        order = runs.of(np.argsort(runs.key[:, 0]))
        here, there = order.of(order.before), order.of(~order.before)
        low = np.searchsorted(there.key[:, 1], here.key[:, 0], side="right")
        times = np.searchsorted(there.key[:, 0], here.key[:, 1], side="left") - low
        pair = np.arange(times.sum()) + np.repeat(low - (np.cumsum(times) - times), times)
        touching = np.repeat(here.owner, times), there.owner[pair]
        leaders, group = np.unique(components(int(count.sum()), *touching), return_inverse=True)
        total, area = np.zeros((len(leaders), 2), np.int64), np.zeros(len(leaders), np.int64)
        np.add.at(total, group, np.concatenate([part.total for part in parts]))
        np.add.at(area, group, np.concatenate([part.area_px for part in parts]))
        first = np.full(len(leaders), np.iinfo(np.int64).max)
        np.minimum.at(first, group, np.concatenate([part.first for part in parts]))
        pairs = np.concatenate([part.owner + at for part, at in zip(parts, base)])
        return cls(
            Corners.joined([part.corners for part in parts]), group[pairs],
            replace(runs, owner=group[runs.owner]), total, area, first,
        )  # fmt: skip

    def chosen(self, kept: BoolArray, runs: BoolArray) -> RegionPieces:
        """Return some of the pieces (n,), with some of their runs (m,)."""
        number = np.cumsum(kept) - 1
        pairs = kept[self.owner]
        left = self.runs.of(runs)
        return RegionPieces(
            self.corners.of(np.repeat(pairs, 2)), number[self.owner[pairs]],
            replace(left, owner=number[left.owner]), self.total[kept], self.area_px[kept],
            self.first[kept],
        )  # fmt: skip

    def traced(self, width: int) -> TracedPolygons:
        """Return complete regions as polygons, ordered by their first pixel.

        One trace of their summed corners gives the polygons. The sums come from the pieces, and the
        first pixel relates polygons to pieces.
        """
        regions = Regions.of(self.corners.merged())
        order = np.argsort(self.first)
        # Pieces that touch and rings through corners lead independently to the same regions.
        first = np.stack(np.divmod(self.first[order], width), axis=1)
        assert np.array_equal(first, regions.first_pixel_yx)
        assert np.array_equal(self.area_px[order], regions.area_px)
        score = mean_score(self.total[order])
        every = np.ones(len(order), np.bool_)
        return TracedPolygons(regions.polygons(every), score, regions.area_px, first)


@dataclass(frozen=True)
class BlockTrace:
    """The regions of one block; picklable.

    Args:
        small_px: Pixels of complete regions that are too small, and dropped.
    """

    pieces: RegionPieces
    complete: TracedPolygons
    small_px: int
    foreground_px: int


def trace_block(
    scene: Window, window: Window, mask: Mask8, prob: Prob | None, smallest_px: float = 0.0
) -> BlockTrace:
    """Return the regions of a block, which depend on the block alone.

    Args:
        mask: (y, x) mask of the window; all values but 0 are foreground.
        prob: (y, x) probabilities, float32 in 0..1 or uint8 in 255ths, NaN where unknown; None
            counts as 0.
        smallest_px: Minimum number of pixels of a complete region.

    Raises:
        ValueError: A foreground pixel's probability is infinite.
    """
    regions = Regions.of(Corners.of_mask(mask, window))
    total = np.stack([np.zeros_like(regions.area_px), regions.area_px], axis=1)
    if prob is not None:
        total = regions.integrate(mask, prob, window)
    pieces, crossing = RegionPieces.of_block(regions, total, window, scene)
    # Noise has thousands of specks; polygons are not made for them.
    small = ~crossing & (regions.area_px < smallest_px)
    done = ~crossing & ~small
    complete = TracedPolygons(
        regions.polygons(done), mean_score(total[done]), regions.area_px[done],
        regions.first_pixel_yx[done],
    )  # fmt: skip
    small_px = int(regions.area_px[small].sum())
    return BlockTrace(pieces, complete, small_px, int(regions.area_px.sum()))


class OpenRegions:
    """Regions of blocks that touch other blocks, held until they are complete.

    A region is complete when every pixel opposite to it across a block's edge has been added,
    whether foreground or not. Only corners, runs along edges and sums are held. With blocks in row
    order, memory grows with the scene's width and not with its height.

    Args:
        smallest_px: Minimum pixels of a region; smaller ones are counted in `small_px` and dropped.
    """

    def __init__(self, scene: Window, smallest_px: float = 0.0) -> None:
        self.small_px = 0
        """Pixels of the regions that were dropped."""
        self.foreground_px = 0
        """Number of foreground pixels that were added."""
        self._scene, self._smallest_px = scene, smallest_px
        self._held: list[RegionPieces] = []
        self._new: list[RegionPieces] = []
        self._new_corners = 0
        self._added_px = 0
        # Intervals of shared lines whose pixels after and before the line were added.
        self._sides: tuple[list[tuple[int, int]], ...] = ([], [])

    def add(self, window: Window, trace: BlockTrace | None) -> None:
        """Add a block that overlaps no other; None stands for one without foreground."""
        self._added_px += window.area_px
        for is_row, _, origin, before in _shared_lines(window, self._scene):
            ends = (window.col, window.col_stop) if is_row else (window.row, window.row_stop)
            self._sides[before].append((ends[0] + origin, ends[1] + origin))
        if trace is not None:
            self.small_px += trace.small_px
            self.foreground_px += trace.foreground_px
            if len(trace.pieces):
                self._new.append(trace.pieces)
                self._new_corners += len(trace.pieces.corners)

    @property
    def is_due(self) -> bool:
        """True if enough regions are new for a search for complete regions.

        There are then at least as many new corners as held ones, so the total time of all searches
        is proportional to the amount added, in any order of the blocks.
        """
        held = sum(len(pieces.corners) for pieces in self._held)
        return self._new_corners >= max(held, _MIN_NEW_CORNERS)

    def take(self) -> RegionPieces | None:
        """Return the regions that have become complete, for `RegionPieces.traced`; None without."""
        parts = [*self._held, *self._new]
        if not parts:
            return None
        pieces = RegionPieces.joined(parts)
        key = pieces.runs.key
        # The pixels opposite to a run before its line were added as pixels after that line.
        after, before = (_covered(side, key) for side in self._sides)
        unseen = np.where(pieces.runs.before, after, before) < key[:, 1] - key[:, 0]
        complete = np.ones(len(pieces), np.bool_)
        complete[pieces.runs.owner[unseen]] = False
        self._held = [pieces.chosen(~complete, unseen)]
        self._new, self._new_corners = [], 0
        small = complete & (pieces.area_px < self._smallest_px)
        self.small_px += int(pieces.area_px[small].sum())
        large = complete & ~small
        return pieces.chosen(large, np.zeros(len(unseen), np.bool_)) if large.any() else None

    def check_covered(self) -> None:
        """Raise ValueError if the blocks do not cover the scene."""
        if self._added_px != self._scene.area_px:
            raise ValueError(
                f"the blocks cover {self._added_px} of the scene's {self._scene.area_px} pixels; "
                "feed every block once before finish()"
            )


def _covered(intervals: list[tuple[int, int]], key: Ints) -> Ints:
    """Return (n,) the length of each interval (n, 2) that others, which share nothing, cover."""
    # The first one lies before all lines, so that each key follows one.
    start, stop = np.array(sorted([(-2, -1), *intervals]), np.int64).T
    total = np.concatenate([[0], np.cumsum(stop - start)])
    index = np.searchsorted(start, key, side="right")
    before = total[index] - (stop[index - 1] - key).clip(min=0)
    return np.asarray(before[:, 1] - before[:, 0], np.int64)


class BlockPolygonizer:
    """Polygons of a mask from blocks that partition its scene, fed in any order.

    A region that touches no other block is complete when its block is fed, other regions when all
    blocks that they touch have been fed. If `take` is called after each block, only the outlines of
    regions between fed and unfed blocks are held.

    Args:
        shape_yx: (rows, columns) of the scene.
        smallest_px: Minimum pixels of a region; smaller ones are dropped.
    """

    def __init__(self, shape_yx: tuple[int, int], smallest_px: float = 0.0) -> None:
        self._scene, self._smallest_px = Window.whole(shape_yx), smallest_px
        self._open = OpenRegions(self._scene, smallest_px)
        self._done: list[TracedPolygons] = []

    def feed(self, window: Window, mask: Mask8, prob: Prob | None) -> None:
        """Trace and add one block; see `trace_block`."""
        self.add(window, trace_block(self._scene, window, mask, prob, self._smallest_px))

    def add(self, window: Window, trace: BlockTrace | None) -> None:
        """Add the result of `trace_block`, from any process; None for a block without foreground.

        Args:
            window: Window of the scene; it overlaps no block added before.
            trace: Regions of the block.
        """
        self._open.add(window, trace)
        if trace is not None:
            self._done.append(trace.complete)

    def take(self, *, join: bool | None = None) -> TracedPolygons:
        """Return the regions that are known to be complete and were not taken yet.

        They are ordered by their first pixel. All results together are the regions of the scene.

        Args:
            join: True to search the regions that touch several blocks, too; by default that is
                done when it is due, which takes time proportional to the amount fed.
        """
        if self._open.is_due if join is None else join:
            pieces = self._open.take()
            if pieces is not None:
                self._done.append(pieces.traced(self._scene.width))
        taken = TracedPolygons.joined(self._done)
        self._done.clear()
        return taken

    def finish(self) -> TracedPolygons:
        """Return all regions of the scene that were not taken, ordered by their first pixel, row by
        row.

        Raises:
            ValueError: The blocks do not cover the scene.
        """
        self._open.check_covered()
        return self.take(join=True)
