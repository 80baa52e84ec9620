"""The grid of tiles of a scene, and the blocks into which its work is divided.

Each axis has a grid of its own. Tile i of an axis reads [i * stride, i * stride + tile), which may
leave the scene at its far end. Where two tiles overlap, one fades out while the other fades in:

    |---- tile 0 ----------|
                    |---- tile 1 ----------|
     16 16 16 16 16 |trim, ramp, trim| 16 …           weights, in 16ths

`trim` pixels at a tile's inner edges have no weight, since the edge distorts the output there.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import PredictError
from rooftrace.core.types import Tile, Window

TILE_PX = 1664
"""Side of the largest tile in pixels. Larger tiles save little overlap and need more memory. The
stride equals three tiles of the output file, so that blocks begin at the edges of those tiles."""

OVERLAP_PX = 128
"""Tile overlap in pixels for large tiles; small tiles use a quarter of their side.

Share of a town's building pixels that change when its tiles move (int8; bf16): 1.3; 1.0 %. Tiles of
2272 px that overlap by 224 px: 0.7 % in int8, for 5 % more pixels and 170 MB (bf16: 440 MB)."""

TRIM_SHARE = 3 / 8
"""Largest share of the overlap that is trimmed at either end. The trimmed width is at most the
distance within which the edge of a tile affects the network's output."""

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

    @property
    def stride_px(self) -> int:
        return self.tile_px - self.overlap_px

    def weights(self, index: int) -> NDArray[np.uint16]:
        """Return the weight (tile,) of each pixel of a tile, 0..WEIGHT_ONE."""
        weights = np.full(self.tile_px, WEIGHT_ONE, dtype=np.uint16)
        # From 0 to WEIGHT_ONE; the tile before has the rest. Without a ramp, the seam lies in the
        # middle.
        ramp_px = self.overlap_px - 2 * self.trim_px
        ramp = (np.arange(ramp_px) * 2 + 1) * WEIGHT_ONE // (2 * max(ramp_px, 1))
        fade_in = np.pad(ramp, self.trim_px, constant_values=(0, WEIGHT_ONE)).astype(np.uint16)
        if self.overlap_px and index > 0:
            weights[: self.overlap_px] = fade_in
        if self.overlap_px and index < self.count - 1:
            weights[-self.overlap_px :] = WEIGHT_ONE - fade_in
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
        read = Window(*start_yx, self.rows.tile_px, self.cols.tile_px)
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
    largest = tile_px if exact else max(tile_px // multiple_px, 1) * multiple_px
    axes = []
    for length in shape_yx:
        size, overlap = largest, min(overlap_px, largest // 2)
        count = max(1, -(-(length - overlap) // (largest - overlap)))
        if not exact and count == 1:
            size = min(_round_up(length, multiple_px), largest)
            overlap = min(overlap, size // 2)
        elif not exact:
            # More and smaller tiles may fit better; up to twice the number is tried.
            least = _round_up(2 * overlap, multiple_px)
            sizes = (
                (n, max(_round_up(-(-(length - overlap) // n) + overlap, multiple_px), least))
                for n in range(count, 2 * count + 1)
            )
            count, size = min(sizes, key=lambda candidate: (prod(candidate), candidate[0]))
        axes.append(TileAxis(length, size, overlap, min(trim_px, overlap // 2), count))
    return TilePlan(*axes)


def plan_blocks(shape_yx: tuple[int, int], *, block_px: int = 2048) -> list[Window]:
    """Return windows that partition a scene row by row, of about `block_px` squared pixels each.

    They are as wide as the scene if it is not very wide: then few tiles lie across an edge.
    """
    across = min(shape_yx[1], _round_up(8 * block_px, _ALIGN_PX))
    down = max(block_px * block_px // across // _ALIGN_PX, 1) * _ALIGN_PX
    return list(Window.whole(shape_yx).blocks(down, across))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


PROB_ONE = 255
"""Value of a tile's probability of 1, in uint8."""

BLEND_ONE = PROB_ONE * WEIGHT_ONE * WEIGHT_ONE
"""Value of a blended probability of 1, in uint16."""


_SLACK = 0.5 / PROB_ONE
"""Distance outside of 0..1 that rounding to 255ths removes; arithmetic in bf16 causes it."""


def check_probabilities(probability: NDArray[np.floating[Any]], model: str = "the model") -> None:
    """Raise PredictError if an output of a model holds anything but probabilities.

    NaN compares as False and would silently become background.
    """
    # NumPy's minimum and maximum of an array with NaN are NaN.
    check_range(probability.min(), probability.max(), model)


def check_range(low: float, high: float, model: str = "the model") -> None:
    """Raise PredictError if the range of a model's outputs is not within 0..1, or is NaN.

    Args:
        low, high: Smallest and largest output; NaN if any output is NaN.
        model: See `check_probabilities`.
    """
    if low >= -_SLACK and high <= 1 + _SLACK:
        return
    found = "NaN (not a number)" if np.isnan(low + high) else f"values from {low:g} to {high:g}"
    raise PredictError(
        f"{model} gave {found}; expected probabilities from 0 to 1.",
        remedy="Predict with --precision fp32 in case the numbers overflow in a shorter format. "
        "If it gives the same, the model is damaged: get it again, or export it again.",
    )


def quantise(probability: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Round probabilities in 0..1 to 255ths."""
    check_probabilities(probability)
    scaled = probability * np.float32(PROB_ONE)
    scaled += np.float32(0.5)
    return scaled.astype(np.uint8)


class Blender:
    """Accumulator of the blended probabilities of one window of the scene.

    Args:
        plan: Tiles of the scene.
        window: Window of the scene.
        channels: Number of channels per pixel.
    """

    def __init__(self, plan: TilePlan, window: Window, channels: int) -> None:
        self._plan = plan
        self._window = window
        self.blended: NDArray[np.uint16] = np.zeros((channels, *window.shape_yx), dtype=np.uint16)
        """(channel, y, x) sums of the tiles that were fed; BLEND_ONE is a probability of 1."""

    def feed(
        self, index: tuple[int, int], probability: NDArray[np.uint8], extent: Window | None = None
    ) -> None:
        """Add one tile. Feed each tile that has weight in the window once, in any order.

        Args:
            index: Row and column of the tile.
            probability: (channel, y, x) uint8 of the tile, in 255ths.
            extent: Window of the scene that `probability` covers; default all that the tile reads.
                It must cover the pixels that have weight in the window.
        """
        tile = self._plan.tile(index)
        part = tile.write.intersection(self._window)
        if part is None:
            return
        if len(self._plan) == 1:
            one = np.uint16(WEIGHT_ONE * WEIGHT_ONE)
            rows, cols = part.slices(extent or tile.read)
            into = self.blended[:, *part.slices(self._window)]
            np.multiply(probability[:, rows, cols], one, out=into)
            return
        rows, cols = part.slices(tile.read)
        weight_y = self._plan.rows.weights(index[0])[rows, None]
        weight_x = self._plan.cols.weights(index[1])[None, cols]
        into_rows, into_cols = part.slices(self._window)
        rows, cols = part.slices(extent or tile.read)
        # Only this tile has weight away from the columns in which it overlaps with others.
        alone = np.flatnonzero(weight_x[0] == WEIGHT_ONE)
        inner = slice(int(alone[0]), int(alone[-1]) + 1) if len(alone) else slice(0, 0)
        for total, values in zip(self.blended, probability):
            target = total[into_rows, into_cols]
            # Strips stay in the processor's cache.
            step = max(1, (1 << 17) // part.width)
            for top in range(0, part.height, step):
                strip = slice(top, top + step)
                given, into, down = values[rows, cols][strip], target[strip], weight_y[strip]
                if (down == WEIGHT_ONE).all():
                    np.multiply(
                        given[:, inner], np.uint16(WEIGHT_ONE * WEIGHT_ONE), out=into[:, inner]
                    )
                    sides = [slice(inner.start), slice(inner.stop, None)]
                else:
                    sides = [slice(None)]
                for side in sides:
                    weighted = given[:, side] * weight_x[:, side]
                    weighted *= down
                    into[:, side] += weighted
