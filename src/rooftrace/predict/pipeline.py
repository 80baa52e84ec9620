"""Pipeline that turns scenes into finished blocks.

Several threads work at the same time: one reads tiles in advance, one or two run the network, and
the caller's thread, or one beside it, finishes blocks. Tiles of the same shape form batches, across
blocks and scenes.
The pipeline keeps in memory a few tiles, the outputs of a block, and the few rows and columns of
output that later blocks need; it never keeps the whole scene. A scene of one tile runs without
threads.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from math import ceil, prod
from threading import Semaphore
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import (
    OutOfMemoryError,
    PredictError,
    RooftraceError,
    ServiceError,
    drop_tracebacks,
    is_out_of_memory,
    out_of_memory,
)
from rooftrace.core.parallel import Workers, prefetched
from rooftrace.core.text import reason_of
from rooftrace.core.types import BoolArray, Raster, Window, is_known_empty
from rooftrace.engines.base import Engine
from rooftrace.io.gdal import environment
from rooftrace.io.georeferenced import innermost
from rooftrace.io.mosaic import Mosaic
from rooftrace.io.resample import Resampler
from rooftrace.predict.block import Block, BlockParts, BlockTiles, TileOutput, TileStats
from rooftrace.predict.checkpoint import Checkpoint, CheckpointStore
from rooftrace.predict.plan import ScenePlan, TileIndex
from rooftrace.predict.preview import ThumbnailSampler

T = TypeVar("T")

BATCH_PX = 2**19
"""Number of pixels in a batch: several small tiles, or one large tile."""

_PARALLEL = 2
"""Number of batches that an engine runs at the same time, if it can. Of small tiles one more waits
in it, and begins while a thread takes the output of another."""

_MAX_WAITING = 8
"""Maximum number of batches whose blocks wait to be finished."""

_FINISHING_PX = 16 * 2**20
"""Number of pixels in unfinished blocks above which the network pauses, and above which blocks do
not wait for more tiles."""

Probability = NDArray[np.uint8]
"""(channel, y, x) output of the network for a tile, in 255ths."""

OnTile = Callable[[Any, ScenePlan, TileIndex], None]
"""Function called with the item, its plan and a tile that was run, in the network's thread."""


def run(plan: ScenePlan, engine: Engine) -> Iterator[Block]:
    """Predict one scene, and yield its finished blocks in the order of the plan.

    Raises:
        PredictError: The network failed; the message names the window of the tile.
    """
    for scene in run_scenes([SceneBlocks(plan)], engine):
        yield from cast(Iterator[Block], scene.blocks)


def run_many(
    items: Iterable[T], plan_of: Callable[[T], ScenePlan | None], engine: Engine
) -> Iterator[tuple[T, ScenePlan, Iterator[Block]]]:
    """Predict scenes that share one model, and yield each item with its plan and blocks, in order.

    An error in one scene is raised when its blocks are iterated. It does not stop the others.

    Args:
        items: The caller's items; the next one is requested in the thread that reads.
        plan_of: Function that returns the plan of an item; None to skip it. It is called in the
            thread that reads, and its errors stop the run.
        engine: Engine of the network.
    """
    plans = ((item, plan_of(item)) for item in items)
    scenes = (SceneBlocks(plan, item=item) for item, plan in plans if plan is not None)
    for scene in run_scenes(scenes, engine):
        yield scene.item, scene.plan, cast(Iterator[Block], scene.blocks)


def run_scenes(scenes: Iterable[SceneBlocks], engine: Engine) -> Iterator[SceneBlocks]:
    """Do the same as `run_many` for scenes that the caller has planned, with their checkpoints."""
    readers = (_SceneReader(scene) for scene in scenes)
    return by_scene(_finished(_read_and_run(readers, engine)))


def run_block(plan: ScenePlan, number: int, engine: Engine) -> BlockTiles:
    """Read and run the tiles of one block, without the halo outputs of other blocks."""
    scene = SceneBlocks(plan)
    tiles: BlockTiles | None = None
    for end in _read_and_run(iter([_SceneReader(scene, [number])]), engine):
        scene.error = scene.error or end.error
        if end.number is not None and scene.error is None:
            tiles = end.reader.divide(end)
    if scene.error is not None:
        raise scene.error
    assert tiles is not None
    return tiles


class SceneBlocks:
    """Blocks of one scene, produced by the pipeline or by a cluster.

    Args:
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
        self.checkpoints = checkpoints if len(plan.blocks) > 1 else None
        self.folder = None if checkpoints is None else checkpoints.folder
        """Folder for other work on the scene that a later run can use; None to keep none."""

        self.started = time.perf_counter()
        self.error: RooftraceError | None = None
        """Error that stopped the scene; `blocks` raises it."""

        self.workers: Workers | None = None
        """Workers for other work on the blocks of the scene, such as those of the cluster that
        runs it."""

        self.is_stopped = False
        """True if no more blocks are needed."""

        self.blocks: Iterator[Block | BlockParts] = iter(())
        """Blocks as they are produced, to be iterated once; see `by_scene`."""

    def fail(self, error: RooftraceError) -> None:
        """Stop the scene. Only the first error is kept."""
        self.error, self.is_stopped = self.error or error, True


def by_scene(
    blocks: Generator[tuple[SceneBlocks, Block | BlockParts | None], None, None],
) -> Iterator[SceneBlocks]:
    """Group the blocks of successive scenes by scene.

    Args:
        blocks: Scenes with their blocks; None marks the end of a scene.
    """

    def until_end(scene: SceneBlocks, block: Block | BlockParts | None) -> Iterator[Any]:
        while block is not None:
            if scene.error is None:
                yield block
            # Not kept until the next block is finished.
            block = None
            _, block = next(blocks, (scene, None))
        if scene.error is not None:
            raise scene.error

    try:
        for scene, first in blocks:
            scene.blocks = until_end(scene, first)
            # Not kept until the scene ends.
            del first
            yield scene
            # Skips the blocks that the caller has not consumed.
            scene.is_stopped = True
            with suppress(RooftraceError):
                for _ in scene.blocks:
                    pass
    finally:
        # Scenes refer to this generator, so that its threads would not end by themselves.
        blocks.close()


@dataclass(frozen=True)
class _Tile:
    """Tile that was read.

    Args:
        reader: Reader of its scene.
        pixels: (band, y, x) pixel values in the type of the model, mirrored beyond the edges of the
            scene; empty if there is nothing to run.
        error: Reason why it could not be read, if failed tiles become nodata.
        lost: Messages about images of a mosaic that could not be read, and became nodata in it.
    """

    reader: _SceneReader
    index: TileIndex
    pixels: NDArray[Any] = field(default_factory=lambda: np.empty(0))
    error: str | None = None
    lost: tuple[str, ...] = ()


@dataclass
class _BlockEnd:
    """End of a block's tiles, or of a scene.

    Args:
        reader: Reader of the scene.
        number: Number of the block; None at the end of the scene.
        checkpoint: Finished block of an earlier run; None if there is none.
        error: Error that ended the reading. Blocks that were read before it are finished.
        probabilities: Those of the block's tiles; None for failed tiles. Tiles without a valid
            pixel are left out.
        tiles: Counts over the block's tiles.
        area_px: Number of pixels of the block; 0 at the end of the scene.
    """

    reader: _SceneReader
    number: int | None = None
    checkpoint: Checkpoint | None = None
    error: RooftraceError | None = None
    probabilities: dict[TileIndex, Probability | None] = field(default_factory=dict)
    tiles: TileStats = field(default_factory=TileStats)
    area_px: int = 0


class _SceneReader:
    """Reader of the tiles of a scene, or of those of `only` some blocks.

    It also divides their outputs among the blocks.
    """

    def __init__(self, scene: SceneBlocks, only: Iterable[int] | None = None) -> None:
        plan = scene.plan
        self.scene = scene
        self.plan = plan
        self._only = range(len(plan.blocks)) if only is None else only
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

    def events(self) -> Iterator[_Tile | _BlockEnd]:
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
                yield _BlockEnd(self, number, checkpoint, area_px=self.plan.blocks[number].area_px)
        except RooftraceError as error:
            yield _BlockEnd(self, error=error)
        else:
            yield _BlockEnd(self)

    def _read(self, index: TileIndex) -> _Tile:
        wanted = self.plan.tiles.tile(index).read
        inside = wanted.intersection(Window.whole(self._resampler.shape_yx))
        assert inside is not None
        reach = self._resampler.reach(inside)
        if is_known_empty(self.plan.source, reach):
            self._watch(reach, None)
            return _Tile(self, index)
        self._is_counted = False
        try:
            data, seen = self._resampler.read(inside, self._watch)
        except RooftraceError as error:
            # A service that refuses one tile refuses all: a whole town would become nodata.
            if not self.plan.options.forgiving or isinstance(error, ServiceError):
                raise
            return _Tile(self, index, error=error.message)
        lost = self._mosaic.take_lost() if self._mosaic is not None else ()
        if not (self._is_counted and seen.any()):
            return _Tile(self, index, lost=lost)
        beyond = (0, wanted.height - inside.height), (0, wanted.width - inside.width)
        if beyond != ((0, 0), (0, 0)):
            data = np.pad(data, ((0, 0), *beyond), mode="reflect")
        return _Tile(self, index, np.asarray(data, self.plan.spec.numpy_dtype), lost=lost)

    def _watch(self, window: Window, raster: Raster | None) -> None:
        """Note the validity of a window of the source, and its samples for the preview.

        Pixels outside of the block are left to other blocks, so that the result of a block does not
        depend on which blocks are read. A raster of None has no valid pixel.
        """
        block = self.plan.blocks[self._reading]
        part = block.intersection(window)
        if raster is not None:
            self._is_counted = self._is_counted or bool(raster.valid.any())
        if part is None:
            return
        rows, cols = part.slices(window)
        if raster is None or not raster.valid.all():
            validity = self._partly_valid.get(self._reading)
            if validity is None:
                validity = self._partly_valid[self._reading] = np.ones(block.shape_yx, dtype=bool)
            validity[part.slices(block)] = False if raster is None else raster.valid[rows, cols]
        if raster is not None and self._thumbnail is not None:
            self._thumbnail.watch(part, raster.data[:, rows, cols], raster.valid[rows, cols])

    # Methods that run in the thread of the network.

    def failure(self, index: TileIndex, error: Exception) -> PredictError | OutOfMemoryError:
        """Return the error for a tile on which the network failed."""
        window = self.plan.scaling.to_source(
            self.plan.tiles.tile(index).read, self.plan.source.grid.shape
        )
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

    def finish(self, end: _BlockEnd) -> Checkpoint:
        """Return the finished block of a block end, with its contributions to later blocks."""
        assert end.number is not None
        received = self._halo.pop(end.number, [])
        if end.checkpoint is not None:
            finished = replace(end.checkpoint, block=replace(end.checkpoint.block, resumed=True))
        else:
            tiles = self.divide(end)
            # Callers still hold the end, but not the outputs of its tiles.
            end.probabilities = {}
            finished = Checkpoint(tiles.finish(self.plan, received), tiles.halo)
        for number, output in finished.halo:
            self._halo[number].append(output)
        return finished

    def divide(self, end: _BlockEnd) -> BlockTiles:
        """Divide the outputs of a block's tiles among the blocks to which they contribute."""
        assert end.number is not None
        own, halo = [], []
        for index, probability in end.probabilities.items():
            read = self.plan.tiles.tile(index).read
            for number, extent in self.plan.extents(index):
                part = None if probability is None else probability[:, *extent.slices(read)]
                if number == end.number:
                    own.append(TileOutput(index, extent, part))
                    continue
                # Copied, because a view would keep the whole output in memory.
                part = None if part is None else part.copy()
                halo.append((number, TileOutput(index, extent, part)))
        window = self.plan.blocks[end.number]
        thumbnail = None
        if self._thumbnail is not None:
            samples = self._thumbnail.part(window)
            thumbnail = self._thumbnail.pixels[samples], self._thumbnail.valid[samples]
        valid = self._partly_valid.pop(end.number, None)
        return BlockTiles(end.number, tuple(own), tuple(halo), valid, thumbnail, end.tiles)


@dataclass(frozen=True)
class _Batch:
    """Tiles of one shape and block ends in the order of reading, and the tiles that are run."""

    events: list[_Tile | _BlockEnd] = field(default_factory=list)
    tiles: list[_Tile] = field(default_factory=list)


def _read_and_run(readers: Iterator[_SceneReader], engine: Engine) -> Iterator[_BlockEnd]:
    """Yield the ends of all blocks and scenes, with the outputs of their tiles."""
    first = list(islice(readers, 2))
    if len(first) == 1 and len(first[0].plan.tiles) == 1:
        # Threads do not pay for a single tile: starting them takes as long as the network.
        for ends in _run(_answered(_batches(first), engine, threads=False)):
            yield from ends
        return
    shares = 16
    room = Semaphore(shares)

    def with_room(
        groups: Iterable[list[_BlockEnd]],
    ) -> Generator[tuple[list[_BlockEnd], int], None, None]:
        """Let the network pause while too many pixels are unfinished."""
        for ends in groups:
            taken = ceil(shares * sum(end.area_px for end in ends) / _FINISHING_PX)
            for _ in range(taken := min(taken, shares)):
                room.acquire()
            yield ends, taken

    # One batch is read while others wait for the network; a large tile is as large as a block.
    with (
        closing(prefetched(_read(chain(first, readers)), 0, "read")) as batches,
        closing(_run(_answered(batches, engine, threads=True))) as groups,
        closing(prefetched(with_room(groups), _MAX_WAITING, "network")) as ahead,
    ):
        try:
            for ends, taken in ahead:
                yield from ends
                if taken:
                    room.release(taken)
        finally:
            # The network may wait for room.
            room.release(shares)


def _read(readers: Iterable[_SceneReader]) -> Generator[_Batch, None, None]:
    """Yield batches inside of one environment of GDAL."""
    with environment():
        yield from _batches(readers)


def _batches(readers: Iterable[_SceneReader]) -> Iterator[_Batch]:
    """Combine tiles of the same shape into batches, across blocks and scenes, in reading order."""
    batch, ended_px = _Batch(), 0
    for event in chain.from_iterable(reader.events() for reader in readers):
        if isinstance(event, _Tile) and event.pixels.size:
            if batch.tiles and batch.tiles[0].pixels.shape != event.pixels.shape:
                yield batch
                batch, ended_px = _Batch(), 0
            batch.tiles.append(event)
        batch.events.append(event)
        count = len(batch.tiles)
        is_full = count > 0 and (count + 1) * prod(batch.tiles[0].pixels.shape[1:]) > BATCH_PX
        if isinstance(event, _BlockEnd):
            ended_px += event.area_px
            # Blocks of nodata have no tiles that would fill the batch.
            is_full = is_full or not count or ended_px > _FINISHING_PX
        if is_full:
            yield batch
            batch, ended_px = _Batch(), 0
    if batch.events:
        yield batch


_Outputs = dict[int, Probability | Exception]
"""Output of the network, or the reason why there is none, by the `id` of each tile that was run."""


def _answered(
    batches: Iterable[_Batch], engine: Engine, *, threads: bool
) -> Generator[tuple[_Batch, _Outputs, float], None, None]:
    """Run the network on batches, and yield them with their outputs and seconds.

    With `threads`, several are run at a time, if the engine can.
    """
    parallel = getattr(engine, "parallel", None) if threads else None
    if parallel is None:
        for batch in batches:
            yield batch, *_outputs(batch.tiles, engine)
        return
    shared: Engine = parallel(_PARALLEL)
    batches = iter(batches)
    latest = next(batches, None)
    calls = _PARALLEL + (latest is not None and len(latest.tiles) > 1)
    with ThreadPoolExecutor(calls, "network") as pool:
        waiting: deque[tuple[_Batch, Future[tuple[_Outputs, float]]]] = deque()
        while latest is not None or waiting:
            if latest is not None:
                waiting.append((latest, pool.submit(_outputs, latest.tiles, shared)))
            while waiting:
                sizes = [sum(tile.pixels.size for tile in one.tiles) for one, _ in waiting]
                # One more than the threads keeps all of them busy; behind a large batch, the other
                # threads can run some small ones.
                is_enough = sum(sizes) > calls * max(sizes) or len(sizes) > 2 * calls
                if not (latest is None or is_enough or waiting[0][1].done()):
                    break
                done, future = waiting.popleft()
                outputs, seconds = future.result()
                yield done, outputs, seconds / calls
                # Not kept until the next batch is done.
                del done, future, outputs
            latest = next(batches, None)


def _outputs(tiles: Sequence[_Tile], engine: Engine) -> tuple[_Outputs, float]:
    """Return the outputs of tiles of one shape, and the seconds that it took."""
    started = time.perf_counter()
    outputs: _Outputs = {}
    if tiles:
        try:
            # A single tile is not copied.
            only = tiles[0].pixels[None]
            stacked = only if len(tiles) == 1 else np.stack([tile.pixels for tile in tiles])
            probability = engine.run_quantised(stacked)
            shape_nyx = len(stacked), *stacked.shape[2:]
            if probability.ndim != 4 or (len(probability), *probability.shape[2:]) != shape_nyx:
                raise PredictError(
                    f"the model returned the shape {probability.shape} for tiles of shape "
                    f"{stacked.shape}; expected one value for each pixel.",
                    remedy="The model is damaged: get it again, or export it again.",
                )
            outputs = dict(zip(map(id, tiles), np.asarray(probability, np.uint8)))
        except Exception as error:  # an engine may raise anything
            drop_tracebacks(error)
            if len(tiles) == 1:
                outputs[id(tiles[0])] = error
            else:
                # Each by itself, so that an error affects only its own tile.
                for tile in tiles:
                    outputs |= _outputs([tile], engine)[0]
    return outputs, time.perf_counter() - started


def _run(
    run: Generator[tuple[_Batch, _Outputs, float], None, None],
) -> Generator[list[_BlockEnd], None, None]:
    """Yield the ends of blocks with the outputs of their tiles."""
    probabilities: dict[TileIndex, Probability | None] = {}
    tiles = TileStats()
    with closing(run):
        for batch, outputs, batch_seconds in run:
            seconds = batch_seconds / max(len(batch.tiles), 1)
            ends = []
            for event in batch.events:
                if isinstance(event, _BlockEnd):
                    event.probabilities, event.tiles = probabilities, tiles
                    probabilities, tiles = {}, TileStats()
                    ends.append(event)
                    continue
                output, reason = outputs.get(id(event)), event.error
                if event.lost:
                    tiles = tiles.plus(TileStats(images_lost=len(event.lost), errors=event.lost))
                if isinstance(output, Exception):
                    failure = event.reader.failure(event.index, output)
                    if not event.reader.plan.options.forgiving:
                        event.reader.scene.fail(failure)
                    output, reason = None, failure.message
                if reason is not None:
                    probabilities[event.index] = None
                    tiles = tiles.plus(TileStats(tiles_failed=1, errors=(reason,)))
                elif output is None:
                    tiles = tiles.plus(TileStats(tiles_empty=1))
                else:
                    probabilities[event.index] = output
                    run_px = event.pixels.shape[1] * event.pixels.shape[2]
                    tiles = tiles.plus(TileStats(1, engine_seconds=seconds, engine_px=run_px))
                scene = event.reader.scene
                if scene.on_tile is not None:
                    scene.on_tile(scene.item, scene.plan, event.index)
            # Not kept until the next batch is done.
            del batch, outputs, event
            if ends:
                yield ends


def _finished(
    ends: Iterator[_BlockEnd],
) -> Generator[tuple[SceneBlocks, Block | None], None, None]:
    """Yield scenes with their finished blocks; None marks the end of a scene.

    The checkpoint of a block is written while the next block is finished. Where other processes
    make the outlines, a thread finishes a block while the caller passes on the one before.
    """
    with ThreadPoolExecutor(1, "checkpoint") as writer, ThreadPoolExecutor(1, "blend") as pool:
        waiting: deque[tuple[_BlockEnd, Future[Checkpoint] | None]] = deque()
        saving: Future[None] | None = None
        for end in ends:
            scene = end.reader.scene
            if end.number is not None and not scene.is_stopped:
                in_pool = scene.workers is not None
                waiting.append((end, pool.submit(end.reader.finish, end) if in_pool else None))
            ahead = 0 if end.number is None or scene.workers is None else 1
            while len(waiting) > ahead:
                begun, future = waiting.popleft()
                finished = begun.reader.finish(begun) if future is None else future.result()
                if begun.checkpoint is None and scene.checkpoints is not None:
                    _saved(scene, saving)
                    if not scene.is_stopped:
                        assert begun.number is not None
                        saving = writer.submit(scene.checkpoints.save, begun.number, finished)
                if not scene.is_stopped:
                    yield scene, finished.block
                # Not kept until the next block is finished.
                del begun, future, finished
            if end.number is None:
                _saved(scene, saving)
                saving = None
                if end.error is not None:
                    scene.fail(end.error)
                yield scene, None


def _saved(scene: SceneBlocks, saving: Future[None] | None) -> None:
    """Wait until the last checkpoint of a scene is written; its error stops the scene."""
    try:
        if saving is not None:
            saving.result()
    except RooftraceError as error:
        scene.fail(error)
