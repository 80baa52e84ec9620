"""What has to be settled before a scene is predicted: its bands, its scale, its tiles, its blocks.

A block is what is finished, kept and resumed at a time: the part of the scene that belongs to some
whole tiles. Each tile is read and run for one block only. Where it reaches into the blocks to the
right and below, those are handed the few rows and columns in which it still has weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from rooftrace.core.errors import BandMismatch, DataError
from rooftrace.core.types import RasterSource, Window
from rooftrace.io.masks import NODATA
from rooftrace.io.resample import Scaling, scaling_for
from rooftrace.models.spec import BundleSpec
from rooftrace.tiling.plan import Axis, TilePlan, plan

__all__ = ["BlockAxis", "ScenePlan", "TileIndex", "plan_scene"]

TileIndex = tuple[int, int]

TILE_PX = 1664
"""The largest tile: larger ones save little overlap and cost memory. From one to the next it is
three tiles of the output file, so that blocks begin where these do."""

OVERLAP_PX = 128
"""Of large tiles; of smaller ones a quarter. By measurement (bench/seams.py): with tiles that lie
elsewhere 0.3 % of the building pixels of a town change, of 64 px 0.7 % and of 192 px 0.13 %."""

_TRIM_SHARE = 3 / 8
"""Of the overlap, at either end, at most, and no more than the network's answers are bent there."""

BLOCK_PX = 3072

_FEW_CHANNELS = 4
"""With more, tiles and blocks have half the sides: what is held grows with both, and with them."""

_ALIGN_PX = 512
"""Where blocks may begin here or there, they begin where a tile of the output file does."""


@dataclass(frozen=True)
class BlockAxis:
    """The blocks along one axis.

    Args:
        tiles: of the axis, in the model's pixels.
        per_block: how many of them belong to a block; the last block may have fewer.
        edges: (blocks + 1,) where blocks begin, and the last one ends, in the source's pixels.
        spans: (blocks,) the half-open range of the model's pixels that each is made from.
    """

    tiles: Axis
    per_block: int
    edges: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.spans)

    def own(self, block: int) -> range:
        """The tiles that are run for a block."""
        first = block * self.per_block
        return range(first, min(first + self.per_block, self.tiles.count))

    @cached_property
    def _needing(self) -> tuple[range, ...]:
        needed = [self.tiles.touching(*span) for span in self.spans]
        owner = [tile // self.per_block for tile in range(self.tiles.count)]
        last = list(owner)
        for block, tiles in enumerate(needed):
            for tile in tiles:
                last[tile] = block
        return tuple(range(first, stop + 1) for first, stop in zip(owner, last))

    def givers(self, block: int) -> range:
        """The blocks whose tiles have weight in a block: those before that hand on to it, and it
        itself.
        """
        tiles = self.tiles.touching(*self.spans[block])
        return range(tiles[0] // self.per_block, block + 1)

    def needing(self, tile: int) -> range:
        """The blocks in which a tile has weight: the one that it belongs to, and those after."""
        return self._needing[tile]


@dataclass(frozen=True)
class ScenePlan:
    """How one scene is predicted. Blocks are numbered row by row.

    Args:
        shape_yx: of the source.
        scaling: between the source and the model.
        tiles: over the scene at the model's resolution.
        rows, cols: the blocks of the source along either axis.
    """

    shape_yx: tuple[int, int]
    scaling: Scaling
    tiles: TilePlan
    rows: BlockAxis
    cols: BlockAxis

    @property
    def block_count(self) -> int:
        return len(self.rows) * len(self.cols)

    @cached_property
    def blocks(self) -> tuple[Window, ...]:
        """Of the source, in the order in which they are finished."""
        tops, lefts = self.rows.edges, self.cols.edges
        return tuple(
            Window(top, left, bottom - top, right - left)
            for top, bottom in pairwise(tops)
            for left, right in pairwise(lefts)
        )

    def model_window(self, number: int) -> Window:
        """The model pixels that a block is made from."""
        row, col = divmod(number, len(self.cols))
        (top, bottom), (left, right) = self.rows.spans[row], self.cols.spans[col]
        return Window(top, left, bottom - top, right - left)

    def own_tiles(self, number: int) -> list[TileIndex]:
        """The tiles that are run for a block, row by row."""
        row, col = divmod(number, len(self.cols))
        return [(i, j) for i in self.rows.own(row) for j in self.cols.own(col)]

    def givers(self, number: int) -> frozenset[int]:
        """The blocks before this one that hand something on to it."""
        across = len(self.cols)
        row, col = divmod(number, across)
        found = {i * across + j for i in self.rows.givers(row) for j in self.cols.givers(col)}
        return frozenset(found - {number})

    def blocks_needing(self, index: TileIndex) -> list[int]:
        """The blocks that a tile has weight in; the first one is its own."""
        across = len(self.cols)
        return [
            row * across + col
            for row in self.rows.needing(index[0])
            for col in self.cols.needing(index[1])
        ]


def plan_scene(
    source: RasterSource,
    spec: BundleSpec,
    *,
    gsd_m: float | None = None,
    scale: float | None = None,
    tile_px: int | None = None,
    block_px: int | None = None,
) -> ScenePlan:
    """Check an image against a model's contract and lay its tiles.

    Args:
        source: the image.
        spec: the contract.
        gsd_m: of the image, where the person knows better than its georeference.
        scale: the image is taken so many times as large, whatever metres say.
        tile_px: the largest tile, for a model that takes any size; default TILE_PX, or half of it
            where there are many classes.
        block_px: about the sides of what is finished at a time, in the model's pixels, though at
            least a tile; default BLOCK_PX, likewise.

    Raises:
        BandMismatch: another number of bands than the model's.
        DataError: pixel values of a type that the model was not trained on.
        GsdMismatch: too far from the model's metres per pixel.
    """
    _check_values(source, spec)
    part = 1 if spec.channels <= _FEW_CHANNELS else 2
    tile_px = tile_px or TILE_PX // part
    block_px = block_px or BLOCK_PX // part
    shape_yx = source.grid.shape
    scaling = scaling_for(source.grid, spec.gsd_m, gsd_m=gsd_m, scale=scale, name=source.name)
    tile_px = spec.input_px or max(tile_px, spec.input_multiple_px)
    overlap_px = min(OVERLAP_PX, tile_px // 4)
    tiles = plan(
        scaling.model_shape(shape_yx),
        tile_px=tile_px,
        overlap_px=overlap_px,
        trim_px=min(spec.context_px, int(overlap_px * _TRIM_SHARE)),
        multiple_px=spec.input_multiple_px,
        exact=spec.input_px is not None,
    )
    rows, cols = (
        _cut(axis, scaling, which, shape_yx, block_px)
        for which, axis in enumerate((tiles.rows, tiles.cols))
    )
    return ScenePlan(shape_yx, scaling, tiles, rows, cols)


def _cut(
    axis: Axis, scaling: Scaling, which: int, shape_yx: tuple[int, int], block_px: int
) -> BlockAxis:
    """Blocks of whole tiles along the rows (0) or the columns (1)."""

    def span(start: int, stop: int) -> tuple[int, int]:
        wanted = Window(start, start, stop - start, stop - start)
        needed = scaling.to_model(wanted, (shape_yx[which], shape_yx[which]))
        along_rows, along_cols = (needed.row, needed.row_stop), (needed.col, needed.col_stop)
        return along_cols if which else along_rows

    per_block = max(1, block_px // axis.stride_px)
    scale = scaling.scale_yx[which]
    # So far before its first pixel the filter reads for a tile.
    reach = 0 if scaling.is_identity else int(scale) + 1
    edges = [0]
    for tile in range(per_block, axis.count, per_block):
        # Before this edge the tile has no weight; behind it all is seen by tiles of the new block.
        latest = int(axis.support(tile)[0] * scale)
        while span(edges[-1], latest)[1] > axis.support(tile)[0]:
            latest -= 1
        earliest = int(axis.start(tile) * scale) - reach
        assert latest >= earliest
        aligned = latest // _ALIGN_PX * _ALIGN_PX
        edges.append(aligned if aligned >= max(earliest, edges[-1] + 1) else latest)
    edges.append(shape_yx[which])
    spans = tuple(span(start, stop) for start, stop in pairwise(edges))
    return BlockAxis(axis, per_block, tuple(edges), spans)


def _check_values(source: RasterSource, spec: BundleSpec) -> None:
    if source.bands != len(spec.bands):
        raise BandMismatch(
            f"{source.name} has {source.bands} bands; the model {spec.name!r} expects "
            f"{len(spec.bands)}: {', '.join(spec.bands)}.",
            remedy="Pick those bands with gdal_translate -b, or use a model trained on yours.",
        )
    if source.dtype != spec.numpy_dtype and spec.dtype != "float32":
        raise DataError(
            f"{source.name} holds {source.dtype} values; the model {spec.name!r} expects "
            f"{spec.dtype}.",
            remedy=f"Convert it with gdal_translate -ot {_GDAL_TYPES[spec.dtype]} -scale.",
        )
    if len(spec.classes) > NODATA:
        raise DataError(
            f"The model {spec.name!r} has {len(spec.classes)} classes; a mask of bytes holds "
            f"{NODATA} and one value for nodata.",
            remedy="Train with fewer classes.",
        )


_GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16"}
