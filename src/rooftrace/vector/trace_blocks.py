"""Polygons of a scene that arrives in blocks, equal to those of the whole scene at once.

`BlockPolygonizer` traces one class and `ClassPolygonizer` several. Regions that touch other blocks
are held by `OpenRegions` until all neighbouring pixels have arrived.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Window
from rooftrace.vector.trace import (
    Bools,
    Corners,
    Ints,
    Mask8,
    Prob,
    Regions,
    TracedPolygons,
    check_shapes,
    find_corners,
    mean_score,
    merge_corners,
)

__all__ = [
    "BlockPolygonizer",
    "BlockTrace",
    "ClassPolygonizer",
    "OpenRegions",
    "RegionPieces",
    "components",
    "open_pieces",
    "trace_block",
]


_MIN_NEW_CORNERS = 1 << 15
"""Number of new corners, a megabyte, below which no search for complete regions is made."""


class OpenRegions:
    """Regions of blocks that touch other blocks, held until they are complete.

    A region is complete when every pixel opposite to it across a block's edge has been fed, whether
    foreground or not. Only corners, runs along edges and sums are held.

    Args:
        scene: Window of the whole scene.
    """

    def __init__(self, scene: Window) -> None:
        self._scene = scene
        self._held = RegionPieces.none()
        self._new: list[RegionPieces] = []
        self._new_corners = 0
        self._fed = (_Intervals(), _Intervals())

    @property
    def is_due(self) -> bool:
        """True if enough regions are new for a search for complete regions.

        There are then at least as many new corners as held ones, so the total time of all searches
        is proportional to the amount fed, in any order of the blocks.
        """
        return self._new_corners >= max(len(self._held.corners), _MIN_NEW_CORNERS)

    def feed(self, window: Window) -> None:
        """Note that a block has been fed."""
        for key, before in _edges_of(window, self._scene):
            self._fed[before].add(*key)

    def add(self, pieces: RegionPieces) -> None:
        """Add the result of `open_pieces` for a block."""
        if len(pieces):
            self._new.append(pieces)
            self._new_corners += len(pieces.corners)

    def take(self) -> RegionPieces:
        """Return the regions that have become complete."""
        if not (self._new or len(self._held)):
            return RegionPieces.none()
        pieces = RegionPieces.joined([self._held, *self._new])
        runs = pieces.runs
        # The pixels opposite to a run before its line were fed as pixels after that line.
        seen = np.where(runs.before, self._fed[0].covered(runs.key), self._fed[1].covered(runs.key))
        unseen = seen < runs.key[:, 1] - runs.key[:, 0]
        complete = np.ones(len(pieces), np.bool_)
        complete[runs.owner[unseen]] = False
        self._held = pieces.chosen(~complete, unseen)
        self._new.clear()
        self._new_corners = 0
        return pieces.chosen(complete)


def open_pieces(
    regions: Regions, total: Ints, window: Window, scene: Window
) -> tuple[RegionPieces, Bools]:
    """Return the regions of a block that touch other blocks.

    Args:
        regions: Regions of the block.
        total: (regions, 2) sums of each region, see `Regions.integrate`.
        window: Window of the block.
        scene: Window of the whole scene.

    Returns:
        Pieces for `OpenRegions`, and (regions,) True for those that touch other blocks.
    """
    runs = _Runs.of(regions, window, scene)
    taken = np.zeros(len(regions), np.bool_)
    taken[runs.owner] = True
    if not len(runs.owner):
        return RegionPieces.none(), taken
    number = np.cumsum(taken) - 1
    edge_of = regions.region_of_edge
    first = regions.first_pixel_yx[taken]
    pieces = RegionPieces(
        regions.corners_of(taken),
        number[edge_of[taken[edge_of]]],
        runs.owned_by(number[runs.owner]),
        total[taken],
        regions.area_px[taken],
        first[:, 0] * scene.width + first[:, 1],
    )
    return pieces, taken


class _Intervals:
    """Half-open intervals of an axis without overlaps; adjacent ones are merged."""

    def __init__(self) -> None:
        self._merged = np.zeros((0, 2), np.int64)
        self._new: list[tuple[int, int]] = []

    def add(self, start: int, stop: int) -> None:
        self._new.append((start, stop))

    def covered(self, key: Ints) -> Ints:
        """Return (n,) the length of each interval (n, 2) that these intervals cover."""
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
    """Return the edges that a block shares with others, as intervals on the axis of `_Runs`.

    Each comes with True if the block lies before the edge: above the line, or to the left of it.
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
        # There are no pixels beyond the scene's own edges.
        if 0 < line < size
    ]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Intervals of foreground along lines that blocks share.

    Args:
        key: (n, 2) half-open intervals on an axis on which all lines of the scene lie one after the
            other with gaps between them.
        before: (n,) True where the foreground lies above the line or to the left of it.
        owner: (n,) index of the region or piece that the run belongs to.
    """

    key: Ints
    before: Bools
    owner: Ints

    @classmethod
    def of(cls, regions: Regions, window: Window, scene: Window) -> _Runs:
        """Return the runs of a block's regions along the edges that it shares with other blocks."""
        corners = regions.corners
        horizontal = np.arange(len(corners)).reshape(-1, 2)
        # The first part of the axis holds the rows of corners, the second the columns.
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
        # Edges that meet at a corner belong to one region.
        owner = regions.region_of_edge[np.concatenate(corner) >> 1]
        return cls(np.concatenate(key), np.concatenate(before), owner)

    def owned_by(self, owner: Ints) -> _Runs:
        """Return the same runs with other owners."""
        return _Runs(self.key, self.before, owner)

    def chosen(self, kept: Bools) -> _Runs:
        return _Runs(self.key[kept], self.before[kept], self.owner[kept])


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
    def none(cls) -> RegionPieces:
        none = np.zeros(0, np.int64)
        runs = _Runs(none.reshape(0, 2), np.zeros(0, np.bool_), none)
        corners, total = Corners(none, none, np.zeros(0, np.int8)), none.reshape(0, 2)
        return cls(corners, none, runs, total, none, none)

    @classmethod
    def joined(cls, parts: Sequence[RegionPieces]) -> RegionPieces:
        """Return all pieces; those that touch along a line become one."""
        count = np.array([len(part) for part in parts])
        base = np.cumsum(count) - count
        key = np.concatenate([part.runs.key for part in parts])
        before = np.concatenate([part.runs.before for part in parts])
        owner = np.concatenate([part.runs.owner + at for part, at in zip(parts, base)])
        group = components(int(count.sum()), *_touching(key, before, owner))
        leaders, group = np.unique(group, return_inverse=True)
        total, area = np.zeros((len(leaders), 2), np.int64), np.zeros(len(leaders), np.int64)
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

    def chosen(self, kept: Bools, runs: Bools | None = None) -> RegionPieces:
        """Return some of the pieces (n,), with some of their runs (m,); default: without runs."""
        number = np.cumsum(kept) - 1
        pairs = kept[self.owner]
        runs = np.zeros(len(self.runs.owner), np.bool_) if runs is None else runs
        left = self.runs.chosen(runs)
        return RegionPieces(
            self._corners_of(pairs), number[self.owner[pairs]], left.owned_by(number[left.owner]),
            self.total[kept], self.area_px[kept], self.first[kept],
        )  # fmt: skip

    def _corners_of(self, pairs: Bools) -> Corners:
        both = np.repeat(pairs, 2)
        return Corners(self.corners.row[both], self.corners.col[both], self.corners.weight[both])

    def traced(self, width: int) -> TracedPolygons:
        """Return complete regions as polygons, ordered by their first pixel.

        One trace of their summed corners gives the polygons. The sums come from the pieces, and the
        first pixel relates polygons to pieces.

        Args:
            width: Width of the scene.
        """
        if not len(self):
            return TracedPolygons.none()
        regions = Regions.of(merge_corners([self.corners]))
        order = np.argsort(self.first)
        # Pieces that touch and rings through corners lead independently to the same regions.
        first = np.stack(np.divmod(self.first[order], width), axis=1)
        assert np.array_equal(first, regions.first_pixel_yx)
        assert np.array_equal(self.area_px[order], regions.area_px)
        score = mean_score(self.total[order])
        every = np.ones(len(order), np.bool_)
        return TracedPolygons(regions.polygons(every), score, regions.area_px, first)


def _touching(key: Ints, before: Bools, owner: Ints) -> tuple[Ints, Ints]:
    """Return the owners of runs that lie opposite each other along a line, pair by pair."""
    order = np.argsort(key[:, 0])
    key, before, owner = key[order], before[order], owner[order]
    here, there = key[before], key[~before]
    # The runs of one side do not overlap, so both their ends ascend.
    low = np.searchsorted(there[:, 1], here[:, 0], side="right")
    high = np.searchsorted(there[:, 0], here[:, 1], side="left")
    times = high - low
    pair = np.arange(times.sum()) + np.repeat(low - (np.cumsum(times) - times), times)
    return np.repeat(owner[before], times), owner[~before][pair]


def components(count: int, one: Ints, other: Ints) -> Ints:
    """Return (count,) the smallest member of each node's connected component.

    Each label falls to the minimum of its neighbours' labels, with pointer doubling, until no edge
    connects two different labels.

    Args:
        count: Number of nodes.
        one, other: (edges,) the two nodes of each edge.
    """
    label = np.arange(count)
    while True:
        low, high = np.minimum(label[one], label[other]), np.maximum(label[one], label[other])
        different = low < high
        if not different.any():
            return label
        np.minimum.at(label, high[different], low[different])
        while (label[label] != label).any():
            label = label[label]


@dataclass(frozen=True)
class BlockTrace:
    """The regions of one block; picklable.

    Args:
        window: Window of the block.
        pieces: Regions that touch other blocks.
        complete: The other regions.
        small_px: Pixels of complete regions that are too small, and dropped.
        foreground_px: Number of foreground pixels.
    """

    window: Window
    pieces: RegionPieces
    complete: TracedPolygons
    small_px: int
    foreground_px: int

    def without_complete(self) -> BlockTrace:
        """Return the trace without its complete regions, which are processed elsewhere."""
        return replace(self, complete=TracedPolygons.none())


def trace_block(
    scene: Window, window: Window, mask: Mask8, prob: Prob | None, smallest_px: float = 0.0
) -> BlockTrace:
    """Return the regions of a block, which depend on the block alone.

    Args:
        scene: Window of the whole scene.
        window, mask, prob: See `BlockPolygonizer.feed`.
        smallest_px: Minimum number of pixels of a complete region.

    Raises:
        ValueError: A shape or value is invalid, see `BlockPolygonizer.feed`.
    """
    check_shapes(mask, window, prob)
    regions = Regions.of(find_corners(mask).shifted(window.row, window.col))
    total = np.stack([np.zeros_like(regions.area_px), regions.area_px], axis=1)
    if prob is not None:
        total = regions.integrate(mask, prob, window)
    pieces, crossing = open_pieces(regions, total, window, scene)
    done = ~crossing
    # Noise has thousands of specks; polygons are not made for them.
    small = done & (regions.area_px < smallest_px)
    small_px = int(regions.area_px[small].sum())
    done &= ~small
    area, first = regions.area_px[done], regions.first_pixel_yx[done]
    score = mean_score(total[done])
    complete = TracedPolygons(regions.polygons(done), score, area, first)
    return BlockTrace(window, pieces, complete, small_px, int(regions.area_px.sum()))


class BlockPolygonizer:
    """Polygons of a scene from blocks that partition it, fed in any order.

    A region that touches no other block is complete when its block is fed, other regions when all
    blocks that they touch have been fed. If `take` is called after each block, only the outlines of
    regions between fed and unfed blocks are held. With blocks in row order, memory grows with the
    scene's width and not with its height.

    Args:
        shape_yx: (rows, columns) of the scene.
        smallest_px: Minimum pixels of a region; smaller ones are counted in `small_px` and dropped.
    """

    def __init__(self, shape_yx: tuple[int, int], smallest_px: float = 0.0) -> None:
        self.small_px = 0
        """Pixels of the regions that were dropped."""
        self._smallest_px = smallest_px
        self._scene = Window.whole(shape_yx)
        self._cover = _Coverage()
        self._done: list[TracedPolygons] = []
        self._open_regions = OpenRegions(self._scene)

    def feed(self, window: Window, mask: Mask8, prob: Prob | None) -> None:
        """Add one block.

        Args:
            window: Window of the scene; it overlaps no block fed before.
            mask: (y, x) mask of the window; all values but 0 are foreground.
            prob: (y, x) probabilities, float32 in 0..1 or uint8 in 255ths, NaN where unknown; None
                counts as 0.

        Raises:
            ValueError: The block leaves the scene, overlaps another or has another shape, or a
                foreground pixel's probability is infinite.
        """
        self._check_place(window)
        self.add(trace_block(self._scene, window, mask, prob, self._smallest_px))

    def add(self, trace: BlockTrace) -> None:
        """Add the result of `trace_block` for a block of this scene, from any process.

        Raises:
            ValueError: The block leaves the scene or overlaps another.
        """
        self._check_place(trace.window)
        self._open_regions.add(trace.pieces)
        self.small_px += trace.small_px
        if len(trace.complete):
            self._done.append(trace.complete)
        self._note(trace.window)

    def skip(self, window: Window) -> None:
        """Add one block without foreground.

        Raises:
            ValueError: The block leaves the scene or overlaps another.
        """
        self._check_place(window)
        self._note(window)

    def _note(self, window: Window) -> None:
        self._cover.add(window)
        self._open_regions.feed(window)

    def _check_place(self, window: Window) -> None:
        if window.intersection(self._scene) != window:
            raise ValueError(f"block {window} leaves the scene, {self._scene}")
        other = self._cover.overlapping(window)
        if other is not None:
            raise ValueError(f"block {window} overlaps {other}, which was fed before")

    @property
    def is_due(self) -> bool:
        """True if enough regions wait for other blocks to search for complete ones.

        Calling `join` whenever this is true takes time proportional to the amount fed.
        """
        return self._open_regions.is_due

    def join(self) -> None:
        """Search the waiting regions for complete ones, which `take` then returns."""
        self._done.append(self.joined().traced(self._scene.width))

    def joined(self) -> RegionPieces:
        """Search the waiting regions for complete ones, and return them; any process may trace
        them.
        """
        joined = self._open_regions.take()
        large = joined.area_px >= self._smallest_px
        self.small_px += int(joined.area_px[~large].sum())
        return joined.chosen(large)

    def take(self) -> TracedPolygons:
        """Return the regions that are known to be complete and were not taken yet.

        They are ordered by their first pixel. All results together are the regions of the scene.
        """
        taken = TracedPolygons.concatenated(self._done)
        self._done.clear()
        return taken

    def finish(self) -> TracedPolygons:
        """Return all regions of the scene that were not taken, ordered by their first pixel, row by
        row.

        Raises:
            ValueError: The blocks do not cover the scene.
        """
        self.check_covered()
        self.join()
        return self.take()

    def check_covered(self) -> None:
        """Raise ValueError if the blocks do not cover the scene."""
        if self._cover.area_px != self._scene.area_px:
            raise ValueError(
                f"the blocks cover {self._cover.area_px} of the scene's {self._scene.area_px} "
                "pixels; feed every block before finish()"
            )


class _Coverage:
    """The area that has been fed, as rectangles; at most two for blocks in row order."""

    def __init__(self) -> None:
        self._bounds: Ints = np.zeros((0, 4), np.int64)
        self.area_px = 0

    def overlapping(self, window: Window) -> Window | None:
        """Return a rectangle that shares pixels with a window, or None."""
        row, col, row_stop, col_stop = self._bounds.T
        hit = (row < window.row_stop) & (row_stop > window.row)
        hit &= (col < window.col_stop) & (col_stop > window.col)
        found = self._bounds[hit]
        if not len(found):
            return None
        row0, col0, row1, col1 = found[0].tolist()
        return Window(row0, col0, row1 - row0, col1 - col0)

    def add(self, window: Window) -> None:
        """Add a window that overlaps none."""
        self.area_px += window.area_px
        bounds = np.array([[window.row, window.col, window.row_stop, window.col_stop]])
        while len(self._bounds) and _have_a_side_in_common(self._bounds[-1], bounds[0]):
            last = self._bounds[-1]
            bounds = np.append(np.minimum(last, bounds[0])[:2], np.maximum(last, bounds[0])[2:])
            bounds = bounds[None]
            self._bounds = self._bounds[:-1]
        self._bounds = np.concatenate([self._bounds, bounds])


def _have_a_side_in_common(one: Ints, other: Ints) -> bool:
    same = one == other
    rows = bool(same[0] and same[2]) and (one[3] == other[1] or one[1] == other[3])
    cols = bool(same[1] and same[3]) and (one[2] == other[0] or one[0] == other[2])
    return bool(rows or cols)


class ClassPolygonizer:
    """One `BlockPolygonizer` for each class, fed together.

    The polygons of all classes cover each of their pixels once: a hole in one class is filled by
    others. The time for a block depends on the classes that occur in it.

    Args:
        shape_yx: (rows, columns) of the scene.
        classes: Class indices to trace.
        smallest_px: Minimum number of pixels of a region.
    """

    def __init__(
        self, shape_yx: tuple[int, int], classes: Iterable[int], smallest_px: float = 0.0
    ) -> None:
        self._tracers = {index: BlockPolygonizer(shape_yx, smallest_px) for index in classes}
        self.pixels = dict.fromkeys(self._tracers, 0)
        """Number of pixels fed, by class."""

    def feed(
        self, window: Window, mask: NDArray[np.uint8], prob: Prob | None, occurring: Collection[int]
    ) -> None:
        """Add one block.

        Args:
            window: Window of the scene; it overlaps no block fed before.
            mask: (y, x) class indices.
            prob: (y, x) probability of each pixel's class, see `BlockPolygonizer.feed`.
            occurring: Classes that occur in the block.

        Raises:
            ValueError: See `BlockPolygonizer.feed`.
        """
        for index, tracer in self._tracers.items():
            if index in occurring:
                own = mask == index
                tracer.feed(window, own, prob)
                self.pixels[index] += int(np.count_nonzero(own))
            else:
                tracer.skip(window)

    def add(self, window: Window, traces: Mapping[int, BlockTrace]) -> None:
        """Add the traces of one block by class; classes that do not occur are missing.

        Raises:
            ValueError: See `BlockPolygonizer.add`.
        """
        for index, tracer in self._tracers.items():
            trace = traces.get(index)
            if trace is None:
                tracer.skip(window)
            else:
                tracer.add(trace)
                self.pixels[index] += trace.foreground_px

    @property
    def small_px(self) -> dict[int, int]:
        """Pixels of the regions that were dropped so far, by class."""
        return {index: tracer.small_px for index, tracer in self._tracers.items()}

    @property
    def is_due(self) -> bool:
        """True if one of the classes is due, see `BlockPolygonizer.is_due`."""
        return any(tracer.is_due for tracer in self._tracers.values())

    def join(self) -> None:
        """Call `BlockPolygonizer.join` for each class."""
        for tracer in self._tracers.values():
            tracer.join()

    def joined(self) -> dict[int, RegionPieces]:
        """Call `BlockPolygonizer.joined` for each class."""
        return {index: tracer.joined() for index, tracer in self._tracers.items()}

    def check_covered(self) -> None:
        """Raise ValueError if the blocks do not cover the scene."""
        for tracer in self._tracers.values():
            tracer.check_covered()

    def take(self) -> dict[int, TracedPolygons]:
        """Return the regions of each class that are known to be complete and were not taken yet."""
        return {index: tracer.take() for index, tracer in self._tracers.items()}

    def finish(self) -> dict[int, TracedPolygons]:
        """Return all regions of each class that were not taken.

        Raises:
            ValueError: The blocks do not cover the scene.
        """
        return {index: tracer.finish() for index, tracer in self._tracers.items()}
