"""The grid of tiles of a scene, and the blocks into which its work is divided.

Each axis has a grid of its own. Tile i of an axis reads [i * stride, i * stride + tile), which may
leave the scene at its far end. Where two tiles overlap, one fades out while the other fades in:

    |---- tile 0 ----------|
                    |---- tile 1 ----------|
     16 16 16 16 16 |trim, ramp, trim| 16 …           weights, in 16ths

`trim` pixels at a tile's inner edges have no weight, since the edge distorts the answer there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Tile, Window

WEIGHT_ONE = 16
"""Sum of the weights of an axis at each pixel; a power of two, so that sums are exact."""

_ALIGN_PX = 512
"""Blocks start at multiples of this number, like the tiles of the output file."""


@dataclass(frozen=True)
class TileAxis:
    """The tiles along one axis.

    Args:
        length: Length of the scene in pixels.
        tile_px: Number of pixels that a tile reads.
        overlap_px: Number of pixels that a tile shares with the next one; at most half a tile.
        trim_px: Number of pixels at either end of the overlap without weight for the tile that
            ends there.
        count: Number of tiles.
    """

    length: int
    tile_px: int
    overlap_px: int
    trim_px: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.trim_px <= self.overlap_px <= self.tile_px // 2:
            raise ValueError(f"{self}: trim and overlap do not fit the tile")
        covered = self.count * self.stride_px + self.overlap_px
        if self.length < 1 or self.count < 1 or covered < self.length:
            raise ValueError(f"{self}: the tiles do not cover the axis")

    @property
    def stride_px(self) -> int:
        return self.tile_px - self.overlap_px

    @cached_property
    def _fade_in(self) -> NDArray[np.uint16]:
        """Weights (overlap,) from 0 to WEIGHT_ONE; the tile before has the rest."""
        ramp_px = self.overlap_px - 2 * self.trim_px
        ramp = (np.arange(ramp_px) * 2 + 1) * WEIGHT_ONE // (2 * max(ramp_px, 1))
        if not ramp_px:
            # There is no ramp: the seam lies in the middle.
            return np.repeat([0, WEIGHT_ONE], self.trim_px).astype(np.uint16)
        ends = np.zeros(self.trim_px), np.full(self.trim_px, WEIGHT_ONE)
        return np.concatenate([ends[0], ramp, ends[1]]).astype(np.uint16)

    def weights(self, index: int) -> NDArray[np.uint16]:
        """Return the weight (tile,) of each pixel of a tile, 0..WEIGHT_ONE."""
        weights = np.full(self.tile_px, WEIGHT_ONE, dtype=np.uint16)
        if self.overlap_px:
            if index > 0:
                weights[: self.overlap_px] = self._fade_in
            if index < self.count - 1:
                weights[-self.overlap_px :] = WEIGHT_ONE - self._fade_in
        return weights

    @cached_property
    def support(self) -> tuple[tuple[int, int], ...]:
        """Half-open range of scene pixels at which each tile has weight."""
        spans = []
        for index in range(self.count):
            counted = np.flatnonzero(self.weights(index))
            start = index * self.stride_px
            spans.append((start + int(counted[0]), min(start + int(counted[-1]) + 1, self.length)))
        return tuple(spans)

    def touching(self, start: int, stop: int) -> range:
        """Return the indices of the tiles with weight somewhere in [start, stop)."""
        first = max(0, (start - self.tile_px) // self.stride_px)
        last = min(self.count, stop // self.stride_px + 1)
        hits = [i for i in range(first, last) if start < self.support[i][1]
                and stop > self.support[i][0]]  # fmt: skip
        return range(hits[0], hits[-1] + 1) if hits else range(0)


@dataclass(frozen=True)
class TilePlan:
    """The tiles of a scene. The index of a tile is its (row, column) in the grid of tiles."""

    rows: TileAxis
    cols: TileAxis

    @property
    def shape_yx(self) -> tuple[int, int]:
        return self.rows.length, self.cols.length

    @property
    def tile_shape_yx(self) -> tuple[int, int]:
        return self.rows.tile_px, self.cols.tile_px

    def __len__(self) -> int:
        return self.rows.count * self.cols.count

    def tile(self, index: tuple[int, int]) -> Tile:
        """Return the window that a tile reads, which may leave the scene, and its weighted part."""
        row, col = index
        top, bottom = self.rows.support[row]
        left, right = self.cols.support[col]
        start_yx = row * self.rows.stride_px, col * self.cols.stride_px
        read = Window(*start_yx, *self.tile_shape_yx)
        return Tile(read, Window(top, left, bottom - top, right - left))

    def tiles_for(self, window: Window) -> list[tuple[int, int]]:
        """Return the tiles that have weight in `window`, row by row."""
        rows = self.rows.touching(window.row, window.row_stop)
        cols = self.cols.touching(window.col, window.col_stop)
        return [(row, col) for row in rows for col in cols]


def plan_tiles(
    shape_yx: tuple[int, int],
    *,
    tile_px: int,
    overlap_px: int,
    trim_px: int = 0,
    multiple_px: int = 1,
    exact: bool = False,
) -> TilePlan:
    """Return the tiles of a scene.

    The tile size is chosen to fit the scene, so that few pixels are computed twice or outside of
    it. It depends on the scene's shape alone.

    Args:
        shape_yx: Rows and columns of the scene.
        tile_px: Maximum size of a tile; with `exact`, the only size.
        overlap_px: Number of pixels that neighbouring tiles share.
        trim_px: Number of pixels without weight at inner edges.
        multiple_px: Tile sizes are multiples of this number.
        exact: True if the network takes no other size than `tile_px`.
    """
    rows, cols = (
        _axis(length, tile_px, overlap_px, trim_px, multiple_px, exact) for length in shape_yx
    )
    return TilePlan(rows, cols)


def _axis(
    length: int, tile_px: int, overlap_px: int, trim_px: int, multiple_px: int, exact: bool
) -> TileAxis:
    largest = tile_px if exact else max(tile_px // multiple_px, 1) * multiple_px
    overlap = min(overlap_px, largest // 2)
    trim = min(trim_px, overlap // 2)
    fewest = max(1, -(-(length - overlap) // (largest - overlap)))
    if exact:
        return TileAxis(length, largest, overlap, trim, fewest)
    if fewest == 1:
        size = min(_round_up(length, multiple_px), largest)
        overlap = min(overlap, size // 2)
        return TileAxis(length, size, overlap, min(trim, overlap // 2), 1)
    # More and smaller tiles may fit better; up to twice the number is tried.
    sizes = (
        (max(_round_up(-(-(length - overlap) // n) + overlap, multiple_px),
             _round_up(2 * overlap, multiple_px)), n)
        for n in range(fewest, 2 * fewest + 1)
    )  # fmt: skip
    size, count = min(sizes, key=lambda candidate: (candidate[0] * candidate[1], candidate[1]))
    return TileAxis(length, size, overlap, trim, count)


def plan_blocks(shape_yx: tuple[int, int], *, block_px: int = 2048) -> list[Window]:
    """Return windows that partition a scene row by row, of about `block_px` squared pixels each.

    They are as wide as the scene if it is not very wide: then few tiles lie across an edge.
    """
    height, width = shape_yx
    across = min(width, _round_up(8 * block_px, _ALIGN_PX))
    down = max(block_px * block_px // across // _ALIGN_PX, 1) * _ALIGN_PX
    return [
        Window(row, col, min(down, height - row), min(across, width - col))
        for row in range(0, height, down)
        for col in range(0, width, across)
    ]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
