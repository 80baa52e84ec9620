"""Pipeline that turns scenes into finished blocks.

Several threads work at the same time: one reads tiles in advance, one or two run the network, and
the caller's thread, or one beside it, finishes blocks. Tiles of the same shape form batches, across
blocks and scenes.
The pipeline keeps in memory a few tiles, the outputs of a block, and the few rows and columns of
output that later blocks need; it never keeps the whole scene. A scene of one tile runs without
threads.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.cache import Prefetcher
from rooftrace.core.errors import OutOfMemoryError, PredictError, RooftraceError, ServiceError
from rooftrace.core.failures import drop_tracebacks, is_out_of_memory, out_of_memory
from rooftrace.core.parallel import Workers
from rooftrace.core.types import BoolArray, Raster, Window
from rooftrace.engines.base import Engine, run_quantised
from rooftrace.io.resample import Resampler
from rooftrace.predict.block import Block, BlockParts, BlockTiles, TileOutput, TileStats
from rooftrace.predict.checkpoint import Checkpoint, CheckpointStore, CheckpointThread
from rooftrace.predict.plan import ScenePlan, TileIndex
from rooftrace.predict.preview import ThumbnailSampler

if TYPE_CHECKING:
    from rooftrace.core.processes import Processes

__all__ = ["BATCH_PX", "SceneBlocks", "by_scene", "run", "run_block", "run_scenes"]

BATCH_PX = 2**19
"""Number of pixels in a batch: several small tiles, or one large tile."""

_READ_AHEAD = 1
"""Number of batches that are read in advance of those that wait for the network."""

_PARALLEL = 2
"""Number of batches that an engine runs at the same time, if it can."""

_FINISHING_PX = 16 * 2**20
"""Number of pixels in unfinished blocks above which the network pauses, and above which blocks do
not wait for more tiles."""

Answer = NDArray[np.uint8]
"""(channel, y, x) output of the network for a tile, in 255ths."""


def run(
    plan: ScenePlan, engine: Engine, checkpoints: CheckpointStore | None = None
) -> Iterator[Block]:
    """Predict one scene, and yield its finished blocks in the order of the plan.

    Args:
        plan: Plan of the scene.
        engine: Engine of the network.
        checkpoints: Store of finished blocks. Blocks that it already contains are not run.

    Raises:
        PredictError: The network failed; the message names the window of the tile.
        DataError: The source cannot be read.
        ExportError: A checkpoint cannot be written.
    """
    for scene in run_scenes([SceneBlocks(plan, checkpoints)], engine):
        yield from scene.run_here()


def run_scenes(scenes: Iterable[SceneBlocks], engine: Engine) -> Iterator[SceneBlocks]:
    """Predict scenes that share one model, and yield them in order; iterate each for its blocks.

    An error in one scene is raised when its blocks are iterated. It does not stop the others.

    Args:
        scenes: Scenes; the next one is requested in the thread that reads.
        engine: Engine of the network.
    """
    readers = (_SceneReader(scene) for scene in scenes)
    return by_scene(_finished(_read_and_run(readers, engine)))


def run_block(plan: ScenePlan, number: int, engine: Engine) -> BlockTiles:
    """Read and run the tiles of one block, without the halo outputs of other blocks.

    Args:
        plan: Plan of the scene.
        number: Number of the block.
        engine: Engine of the network.

    Raises:
        PredictError, DataError: See `run`.
    """
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
    """Blocks of one scene, produced by the pipeline or by a cluster; iterate over it once.

    Args:
        plan: Plan of the scene.
        checkpoints: Store of finished blocks.
    """

    def __init__(self, plan: ScenePlan, checkpoints: CheckpointStore | None = None) -> None:
        self.plan = plan
        self.checkpoints = checkpoints if plan.block_count > 1 else None
        self.folder = None if checkpoints is None else checkpoints.folder
        """Folder for other work on the scene that a later run can use; None to keep none."""

        self.started = time.perf_counter()
        self.error: RooftraceError | None = None
        """Error that stopped the scene; iteration raises it."""

        self.workers: Workers | None = None
        """Workers for other work on the blocks of the scene, such as those of the cluster that
        runs it."""

        self.writers: Processes | None = None
        """Processes that write the outputs of a scene of one block."""

        self.on_tile: Callable[[SceneBlocks, TileIndex], None] | None = None
        """Function called with the scene after each tile, in the thread of the network."""

        self.is_abandoned = False
        """True if the caller does not need more blocks."""

        self._blocks: Iterator[Block | BlockParts] = iter(())

    def __iter__(self) -> Iterator[Block | BlockParts]:
        for block in self._blocks:
            if self.error is not None:
                break
            yield block
        if self.error is not None:
            raise self.error

    def run_here(self) -> Iterator[Block]:
        """Yield the blocks of a scene that this process runs."""
        for block in self:
            assert isinstance(block, Block)
            yield block

    def fail(self, error: RooftraceError) -> None:
        """Stop the scene. Only the first error is kept."""
        self.error = self.error or error

    @property
    def is_stopped(self) -> bool:
        """True if no more blocks are needed."""
        return self.is_abandoned or self.error is not None

    def receive(self, blocks: Iterator[Block | BlockParts]) -> None:
        """Set the iterator of blocks; the producer calls this before it yields the scene."""
        self._blocks = blocks

    def abandon(self) -> None:
        """Skip the blocks that the caller has not consumed."""
        self.is_abandoned = True
        for _ in self._blocks:
            pass


def by_scene(
    blocks: Generator[tuple[SceneBlocks, Block | BlockParts | None], None, None],
) -> Iterator[SceneBlocks]:
    """Group the blocks of successive scenes by scene.

    Args:
        blocks: Scenes with their blocks; None marks the end of a scene.
    """
    try:
        for scene, block in blocks:
            scene.receive(_until_none(chain([(scene, block)], blocks)))
            yield scene
            scene.abandon()
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
class _Tile:
    """Tile that was read.

    Args:
        reader: Reader of its scene.
        index: Index of the tile.
        pixels: (band, y, x) pixel values, mirrored beyond the edges of the scene; None if there is
            nothing to run.
        error: Reason why it could not be read, if failed tiles become nodata.
    """

    reader: _SceneReader
    index: TileIndex
    pixels: NDArray[Any] | None
    error: str | None = None


@dataclass
class _BlockEnd:
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

    reader: _SceneReader
    number: int | None = None
    checkpoint: Checkpoint | None = None
    error: RooftraceError | None = None
    answers: dict[TileIndex, Answer | None] = field(default_factory=dict)
    tiles: TileStats = field(default_factory=TileStats)


@dataclass(frozen=True)
class _Batch:
    """Tiles and block ends in the order of reading, and the pixels of the tiles.

    Args:
        events: Tiles and ends of blocks.
        pixels: (n, band, y, x) pixel values of the tiles to run; None if there are none.
        ended_px: Number of pixels in the blocks that end.
    """

    events: Sequence[_Tile | _BlockEnd]
    pixels: NDArray[Any] | None
    ended_px: int

    @cached_property
    def tiles(self) -> list[_Tile]:
        """Tiles that are run."""
        tiles = [one for one in self.events if isinstance(one, _Tile)]
        return [one for one in tiles if one.pixels is not None]


class _SceneReader:
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
                yield _BlockEnd(self, number, checkpoint)
        except RooftraceError as error:
            yield _BlockEnd(self, error=error)
        else:
            yield _BlockEnd(self)

    def _read(self, index: TileIndex) -> _Tile:
        wanted = self.plan.tiles.tile(index).read
        inside = wanted.intersection(Window.whole(self._resampler.shape_yx))
        assert inside is not None
        if self._resampler.is_empty(inside):
            self._note_valid(self._resampler.reach(inside), None)
            return _Tile(self, index, None)
        self._is_counted = False
        try:
            data, seen = self._resampler.read(inside, self._watch)
        except RooftraceError as error:
            # A service that refuses one tile refuses all: a whole town would become nodata.
            if not self.plan.options.forgiving or isinstance(error, ServiceError):
                raise
            return _Tile(self, index, None, error.message)
        if not (self._is_counted and seen.any()):
            return _Tile(self, index, None)
        beyond = (0, wanted.height - inside.height), (0, wanted.width - inside.width)
        if beyond != ((0, 0), (0, 0)):
            data = np.pad(data, ((0, 0), *beyond), mode="reflect")
        return _Tile(self, index, data)

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
        reason = error.message if isinstance(error, RooftraceError) else repr(error)
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
            finished = Checkpoint(tiles.finish(self.plan, received), tiles.halo)
        for number, output in finished.halo:
            self._halo[number].append(output)
        return finished

    def divide(self, end: _BlockEnd) -> BlockTiles:
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


def _read_and_run(readers: Iterator[_SceneReader], engine: Engine) -> Iterator[_BlockEnd]:
    """Yield the ends of all blocks and scenes, with the outputs of their tiles."""
    first = list(islice(readers, 2))
    if len(first) == 1 and len(first[0].plan.tiles) == 1:
        # Threads do not pay for a single tile: starting them takes as long as the network.
        for ends in _run(_answered(_batches(first), engine)):
            yield from ends
        return
    with (
        Prefetcher(_batches(chain(first, readers)), _READ_AHEAD, "read") as batches,
        _NetworkThread(_run(_answered_ahead(batches, engine))) as groups,
    ):
        for ends in groups:
            yield from ends


class _NetworkThread:
    """Thread that runs the network, and pauses while too many pixels are unfinished.

    Args:
        groups: Ends of blocks in the order of the network.
    """

    def __init__(self, groups: Generator[list[_BlockEnd], None, None]) -> None:
        self._groups = groups
        self._pool = ThreadPoolExecutor(1, "network")
        self._changed = threading.Condition()
        self._waiting: deque[list[_BlockEnd]] = deque()
        self._waiting_px = 0
        self._is_over = False

    def __enter__(self) -> Iterator[list[_BlockEnd]]:
        return self._received(self._pool.submit(self._work))

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._pool.shutdown(wait=True)

    def _received(self, working: Future[None]) -> Iterator[list[_BlockEnd]]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_over)
                if not self._waiting:
                    break
                ends = self._waiting.popleft()
            yield ends
            with self._changed:
                self._waiting_px -= _pixels(ends)
                self._changed.notify_all()
        working.result()

    def _work(self) -> None:
        try:
            for ends in self._groups:
                with self._changed:
                    self._waiting.append(ends)
                    self._waiting_px += _pixels(ends)
                    self._changed.notify_all()
                    self._changed.wait_for(
                        lambda: self._waiting_px <= _FINISHING_PX or self._is_over
                    )
                    if self._is_over:
                        return
        finally:
            self._groups.close()
            with self._changed:
                self._is_over = True
                self._changed.notify_all()


def _pixels(ends: Sequence[_BlockEnd]) -> int:
    return sum(end.reader.plan.blocks[end.number].area_px for end in ends if end.number is not None)


def _batches(readers: Iterable[_SceneReader]) -> Iterator[_Batch]:
    """Combine tiles of the same shape into batches, across blocks and scenes, in reading order."""
    events: list[_Tile | _BlockEnd] = []
    pixels: list[NDArray[Any]] = []
    ended_px = 0

    def batch() -> _Batch:
        nonlocal ended_px
        together = None
        if pixels:
            # A single tile is not copied.
            together = pixels[0][None] if len(pixels) == 1 else np.stack(pixels)
        made = _Batch(tuple(events), together, ended_px)
        events.clear()
        pixels.clear()
        ended_px = 0
        return made

    for reader in readers:
        for event in reader.events():
            own = event.pixels if isinstance(event, _Tile) else None
            if own is not None:
                own = own.astype(reader.plan.spec.numpy_dtype, copy=False)
                if pixels and own.shape != pixels[0].shape:
                    yield batch()
                pixels.append(own)
            events.append(event)
            is_full = bool(pixels) and (len(pixels) + 1) * pixels[0][0].size > BATCH_PX
            if isinstance(event, _BlockEnd):
                ended_px += _pixels([event])
                # Blocks of nodata have no tiles that would fill the batch.
                is_full = is_full or not pixels or ended_px > _FINISHING_PX
            if is_full:
                yield batch()
    if events:
        yield batch()


Outputs = dict[int, Answer | Exception]
"""Output of the network, or the reason why there is none, by the `id` of each tile that was run."""


def _answered(
    batches: Iterable[_Batch], engine: Engine
) -> Generator[tuple[_Batch, Outputs, float], None, None]:
    """Run the network on batches one by one, and yield them with their outputs and seconds."""
    for batch in batches:
        yield batch, *_outputs(batch, engine)


def _answered_ahead(
    batches: Iterable[_Batch], engine: Engine
) -> Generator[tuple[_Batch, Outputs, float], None, None]:
    """Do the same as `_answered` with several batches at a time, if the engine can run them."""
    parallel = getattr(engine, "parallel", None)
    if parallel is None:
        yield from _answered(batches, engine)
        return
    shared: Engine = parallel(_PARALLEL)
    with ThreadPoolExecutor(_PARALLEL, "network") as pool:
        waiting: deque[tuple[_Batch, Future[tuple[Outputs, float]]]] = deque()
        for batch in batches:
            waiting.append((batch, pool.submit(_outputs, batch, shared)))
            while waiting and (waiting[0][1].done() or _is_enough([one for one, _ in waiting])):
                done, future = waiting.popleft()
                outputs, seconds = future.result()
                yield done, outputs, seconds / _PARALLEL
        for done, future in waiting:
            outputs, seconds = future.result()
            yield done, outputs, seconds / _PARALLEL


def _is_enough(waiting: Sequence[_Batch]) -> bool:
    """Return True if enough batches wait for the network to keep all its threads busy.

    One more than the threads is enough if all are of the same size. Behind a large batch, the other
    threads can run many small ones in the meantime. Batches without a tile keep no thread busy, but
    the blocks that they end need memory.
    """
    sizes = [0 if one.pixels is None else one.pixels.size for one in waiting]
    if sum(sizes) >= (_PARALLEL + 1) * max(sizes, default=0):
        return True
    # The last block does not count, so that a large one does not stop the network by itself.
    ended_px = [one.ended_px for one in waiting if one.ended_px]
    return sum(ended_px[:-1]) > _FINISHING_PX


def _outputs(batch: _Batch, engine: Engine) -> tuple[Outputs, float]:
    """Return the outputs of the tiles of a batch that are run, and the seconds that it took."""

    def network(pixels: NDArray[Any]) -> Answer:
        answer = run_quantised(engine, pixels)
        if answer.ndim != 4 or (len(answer), *answer.shape[2:]) != (len(pixels), *pixels.shape[2:]):
            raise PredictError(
                f"the model answered the shape {answer.shape} for tiles of shape {pixels.shape}; "
                "expected an answer for each pixel.",
                remedy="The model is damaged: get it again, or export it again.",
            )
        return answer

    started = time.perf_counter()
    outputs: Outputs = {}
    if batch.pixels is not None:
        try:
            outputs = dict(zip(map(id, batch.tiles), network(batch.pixels)))
        except Exception as error:  # an engine may raise anything
            outputs = {
                id(tile): _run_alone(tile, network, error, len(batch.tiles)) for tile in batch.tiles
            }
            for output in outputs.values():
                if isinstance(output, Exception):
                    drop_tracebacks(output)
    return outputs, time.perf_counter() - started


def _run(
    answered: Generator[tuple[_Batch, Outputs, float], None, None],
) -> Generator[list[_BlockEnd], None, None]:
    """Yield the ends of blocks with the outputs of their tiles."""
    answers: dict[TileIndex, Answer | None] = {}
    tiles = TileStats()
    with closing(answered):
        for batch, outputs, batch_seconds in answered:
            seconds = batch_seconds / max(len(batch.tiles), 1)
            ends = []
            for event in batch.events:
                if isinstance(event, _BlockEnd):
                    event.answers, event.tiles = answers, tiles
                    answers, tiles = {}, TileStats()
                    ends.append(event)
                    continue
                output, reason = outputs.get(id(event)), event.error
                if isinstance(output, Exception):
                    failure = event.reader.failure(event.index, output)
                    if not event.reader.plan.options.forgiving:
                        event.reader.scene.fail(failure)
                    output, reason = None, failure.message
                if reason is not None:
                    answers[event.index] = None
                    tiles = tiles.plus(TileStats(tiles_failed=1, errors=(reason,)))
                elif output is None:
                    tiles = tiles.plus(TileStats(tiles_empty=1))
                else:
                    assert event.pixels is not None
                    answers[event.index] = output
                    run_px = event.pixels.shape[1] * event.pixels.shape[2]
                    tiles = tiles.plus(TileStats(1, engine_seconds=seconds, engine_px=run_px))
                if event.reader.scene.on_tile is not None:
                    event.reader.scene.on_tile(event.reader.scene, event.index)
            if ends:
                yield ends


def _run_alone(
    tile: _Tile, network: Callable[[NDArray[Any]], Answer], error: Exception, count: int
) -> Answer | Exception:
    """Run one tile of a failed batch by itself, so that an error affects only its own tile."""
    if count == 1:
        return error
    assert tile.pixels is not None
    try:
        return np.asarray(network(tile.pixels[None])[0])
    except Exception as own:  # an engine may raise anything
        return own


def _finished(
    ends: Iterator[_BlockEnd],
) -> Generator[tuple[SceneBlocks, Block | None], None, None]:
    """Yield scenes with their finished blocks; None marks the end of a scene.

    The checkpoint of a block is written while the next block is finished. Where other processes
    make the outlines, a thread finishes a block while the caller passes on the one before.
    """
    with CheckpointThread() as checkpoints, ThreadPoolExecutor(1, "blend") as pool:
        waiting: deque[tuple[_BlockEnd, Future[Checkpoint]]] = deque()
        for end in ends:
            scene = end.reader.scene
            if end.number is not None and not scene.is_stopped:
                waiting.append((end, _finishing(end, pool)))
            ahead = 0 if end.number is None or scene.workers is None else 1
            while len(waiting) > ahead:
                begun, future = waiting.popleft()
                finished = future.result()
                if begun.checkpoint is None:
                    checkpoints.wait()
                    if scene.checkpoints is not None and not scene.is_stopped:
                        assert begun.number is not None
                        checkpoints.save(scene.checkpoints, begun.number, finished, scene.fail)
                if not scene.is_stopped:
                    yield scene, finished.block
            if end.number is None:
                checkpoints.wait()
                if end.error is not None:
                    scene.fail(end.error)
                yield scene, None


def _finishing(end: _BlockEnd, pool: ThreadPoolExecutor) -> Future[Checkpoint]:
    """Finish a block in the pool if its scene has workers, else at once."""
    if end.reader.scene.workers is not None:
        return pool.submit(end.reader.finish, end)
    done: Future[Checkpoint] = Future()
    done.set_result(end.reader.finish(end))
    return done
