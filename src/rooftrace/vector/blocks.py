"""Polygons of a scene that comes block by block: those of the whole scene, exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rooftrace.core.types import Window
from rooftrace.vector.corners import Ints, find_corners
from rooftrace.vector.frontier import Frontier, Pieces, pieces_of
from rooftrace.vector.polygonize import (
    Mask8,
    Prob,
    Regions,
    TracedPolygons,
    check_shapes,
    mean_score,
)

__all__ = ["BlockPolygonizer", "BlockTrace", "trace_block"]


@dataclass(frozen=True)
class BlockTrace:
    """The regions of one block; it can be pickled.

    Args:
        window: of the scene.
        pieces: of those that touch other blocks.
        complete: those that do not.
        small_px: pixels of the complete ones that are too small, and left out.
        foreground_px: pixels of all.
    """

    window: Window
    pieces: Pieces
    complete: TracedPolygons
    small_px: int
    foreground_px: int

    def without_complete(self) -> BlockTrace:
        """Where the complete ones are somebody else's affair."""
        return replace(self, complete=TracedPolygons.none())


def trace_block(
    scene: Window, window: Window, mask: Mask8, prob: Prob | None, smallest_px: float = 0.0
) -> BlockTrace:
    """The regions of a block, which depend on it alone.

    Args:
        scene: all of it.
        window, mask, prob: see `BlockPolygonizer.feed`.
        smallest_px: complete regions of fewer pixels are left out.

    Raises:
        ValueError: as `BlockPolygonizer.feed`, of shapes and values.
    """
    check_shapes(mask, window, prob)
    regions = Regions.of(find_corners(mask).moved(window.row, window.col))
    total = np.zeros(len(regions), np.int64)
    if prob is not None:
        total = regions.integrate(mask, prob, window)
    pieces, crossing = pieces_of(regions, total, window, scene)
    done = ~crossing
    # Noise has thousands of specks, of each of which a polygon would have to be made.
    small = done & (regions.area_px < smallest_px)
    small_px = int(regions.area_px[small].sum())
    done &= ~small
    area, first = regions.area_px[done], regions.first_pixel_yx[done]
    score = mean_score(total[done], area)
    complete = TracedPolygons(regions.polygons(done), score, area, first)
    return BlockTrace(window, pieces, complete, small_px, int(regions.area_px.sum()))


class BlockPolygonizer:
    """Polygons of a scene from blocks that partition it, fed in any order.

    A region that touches no other block is complete when its block is fed, the others when all
    blocks that they touch have been. Whoever calls `take` after each block holds only the outlines
    of regions that cross from what was fed to what was not: with blocks that come row by row,
    memory grows with the scene's width and not with its height.

    Args:
        shape_yx: (rows, columns) of the scene.
        smallest_px: regions of fewer pixels are counted in `small_px` and left out.
    """

    def __init__(self, shape_yx: tuple[int, int], smallest_px: float = 0.0) -> None:
        self.small_px = 0
        """Pixels of the regions that were left out."""
        self._smallest_px = smallest_px
        self._scene = Window.whole(shape_yx)
        self._cover = _Cover()
        self._done: list[TracedPolygons] = []
        self._frontier = Frontier(self._scene)

    def feed(self, window: Window, mask: Mask8, prob: Prob | None) -> None:
        """Takes one block.

        Args:
            window: of the scene; shares no pixel with a block fed before.
            mask: (y, x) of the window; everything but 0 is foreground.
            prob: (y, x) of the window, float32 in 0..1 or uint8 standing for 0..1 by 255ths. None
                counts as 0.

        Raises:
            ValueError: the block leaves the scene, overlaps another or has other shapes, or a
                foreground pixel's probability is not finite.
        """
        self._check_place(window)
        self.add(trace_block(self._scene, window, mask, prob, self._smallest_px))

    def add(self, trace: BlockTrace) -> None:
        """Takes what `trace_block` gave of a block of this scene, wherever that was.

        Raises:
            ValueError: as `feed`, of its place.
        """
        self._check_place(trace.window)
        self._frontier.add(trace.pieces)
        self.small_px += trace.small_px
        self._done.append(trace.complete)
        self._note(trace.window)

    def skip(self, window: Window) -> None:
        """Takes one block that has no foreground, without looking at it.

        Raises:
            ValueError: as `feed`.
        """
        self._check_place(window)
        self._note(window)

    def _note(self, window: Window) -> None:
        self._cover.add(window)
        self._frontier.feed(window)

    def _check_place(self, window: Window) -> None:
        if window.intersection(self._scene) != window:
            raise ValueError(f"block {window} leaves the scene, {self._scene}")
        other = self._cover.overlapping(window)
        if other is not None:
            raise ValueError(f"block {window} overlaps {other}, which was fed before")

    @property
    def ripe(self) -> bool:
        """Whether so many regions wait for other blocks that it is time to see which are complete.

        To `join` them whenever this is so takes a time in proportion to what was fed.
        """
        return self._frontier.ripe

    def join(self) -> None:
        """Looks which of the regions that waited are complete, for `take` to hand out."""
        joined = self._frontier.take()
        large = joined.area_px >= self._smallest_px
        self.small_px += int(joined.area_px[~large].sum())
        self._done.append(joined.of(large))

    def take(self) -> TracedPolygons:
        """The regions that are known to be complete and were not taken yet.

        Ordered by their first pixel. All that is ever taken is together the regions of the scene.
        """
        taken = TracedPolygons.concatenated(self._done)
        self._done.clear()
        return taken

    def finish(self) -> TracedPolygons:
        """All regions of the scene that were not taken, ordered by their first pixel, row by row.

        Raises:
            ValueError: the blocks do not cover the scene.
        """
        if self._cover.area_px != self._scene.area_px:
            raise ValueError(
                f"the blocks cover {self._cover.area_px} of the scene's {self._scene.area_px} "
                "pixels; feed every block before finish()"
            )
        self.join()
        return self.take()


class _Cover:
    """What has been fed, as rectangles; blocks that come row by row are two of them at most."""

    def __init__(self) -> None:
        self._bounds: Ints = np.zeros((0, 4), np.int64)
        self.area_px = 0

    def overlapping(self, window: Window) -> Window | None:
        """A rectangle that shares pixels with a window, if there is one."""
        row, col, row_stop, col_stop = self._bounds.T
        hit = (row < window.row_stop) & (row_stop > window.row)
        hit &= (col < window.col_stop) & (col_stop > window.col)
        found = self._bounds[hit]
        if not len(found):
            return None
        row0, col0, row1, col1 = found[0].tolist()
        return Window(row0, col0, row1 - row0, col1 - col0)

    def add(self, window: Window) -> None:
        """Takes a window that overlaps none."""
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
