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
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.cache import Prefetcher
from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.core.failures import drop_tracebacks
from rooftrace.engines.base import Engine, run_quantised
from rooftrace.predict.block import Block, BlockTiles, TileStats
from rooftrace.predict.checkpoint import Checkpoint
from rooftrace.predict.plan import ScenePlan, TileIndex
from rooftrace.predict.scene_blocks import (
    Answer,
    BlockEnd,
    SceneBlocks,
    SceneReader,
    Tile,
    by_scene,
)

__all__ = ["BATCH_PX", "run", "run_block", "run_many", "run_scenes"]

T = TypeVar("T")

BATCH_PX = 2**19
"""Number of pixels in a batch: several small tiles, or one large tile."""

_READ_AHEAD = 1
"""Number of batches that are read in advance of those that wait for the network."""

_PARALLEL = 2
"""Number of batches that an engine runs at the same time, if it can."""

_FINISHING_PX = 16 * 2**20
"""Number of pixels in unfinished blocks above which blocks do not wait for more tiles."""


def run(plan: ScenePlan, engine: Engine) -> Iterator[Block]:
    """Predict one scene, and yield its finished blocks in the order of the plan.

    Raises:
        PredictError: The network failed; the message names the window of the tile.
        DataError: The source cannot be read.
    """
    for _, _, blocks in run_many([plan], lambda scene: scene, engine):
        yield from blocks


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
        yield scene.item, scene.plan, cast(Iterator[Block], iter(scene))


def run_scenes(scenes: Iterable[SceneBlocks], engine: Engine) -> Iterator[SceneBlocks]:
    """Do the same as `run_many` for scenes that the caller has planned, with their checkpoints.

    Raises:
        ExportError: A checkpoint cannot be written.
    """
    readers = (SceneReader(scene) for scene in scenes)
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
    for end in _read_and_run(iter([SceneReader(scene, [number])]), engine):
        scene.error = scene.error or end.error
        if end.number is not None and scene.error is None:
            tiles = end.reader.divide(end)
    if scene.error is not None:
        raise scene.error
    assert tiles is not None
    return tiles


@dataclass(frozen=True)
class _Batch:
    """Tiles and block ends in the order of reading, and the pixels of the tiles.

    Args:
        events: Tiles and ends of blocks.
        pixels: (n, band, y, x) pixel values of the tiles to run; None if there are none.
    """

    events: Sequence[Tile | BlockEnd]
    pixels: NDArray[Any] | None

    @cached_property
    def tiles(self) -> list[Tile]:
        """Tiles that are run."""
        tiles = [one for one in self.events if isinstance(one, Tile)]
        return [one for one in tiles if one.pixels is not None]


def _read_and_run(readers: Iterator[SceneReader], engine: Engine) -> Iterator[BlockEnd]:
    """Yield the ends of all blocks and scenes, with the outputs of their tiles."""
    first = list(islice(readers, 2))
    if len(first) == 1 and len(first[0].plan.tiles) == 1:
        # Threads do not pay for a single tile: starting them takes as long as the network.
        for ends in _run(_answered(_batches(first), engine)):
            yield from ends
        return
    with (
        Prefetcher(_batches(chain(first, readers)), _READ_AHEAD, "read") as batches,
        closing(_run(_answered_ahead(batches, engine))) as groups,
        # The network pauses while the ends of two batches are not finished.
        Prefetcher(groups, 1, "network") as ahead,
    ):
        for ends in ahead:
            yield from ends


def _pixels(ends: Sequence[BlockEnd]) -> int:
    return sum(end.reader.plan.blocks[end.number].area_px for end in ends if end.number is not None)


def _batches(readers: Iterable[SceneReader]) -> Iterator[_Batch]:
    """Combine tiles of the same shape into batches, across blocks and scenes, in reading order."""
    events: list[Tile | BlockEnd] = []
    pixels: list[NDArray[Any]] = []
    ended_px = 0

    def batch() -> _Batch:
        nonlocal ended_px
        together = None
        if pixels:
            # A single tile is not copied.
            together = pixels[0][None] if len(pixels) == 1 else np.stack(pixels)
        made = _Batch(tuple(events), together)
        events.clear()
        pixels.clear()
        ended_px = 0
        return made

    for reader in readers:
        for event in reader.events():
            own = event.pixels if isinstance(event, Tile) else None
            if own is not None:
                own = own.astype(reader.plan.spec.numpy_dtype, copy=False)
                if pixels and own.shape != pixels[0].shape:
                    yield batch()
                pixels.append(own)
            events.append(event)
            is_full = bool(pixels) and (len(pixels) + 1) * pixels[0][0].size > BATCH_PX
            if isinstance(event, BlockEnd):
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
            # One more than the threads keeps all of them busy.
            while waiting and (waiting[0][1].done() or len(waiting) > _PARALLEL):
                done, future = waiting.popleft()
                outputs, seconds = future.result()
                yield done, outputs, seconds / _PARALLEL
        for done, future in waiting:
            outputs, seconds = future.result()
            yield done, outputs, seconds / _PARALLEL


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
) -> Generator[list[BlockEnd], None, None]:
    """Yield the ends of blocks with the outputs of their tiles."""
    answers: dict[TileIndex, Answer | None] = {}
    tiles = TileStats()
    with closing(answered):
        for batch, outputs, batch_seconds in answered:
            seconds = batch_seconds / max(len(batch.tiles), 1)
            ends = []
            for event in batch.events:
                if isinstance(event, BlockEnd):
                    event.answers, event.tiles = answers, tiles
                    answers, tiles = {}, TileStats()
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
                    answers[event.index] = None
                    tiles = tiles.plus(TileStats(tiles_failed=1, errors=(reason,)))
                elif output is None:
                    tiles = tiles.plus(TileStats(tiles_empty=1))
                else:
                    assert event.pixels is not None
                    answers[event.index] = output
                    run_px = event.pixels.shape[1] * event.pixels.shape[2]
                    tiles = tiles.plus(TileStats(1, engine_seconds=seconds, engine_px=run_px))
                scene = event.reader.scene
                if scene.on_tile is not None:
                    scene.on_tile(scene.item, scene.plan, event.index)
            if ends:
                yield ends


def _run_alone(
    tile: Tile, network: Callable[[NDArray[Any]], Answer], error: Exception, count: int
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
    ends: Iterator[BlockEnd],
) -> Generator[tuple[SceneBlocks, Block | None], None, None]:
    """Yield scenes with their finished blocks; None marks the end of a scene.

    The checkpoint of a block is written while the next block is finished. Where other processes
    make the outlines, a thread finishes a block while the caller passes on the one before.
    """
    with ThreadPoolExecutor(1, "checkpoint") as writer, ThreadPoolExecutor(1, "blend") as pool:
        waiting: deque[tuple[BlockEnd, Future[Checkpoint]]] = deque()
        saving: deque[tuple[SceneBlocks, Future[None]]] = deque()
        for end in ends:
            scene = end.reader.scene
            if end.number is not None and not scene.is_stopped:
                waiting.append((end, _finishing(end, pool)))
            ahead = 0 if end.number is None or scene.workers is None else 1
            while len(waiting) > ahead:
                begun, future = waiting.popleft()
                finished = future.result()
                if begun.checkpoint is None and scene.checkpoints is not None:
                    _wait_for(saving)
                    if not scene.is_stopped:
                        assert begun.number is not None
                        written = writer.submit(scene.checkpoints.save, begun.number, finished)
                        saving.append((scene, written))
                if not scene.is_stopped:
                    yield scene, finished.block
            if end.number is None:
                _wait_for(saving)
                if end.error is not None:
                    scene.fail(end.error)
                yield scene, None


def _wait_for(saving: deque[tuple[SceneBlocks, Future[None]]]) -> None:
    """Wait until the last checkpoint is written; its error stops the scene."""
    while saving:
        scene, written = saving.popleft()
        try:
            written.result()
        except RooftraceError as error:
            scene.fail(error)


def _finishing(end: BlockEnd, pool: ThreadPoolExecutor) -> Future[Checkpoint]:
    """Finish a block in the pool if its scene has workers, else at once."""
    if end.reader.scene.workers is not None:
        return pool.submit(end.reader.finish, end)
    done: Future[Checkpoint] = Future()
    done.set_result(end.reader.finish(end))
    return done
