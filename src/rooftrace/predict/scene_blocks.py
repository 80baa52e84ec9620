"""Scenes in the pipeline: the tiles that are read of each, and the blocks that come of them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import OutOfMemoryError, PredictError, RooftraceError, ServiceError
from rooftrace.core.failures import is_out_of_memory, out_of_memory
from rooftrace.core.parallel import Workers
from rooftrace.core.text import reason_of
from rooftrace.core.types import BoolArray, Raster, Window
from rooftrace.io.georeferenced import innermost
from rooftrace.io.mosaic import Mosaic
from rooftrace.io.resample import Resampler
from rooftrace.predict.block import Block, BlockParts, BlockTiles, TileOutput, TileStats
from rooftrace.predict.checkpoint import Checkpoint, CheckpointStore
from rooftrace.predict.plan import ScenePlan, TileIndex
from rooftrace.predict.preview import ThumbnailSampler

__all__ = ["Answer", "BlockEnd", "OnTile", "SceneBlocks", "SceneReader", "Tile", "by_scene"]


Answer = NDArray[np.uint8]
"""(channel, y, x) output of the network for a tile, in 255ths."""


OnTile = Callable[[Any, ScenePlan, TileIndex], None]
"""Function called with the item, its plan and a tile that was run, in the network's thread."""


class SceneBlocks:
    """Blocks of one scene, produced by the pipeline or by a cluster; iterate over it once.

    Args:
        plan: Plan of the scene.
        checkpoints: Store of finished blocks.
        item: The caller's item that the scene belongs to.
        on_tile: See `OnTile`.
    """

    def __init__(
        self,
        plan: ScenePlan,
        checkpoints: CheckpointStore | None = None,
        item: Any = None,
        on_tile: OnTile | None = None,
    ) -> None:
        self.plan = plan
        self.item = item
        self.on_tile = on_tile
        self.checkpoints = checkpoints if plan.block_count > 1 else None
        self.folder = None if checkpoints is None else checkpoints.folder
        """Folder for other work on the scene that a later run can use; None to keep none."""

        self.started = time.perf_counter()
        self.error: RooftraceError | None = None
        """Error that stopped the scene; iteration raises it."""

        self.workers: Workers | None = None
        """Workers for other work on the blocks of the scene, such as those of the cluster that
        runs it."""

        self.is_abandoned = False
        """True if the caller does not need more blocks."""

        self.blocks: Iterator[Block | BlockParts] = iter(())
        """Blocks as they are produced; see `by_scene`."""

    def __iter__(self) -> Iterator[Block | BlockParts]:
        for block in self.blocks:
            if self.error is not None:
                break
            yield block
        if self.error is not None:
            raise self.error

    def fail(self, error: RooftraceError) -> None:
        """Stop the scene. Only the first error is kept."""
        self.error = self.error or error

    @property
    def is_stopped(self) -> bool:
        """True if no more blocks are needed."""
        return self.is_abandoned or self.error is not None


def by_scene(
    blocks: Generator[tuple[SceneBlocks, Block | BlockParts | None], None, None],
) -> Iterator[SceneBlocks]:
    """Group the blocks of successive scenes by scene.

    Args:
        blocks: Scenes with their blocks; None marks the end of a scene.
    """
    try:
        for scene, block in blocks:
            scene.blocks = _until_none(chain([(scene, block)], blocks))
            yield scene
            # Skips the blocks that the caller has not consumed.
            scene.is_abandoned = True
            for _ in scene.blocks:
                pass
    finally:
        # Scenes refer to this generator, so that its threads would not end by themselves.
        blocks.close()


def _until_none(
    blocks: Iterator[tuple[SceneBlocks, Block | BlockParts | None]],
) -> Iterator[Block | BlockParts]:
    for _, block in blocks:
        if block is None:
            return
        yield block


@dataclass(frozen=True)
class Tile:
    """Tile that was read.

    Args:
        reader: Reader of its scene.
        index: Index of the tile.
        pixels: (band, y, x) pixel values, mirrored beyond the edges of the scene; None if there is
            nothing to run.
        error: Reason why it could not be read, if failed tiles become nodata.
        lost: Messages about images of a mosaic that could not be read, and became nodata in it.
    """

    reader: SceneReader
    index: TileIndex
    pixels: NDArray[Any] | None
    error: str | None = None
    lost: tuple[str, ...] = ()


@dataclass
class BlockEnd:
    """End of a block's tiles, or of a scene.

    Args:
        reader: Reader of the scene.
        number: Number of the block; None at the end of the scene.
        checkpoint: Finished block of an earlier run; None if there is none.
        error: Error that ended the reading. Blocks that were read before it are finished.
        answers: Outputs of the block's tiles in 255ths; None for failed tiles. Tiles without a
            valid pixel are left out.
        tiles: Counts over the block's tiles.
    """

    reader: SceneReader
    number: int | None = None
    checkpoint: Checkpoint | None = None
    error: RooftraceError | None = None
    answers: dict[TileIndex, Answer | None] = field(default_factory=dict)
    tiles: TileStats = field(default_factory=TileStats)


class SceneReader:
    """Reader of the tiles of one scene, which also divides their outputs among the blocks.

    Args:
        scene: Scene to read.
        only: Numbers of the blocks to read; default: all.
    """

    def __init__(self, scene: SceneBlocks, only: Iterable[int] | None = None) -> None:
        plan = scene.plan
        self.scene = scene
        self.plan = plan
        self._only = range(plan.block_count) if only is None else only
        self._resampler = Resampler(plan.source, plan.scaling)
        image = innermost(plan.source)
        self._mosaic = image if isinstance(image, Mosaic) else None
        self._reading = 0
        """Number of the block whose tiles are being read."""

        self._is_counted = False
        """True if the results have a value in the tile that is being read."""

        self._partly_valid: dict[int, BoolArray] = {}
        """Validity of the source by block; blocks without invalid pixels are left out."""

        self._thumbnail = (
            ThumbnailSampler(plan.source.grid, plan.source.bands, plan.source.dtype)
            if "preview" in plan.options.outputs
            else None
        )
        self._halo: defaultdict[int, list[TileOutput]] = defaultdict(list)

    # Methods that run in the thread that reads.

    def events(self) -> Iterator[Tile | BlockEnd]:
        """Yield the tiles of each block and its end, and finally the end of the scene."""
        kept = self.scene.checkpoints
        try:
            for number in self._only:
                checkpoint = None if kept is None else kept.load(number)
                if checkpoint is None:
                    self._reading = number
                    for index in self.plan.own_tiles(number):
                        if self.scene.is_stopped:
                            break
                        yield self._read(index)
                if self.scene.is_stopped:
                    break
                yield BlockEnd(self, number, checkpoint)
        except RooftraceError as error:
            yield BlockEnd(self, error=error)
        else:
            yield BlockEnd(self)

    def _read(self, index: TileIndex) -> Tile:
        wanted = self.plan.tiles.tile(index).read
        inside = wanted.intersection(Window.whole(self._resampler.shape_yx))
        assert inside is not None
        if self._resampler.is_empty(inside):
            self._note_valid(self._resampler.reach(inside), None)
            return Tile(self, index, None)
        self._is_counted = False
        try:
            data, seen = self._resampler.read(inside, self._watch)
        except RooftraceError as error:
            # A service that refuses one tile refuses all: a whole town would become nodata.
            if not self.plan.options.forgiving or isinstance(error, ServiceError):
                raise
            return Tile(self, index, None, error.message)
        lost = self._mosaic.take_lost() if self._mosaic is not None else ()
        if not (self._is_counted and seen.any()):
            return Tile(self, index, None, lost=lost)
        beyond = (0, wanted.height - inside.height), (0, wanted.width - inside.width)
        if beyond != ((0, 0), (0, 0)):
            data = np.pad(data, ((0, 0), *beyond), mode="reflect")
        return Tile(self, index, data, lost=lost)

    def _watch(self, window: Window, raster: Raster) -> None:
        self._is_counted = self._is_counted or bool(raster.valid.any())
        self._note_valid(window, raster.valid)
        if self._thumbnail is None:
            return
        # Pixels outside of the block are left to other blocks, so that the result of a block does
        # not depend on which blocks are read.
        part = self.plan.blocks[self._reading].intersection(window)
        if part is not None:
            rows, cols = part.slices(window)
            grid = raster.grid.crop(Window(rows.start, cols.start, *part.shape_yx))
            self._thumbnail.watch(
                part, Raster(raster.data[:, rows, cols], raster.valid[rows, cols], grid)
            )

    def _note_valid(self, window: Window, valid: BoolArray | None) -> None:
        """Record the validity of a window of the source; None means that no pixel is valid."""
        if valid is not None and valid.all():
            return
        block = self.plan.blocks[self._reading]
        part = block.intersection(window)
        if part is None:
            return
        known = self._partly_valid.get(self._reading)
        if known is None:
            known = self._partly_valid[self._reading] = np.ones(block.shape_yx, dtype=bool)
        known[part.slices(block)] = False if valid is None else valid[part.slices(window)]

    # Methods that run in the thread of the network.

    def failure(self, index: TileIndex, error: Exception) -> PredictError | OutOfMemoryError:
        """Return the error for a tile on which the network failed."""
        window = self.plan.scaling.to_source(self.plan.tiles.tile(index).read, self.plan.shape_yx)
        if is_out_of_memory(error):
            return out_of_memory(
                f"the network on the tile at {window} of {self.plan.source.name} "
                f"(model {self.plan.spec.name})"
            )
        reason = error.message if isinstance(error, RooftraceError) else reason_of(error, most=300)
        return PredictError(
            f"{self.plan.source.name}: the network failed on the tile at {window} "
            f"(model {self.plan.spec.name}): {reason}",
            remedy=getattr(error, "remedy", "") or "Try another engine or precision.",
        )

    # Methods that run in the caller's thread, or in one beside it.

    def finish(self, end: BlockEnd) -> Checkpoint:
        """Return the finished block of a block end, with its contributions to later blocks."""
        assert end.number is not None
        received = self._halo.pop(end.number, [])
        if end.checkpoint is not None:
            finished = replace(end.checkpoint, block=replace(end.checkpoint.block, resumed=True))
        else:
            tiles = self.divide(end)
            finished = Checkpoint(tiles.finish(self.plan, received), tiles.halo)
        for number, output in finished.halo:
            self._halo[number].append(output)
        return finished

    def divide(self, end: BlockEnd) -> BlockTiles:
        """Divide the outputs of a block's tiles among the blocks to which they contribute."""
        assert end.number is not None
        own, halo = [], []
        for index, answer in end.answers.items():
            tile = self.plan.tiles.tile(index)
            for number in self.plan.blocks_needing(index):
                extent = tile.write.intersection(self.plan.model_window(number))
                if extent is None:
                    continue
                part = None if answer is None else answer[:, *extent.slices(tile.read)]
                if number == end.number:
                    own.append(TileOutput(index, extent, part))
                    continue
                # Copied, because a view would keep the whole output in memory.
                part = None if part is None else part.copy()
                halo.append((number, TileOutput(index, extent, part)))
        window = self.plan.blocks[end.number]
        thumbnail = None if self._thumbnail is None else self._thumbnail.crop(window)
        valid = self._partly_valid.pop(end.number, None)
        return BlockTiles(end.number, tuple(own), tuple(halo), valid, thumbnail, end.tiles)
