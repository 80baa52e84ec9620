"""Scenes through the network: read, run, finish, at the same time.

Three threads: one reads tiles ahead, the calling one runs the network, and one makes finished
blocks of the answers and hands them on. Tiles of one shape go through the network together, across
blocks and scenes. What is held is a few tiles, the answers of a block, and the few rows and columns
of answers that blocks to come need; never the scene. A scene of one tile needs no threads.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.ahead import Ahead
from rooftrace.core.types import RasterSource
from rooftrace.engines.base import Engine
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.block import Block
from rooftrace.predict.passage import Answer, End, Glance, SceneStream, StreamStats, Tile
from rooftrace.predict.scene import ScenePlan
from rooftrace.tiling.blend import quantise

__all__ = ["run_streams", "stream"]

BATCH_PX = 2**19
"""What the network is given at once: small tiles together, of larger ones one."""

_AHEAD = 2
"""Batches that are read ahead."""

_FINISHING_PX = 16 * 2**20
"""Of blocks that wait to be finished; at least one may."""


@dataclass(frozen=True)
class _Step:
    """What is done next: `batch`, the pixels of some of the tiles among the events."""

    events: Sequence[Tile | End]
    batch: NDArray[Any] | None


def stream(
    source: RasterSource,
    engine: Engine,
    spec: BundleSpec,
    plan: ScenePlan,
    consume: Callable[[Block], None],
    *,
    threshold: float | None,
    glance: Glance | None = None,
) -> StreamStats:
    """Predict one scene; see `SceneStream`.

    Raises:
        PredictError: the network failed; the tile's window is named.
        DataError: the source could not be read.
    """
    scene = SceneStream(source, spec, plan, consume, threshold=threshold, glance=glance)
    run_streams([scene], engine)
    if scene.error is not None:
        raise scene.error
    return scene.stats


def run_streams(scenes: Iterable[SceneStream], engine: Engine) -> None:
    """Predict scenes that share one model. What goes wrong with one is its `error`.

    Args:
        scenes: taken one after the other, in the thread that reads.
        engine: the network.
    """
    scenes = iter(scenes)
    first = list(islice(scenes, 2))
    run = _runner(engine)
    if len(first) == 1 and first[0].is_single_tile:
        # One tile has nothing to overlap with, and to start threads takes as long as the network.
        for step in _steps(first):
            for _, work in _run(step, run):
                work()
        return
    finishing: deque[tuple[Future[None], int]] = deque()
    with (
        ThreadPoolExecutor(1, "finish") as finisher,
        Ahead(_steps(chain(first, scenes)), _AHEAD, "read") as steps,
    ):
        try:
            for step in steps:
                waiting_px = sum(area for _, area in finishing)
                while finishing and (finishing[0][0].done() or waiting_px > _FINISHING_PX):
                    done, area_px = finishing.popleft()
                    done.result()
                    waiting_px -= area_px
                for area_px, work in _run(step, run):
                    finishing.append((finisher.submit(work), area_px))
            for done, _ in finishing:
                done.result()
        except BaseException:
            for done, _ in finishing:
                done.cancel()
            raise


def _run(
    step: _Step, run: Callable[[NDArray[Any]], NDArray[np.uint8]]
) -> Iterator[tuple[int, Callable[[], None]]]:
    """Give a step's tiles to the network; what is to be finished then, in order, and its size."""
    tiles = [event for event in step.events if isinstance(event, Tile)]
    asked = [tile for tile in tiles if tile.pixels is not None]
    started = time.perf_counter()
    answers: dict[int, Answer | Exception] = {}
    if step.batch is not None:
        try:
            answers = dict(zip(map(id, asked), run(step.batch)))
        except Exception as error:  # whatever an engine raises is of its tile
            answers = {id(tile): _alone(tile, run, error, len(asked)) for tile in asked}
    seconds = (time.perf_counter() - started) / max(len(asked), 1)
    for event in step.events:
        if isinstance(event, Tile):
            event.scene.answer(event, answers.get(id(event)), seconds)
        else:
            plan = event.scene.plan
            area_px = 0 if event.number is None else plan.blocks[event.number].area_px
            yield area_px, event.scene.finishing(event)


def _alone(
    tile: Tile, run: Callable[[NDArray[Any]], NDArray[np.uint8]], error: Exception, count: int
) -> Answer | Exception:
    """One tile of a batch that failed, by itself: only it is to blame for its own failure."""
    if count == 1:
        return error
    assert tile.pixels is not None
    try:
        return np.asarray(run(tile.pixels[None])[0])
    except Exception as own:  # as above
        return own


def _runner(engine: Engine) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """The network as a function of a batch to 255ths."""
    # An engine that can round inside its network hands over a quarter of the bytes.
    rounded: Callable[[NDArray[Any]], NDArray[np.uint8]] | None = getattr(
        engine, "run_quantised", None
    )
    return rounded or (lambda batch: quantise(engine.run(batch)))


def _steps(scenes: Iterable[SceneStream]) -> Iterator[_Step]:
    """Tiles of one shape together, whatever block or scene they are of, in the order they come."""
    events: list[Tile | End] = []
    pixels: list[NDArray[Any]] = []

    def step() -> _Step:
        batch = None
        if pixels:
            # A scene of one tile is not copied.
            batch = pixels[0][None] if len(pixels) == 1 else np.stack(pixels)
        made = _Step(tuple(events), batch)
        events.clear()
        pixels.clear()
        return made

    for scene in scenes:
        for event in scene.events():
            own = None if isinstance(event, End) else event.pixels
            if own is not None:
                own = own.astype(scene.spec.numpy_dtype, copy=False)
                if pixels and own.shape != pixels[0].shape:
                    yield step()
                pixels.append(own)
            events.append(event)
            full = bool(pixels) and (len(pixels) + 1) * pixels[0][0].size > BATCH_PX
            if full or (not pixels and isinstance(event, End)):
                yield step()
    if events:
        yield step()
