"""A scene through the network, block by block: read, run, blend, decide, hand on.

Three threads: one reads tiles ahead, the calling one runs the network, and one makes finished
blocks of the tiles and hands them on. What is held is a few tiles, the answers of the tiles that a
block to come still needs, and two blocks; never the scene. A scene of one tile needs no threads.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.core.types import BoolArray, Raster, RasterSource, Window
from rooftrace.engines.base import Engine
from rooftrace.io.masks import NODATA
from rooftrace.io.resample import Resampler, enlarge
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.scene import ScenePlan
from rooftrace.tiling.blend import BLEND_ONE, PROB_ONE, Blender, quantise

__all__ = ["Block", "StreamStats", "stream"]

_TILES_AHEAD = 2
_BLOCKS_AHEAD = 2

TileIndex = tuple[int, int]
Answer = NDArray[np.uint8]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Block:
    """One finished part of a scene, on the source's grid.

    Args:
        window: of the source.
        mask: (y, x) class indices, NODATA where nothing is known.
        score: (y, x) the probability, in 255ths, of the second class where there are two, else of
            the pixel's own.
        count: (256,) pixels of each class index.
        cores: (y, x) 1 inside a building and away from its neighbours, else 0; None from a model
            that does not tell buildings apart.
    """

    window: Window
    mask: NDArray[np.uint8]
    score: NDArray[np.uint8]
    count: NDArray[np.int64]
    cores: NDArray[np.uint8] | None = None


@dataclass
class StreamStats:
    """What went through.

    Args:
        tiles_run: by the network.
        tiles_empty: without a valid pixel, which the network never saw.
        engine_seconds: the network alone.
        engine_px: that the network was given, with overlaps and padding.
        class_px: (256,) of the source, by class index, NODATA among them.
    """

    tiles_run: int = 0
    tiles_empty: int = 0
    engine_seconds: float = 0.0
    engine_px: int = 0
    class_px: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, dtype=np.int64))

    @property
    def valid_px(self) -> int:
        """Of the source."""
        return int(self.class_px[:NODATA].sum())


@dataclass
class _Validity:
    """Where the source is valid, gathered from the tiles as they are read."""

    plan: ScenePlan
    _partial: dict[int, BoolArray] = field(default_factory=dict)
    _closed: set[int] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def watch(self, window: Window, raster: Raster) -> None:
        """Note the nodata of a window of the source."""
        if raster.valid.all():
            return
        with self._lock:
            for number in self.plan.blocks_touching(window):
                if number in self._closed:
                    continue
                block = self.plan.blocks[number]
                known = self._partial.get(number)
                if known is None:
                    known = self._partial[number] = np.ones(block.shape_yx, dtype=bool)
                part = block.intersection(window)
                assert part is not None
                known[part.slices(block)] = raster.valid[part.slices(window)]

    def take(self, number: int) -> BoolArray | None:
        """(y, x) of a block whose tiles have all been read; None where all of it is valid."""
        with self._lock:
            self._closed.add(number)
            return self._partial.pop(number, None)


def stream(
    source: RasterSource,
    engine: Engine,
    spec: BundleSpec,
    plan: ScenePlan,
    consume: Callable[[Block], None],
    *,
    threshold: float | None,
    watch: Callable[[Window, Raster], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> StreamStats:
    """Predict a scene.

    Args:
        source: the image; read from one other thread.
        engine: the network.
        spec: its contract.
        plan: made from both by `plan_scene`.
        consume: takes every block, one at a time, in the order of the plan, in another thread.
        threshold: on the building's probability, where there are two classes. None where there
            are more: the most probable is taken, and of equals the first.
        watch: sees the source pixels that are read, some of them twice, in another thread.
        progress: called with the pixels of the source that are done and that there are.

    Raises:
        PredictError: the network failed; the tile's window is named.
        DataError: the source could not be read.
    """
    stats = StreamStats()
    validity = _Validity(plan)

    def note(window: Window, raster: Raster) -> None:
        validity.watch(window, raster)
        if watch is not None:
            watch(window, raster)

    resampler = Resampler(source, plan.scaling, spec.mean, note)
    schedule = _schedule(plan)
    run = _runner(engine, spec, stats)
    total_px = plan.shape_yx[0] * plan.shape_yx[1]
    done_px = 0

    def finish(number: int, answers: dict[TileIndex, Answer | None]) -> None:
        block = _finish(plan, spec, plan.blocks[number], answers, validity.take(number), threshold)
        stats.class_px += block.count
        consume(block)

    answers: dict[TileIndex, Answer | None] = {}
    if len(schedule) == 1 and len(schedule[0][0]) == 1:
        # One tile has nothing to overlap with, and to start threads takes as long as the network.
        (index,) = schedule[0][0]
        pixels = _read_tile(resampler, plan, index)
        finish(0, {index: _answer(run, pixels, source, plan, index, stats)})
        if progress is not None:
            progress(total_px, total_px)
        return stats
    finishing: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, "finish") as finisher, _Ahead(
        lambda index: (index, _read_tile(resampler, plan, index)),
        (index for _, fresh, _ in schedule for index in fresh),
    ) as tiles:  # fmt: skip
        try:
            for number, (needed, fresh, spent) in enumerate(schedule):
                for _ in fresh:
                    index, pixels = next(tiles)
                    answers[index] = _answer(run, pixels, source, plan, index, stats)
                while len(finishing) >= _BLOCKS_AHEAD:
                    finishing.popleft().result()
                parts = {index: answers[index] for index in needed}
                finishing.append(finisher.submit(finish, number, parts))
                for index in spent:
                    del answers[index]
                done_px += plan.blocks[number].area_px
                if progress is not None:
                    progress(done_px, total_px)
            for future in finishing:
                future.result()
        except BaseException:
            for future in finishing:
                future.cancel()
            raise
    return stats


def _schedule(
    plan: ScenePlan,
) -> list[tuple[list[TileIndex], list[TileIndex], list[TileIndex]]]:
    """Per block: the tiles it needs, which of them no block before needed, and none after needs."""
    needed = [plan.tiles_for(block) for block in plan.blocks]
    first = {i: n for n in reversed(range(len(needed))) for i in needed[n]}
    last = {i: n for n in range(len(needed)) for i in needed[n]}
    return [
        (all_of, [i for i in all_of if first[i] == n], [i for i in all_of if last[i] == n])
        for n, all_of in enumerate(needed)
    ]


class _Ahead(Iterator[R]):
    """Calls a function on items in another thread, a few items ahead."""

    def __init__(self, function: Callable[[T], R], items: Iterable[T]) -> None:
        self._pool = ThreadPoolExecutor(1, "read")
        self._function: Callable[[Any], R] = function
        self._items = iter(items)
        self._waiting: deque[Future[R]] = deque()

    def __enter__(self) -> _Ahead[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __next__(self) -> R:
        while len(self._waiting) <= _TILES_AHEAD:
            item = next(self._items, None)
            if item is None:
                break
            self._waiting.append(self._pool.submit(self._function, item))
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft().result()


def _read_tile(resampler: Resampler, plan: ScenePlan, index: TileIndex) -> NDArray[Any] | None:
    """(1, band, y, x) of a tile, mirrored where it leaves the scene; None without a valid pixel."""
    wanted = plan.tiles.tile(index).read
    inside = wanted.intersection(Window.whole(resampler.shape_yx))
    assert inside is not None
    data, valid = resampler.read(inside)
    if not valid.any():
        return None
    beyond = (0, wanted.height - inside.height), (0, wanted.width - inside.width)
    if beyond != ((0, 0), (0, 0)):
        data = np.pad(data, ((0, 0), *beyond), mode="reflect")
    return data[None]


def _runner(
    engine: Engine, spec: BundleSpec, stats: StreamStats
) -> Callable[[NDArray[Any]], Answer]:
    """The network as a function of one tile, (1, band, y, x), to 255ths."""
    # An engine that can round inside its network hands over a quarter of the bytes.
    rounded: Callable[[NDArray[Any]], NDArray[np.uint8]] | None = getattr(
        engine, "run_quantised", None
    )

    def run(tile: NDArray[Any]) -> Answer:
        started = time.perf_counter()
        tile = tile.astype(spec.numpy_dtype, copy=False)
        answer = rounded(tile) if rounded is not None else quantise(engine.run(tile))
        stats.engine_seconds += time.perf_counter() - started
        stats.engine_px += tile.shape[2] * tile.shape[3]
        return np.asarray(answer[0])

    return run


def _answer(
    run: Callable[[NDArray[Any]], Answer],
    pixels: NDArray[Any] | None,
    source: RasterSource,
    plan: ScenePlan,
    index: TileIndex,
    stats: StreamStats,
) -> Answer | None:
    if pixels is None:
        stats.tiles_empty += 1
        return None
    try:
        answer = run(pixels)
    except Exception as error:
        window = plan.scaling.to_source(plan.tiles.tile(index).read, plan.shape_yx)
        reason = error.message if isinstance(error, RooftraceError) else repr(error)
        raise PredictError(
            f"{source.name}: the network failed on the tile at {window}: {reason}",
            remedy=getattr(error, "remedy", "") or "Try another engine or precision.",
        ) from error
    stats.tiles_run += 1
    return answer


def _finish(
    plan: ScenePlan,
    spec: BundleSpec,
    window: Window,
    answers: dict[TileIndex, Answer | None],
    valid: BoolArray | None,
    threshold: float | None,
) -> Block:
    model_window = plan.model_window(window)
    if all(answer is None for answer in answers.values()):
        blended = np.zeros((spec.outputs, *window.shape_yx), dtype=np.uint16)
    else:
        blender = Blender(plan.tiles, model_window, spec.outputs)
        for index, answer in answers.items():
            if answer is not None:
                blender.feed(index, answer)
        blended = enlarge(blender.finish(), model_window, window, plan.scaling)
    blended, parting = blended[: spec.channels], blended[spec.channels :]
    if threshold is None:
        mask, score = _most_probable(blended)
    else:
        score = blended[0]
        mask = (score >= np.uint16(np.ceil(threshold * BLEND_ONE))).view(np.uint8)
    if valid is not None:
        mask = np.where(valid, mask, np.uint8(NODATA))
    score += np.uint16(BLEND_ONE // PROB_ONE // 2)
    score >>= np.uint16(8)
    count = np.bincount(mask.ravel(), minlength=256)
    cores = None
    if spec.separation is not None:
        above = parting[0] >= np.uint16(np.ceil(spec.separation_threshold * BLEND_ONE))
        inside = ~above if spec.separation == "border" else above
        cores = (inside & (mask == spec.building_class)).view(np.uint8)
    return Block(window, mask, score.astype(np.uint8), count, cores)


def _most_probable(
    blended: NDArray[np.uint16],
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """The class index of each pixel, of equals the first, and its value; (class, y, x) to (y, x).

    As `argmax` and `max` along the first axis, of which NumPy does the one many times slower.
    """
    classes, height, width = blended.shape
    best = blended.max(axis=0)
    # Counted from the last class down, so that of those that are as high the first is the largest.
    above = np.zeros(best.shape, dtype=np.uint8)
    # In strips that stay in the processor's cache.
    step = max(1, (1 << 19) // width)
    for top in range(0, height, step):
        strip = slice(top, top + step)
        for index in range(classes):
            here = (blended[index, strip] == best[strip]).view(np.uint8)
            here *= np.uint8(classes - index)
            np.maximum(above[strip], here, out=above[strip])
    return np.uint8(classes) - above, best
