"""One scene on its way through the network: its tiles, its blocks, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.core.types import BoolArray, Raster, RasterSource, Window
from rooftrace.io.masks import NODATA
from rooftrace.io.resample import Resampler
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.block import Block, Piece
from rooftrace.predict.divided import Divided
from rooftrace.predict.parts import Part, PartStore
from rooftrace.predict.scene import ScenePlan, TileIndex
from rooftrace.vector.traced import Tracing

__all__ = ["Answer", "End", "Glance", "SceneStream", "StreamStats", "Tile"]

Answer = NDArray[np.uint8]


class Glance(Protocol):
    """Sees the source pass by, and keeps something of it for each block, see `Preview`."""

    def watch(self, window: Window, raster: Raster) -> None: ...
    def crop(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]: ...
    def paste(self, window: Window, pixels: NDArray[Any], valid: NDArray[np.bool_]) -> None: ...


@dataclass
class StreamStats:
    """What went through.

    Args:
        tiles_run: by the network.
        tiles_empty: without a valid pixel, which the network never saw.
        tiles_failed: taken for nodata, since they could not be read or run.
        blocks_resumed: that an earlier run had finished.
        engine_seconds: the network alone.
        engine_px: that the network was given, with overlaps and padding.
        class_px: (256,) of the source, by class index, NODATA among them.
    """

    tiles_run: int = 0
    tiles_empty: int = 0
    tiles_failed: int = 0
    blocks_resumed: int = 0
    engine_seconds: float = 0.0
    engine_px: int = 0
    class_px: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, dtype=np.int64))

    @property
    def valid_px(self) -> int:
        """Of the source."""
        return int(self.class_px[:NODATA].sum())


@dataclass
class _Figures:
    """Of one block, for its part."""

    tiles_run: int = 0
    tiles_empty: int = 0
    tiles_failed: int = 0


@dataclass
class _Validity:
    """Where the source is valid, gathered block by block from the tiles as they are read.

    The tiles of a block see all of it. What they see beyond is left to the blocks there.
    """

    plan: ScenePlan
    reading: int = 0
    """The block whose tiles are being read."""

    _partial: dict[int, BoolArray] = field(default_factory=dict)

    def watch(self, window: Window, valid: BoolArray | None) -> None:
        """Note a window of the source, where it is valid; None for nowhere."""
        if valid is not None and valid.all():
            return
        block = self.plan.blocks[self.reading]
        part = block.intersection(window)
        if part is None:
            return
        known = self._partial.get(self.reading)
        if known is None:
            known = self._partial[self.reading] = np.ones(block.shape_yx, dtype=bool)
        known[part.slices(block)] = False if valid is None else valid[part.slices(window)]

    def take(self, number: int) -> BoolArray | None:
        """(y, x) of a block whose tiles have all been read; None where all of it is valid."""
        return self._partial.pop(number, None)


@dataclass(frozen=True)
class Tile:
    """A tile that was read: (band, y, x), mirrored where it leaves the scene; None: no answer."""

    scene: SceneStream
    number: int
    index: TileIndex
    pixels: NDArray[Any] | None


@dataclass(frozen=True)
class End:
    """All tiles of a block were read, or a part was; without a number the scene is at its end.

    What went wrong in reading counts from there on: blocks that were read before are finished.
    """

    scene: SceneStream
    number: int | None = None
    part: Part | None = None
    error: RooftraceError | None = None


class SceneStream:
    """One scene on its way.

    Its blocks are handed on one at a time, in the order of the plan, in another thread.

    Args:
        source: the image; read from one other thread.
        spec: the contract of the model.
        plan: made from both by `plan_scene`.
        consume: takes every block.
        threshold: on the building's probability, where there are two classes. None where there
            are more: the most probable is taken, and of equals the first.
        glance: sees the source pixels that are read, some of them twice, in another thread.
        parts: where finished blocks are kept; those that are there are not made again.
        forgiving: whether a tile that cannot be read or run becomes nodata, and the rest goes on.
        close: called once when nothing more comes, with what went wrong, if anything did.
        tracing: how polygons of blocks are traced where they are made, if that is elsewhere.
        only: the blocks whose tiles are read and run; default all.
        divided: takes these blocks in place of `consume`, which then gets none, before anything of
            earlier blocks is known.
    """

    def __init__(
        self,
        source: RasterSource,
        spec: BundleSpec,
        plan: ScenePlan,
        consume: Callable[[Block], None],
        *,
        threshold: float | None,
        glance: Glance | None = None,
        parts: PartStore | None = None,
        forgiving: bool = False,
        close: Callable[[SceneStream], None] | None = None,
        tracing: Tracing | None = None,
        only: Iterable[int] | None = None,
        divided: Callable[[Divided], None] | None = None,
    ) -> None:
        self.source = source
        self.spec = spec
        self.plan = plan
        self.stats = StreamStats()
        self.failed: list[str] = []
        """Tiles that were taken for nodata, and why."""
        self.error: RooftraceError | None = None
        self._consume = consume
        self.threshold = threshold
        self.glance = glance
        self.parts = parts
        self.forgiving = forgiving
        self.tracing = tracing
        self._close = close
        self._only = range(plan.block_count) if only is None else only
        self._divided = divided
        self._validity = _Validity(plan)
        self._resampler = Resampler(source, plan.scaling, spec.mean, self._watch)
        self._answers: dict[TileIndex, Answer | None] = {}
        self._lost: set[TileIndex] = set()
        self._figures = _Figures()
        self._inbox: dict[int, list[Piece]] = {}

    @property
    def is_single_tile(self) -> bool:
        return len(self.plan.tiles) == 1

    def _watch(self, window: Window, raster: Raster) -> None:
        self._validity.watch(window, raster.valid)
        if self.glance is None:
            return
        # What lies beyond is left to the blocks there, so that a block says the same by itself.
        part = self.plan.blocks[self._validity.reading].intersection(window)
        if part is not None:
            rows, cols = part.slices(window)
            grid = raster.grid.crop(Window(rows.start, cols.start, *part.shape_yx))
            self.glance.watch(
                part, Raster(raster.data[:, rows, cols], raster.valid[rows, cols], grid)
            )

    # In the thread that reads.

    def events(self) -> Iterator[Tile | End]:
        """The tiles of every block and the end of it, and the end of all."""
        try:
            for number in self._only:
                part = None if self.parts is None else self.parts.load(number)
                if part is None:
                    self._validity.reading = number
                    for index in self.plan.own_tiles(number):
                        if self.error is not None:
                            break
                        yield Tile(self, number, index, self._read(index))
                if self.error is not None:
                    break
                yield End(self, number, part)
        except RooftraceError as error:
            yield End(self, error=error)
        else:
            yield End(self)

    def _read(self, index: TileIndex) -> NDArray[Any] | None:
        wanted = self.plan.tiles.tile(index).read
        inside = wanted.intersection(Window.whole(self._resampler.shape_yx))
        assert inside is not None
        if self._resampler.is_empty(inside):
            self._validity.watch(self._resampler.reach(inside), None)
            return None
        try:
            data, valid = self._resampler.read(inside)
        except RooftraceError as error:
            self._give_up(index, error)
            return None
        if not valid.any():
            return None
        beyond = (0, wanted.height - inside.height), (0, wanted.width - inside.width)
        if beyond != ((0, 0), (0, 0)):
            data = np.pad(data, ((0, 0), *beyond), mode="reflect")
        return data

    def _give_up(self, index: TileIndex, error: RooftraceError) -> None:
        """Note a tile that has no answer; raises the error where that is not to be borne."""
        if not self.forgiving:
            raise error
        self._lost.add(index)
        self.failed.append(error.message)

    # In the thread that runs the network.

    def fail(self, error: RooftraceError) -> None:
        """Stop here; the first error counts."""
        self.error = self.error or error

    def explained(self, index: TileIndex, error: Exception) -> PredictError:
        """What is told of a tile that the network failed on."""
        window = self.plan.scaling.to_source(self.plan.tiles.tile(index).read, self.plan.shape_yx)
        reason = error.message if isinstance(error, RooftraceError) else repr(error)
        return PredictError(
            f"{self.source.name}: the network failed on the tile at {window}: {reason}",
            remedy=getattr(error, "remedy", "") or "Try another engine or precision.",
        )

    def answer(self, tile: Tile, answer: Answer | Exception | None, seconds: float) -> None:
        """Take what the network said of a tile."""
        if isinstance(answer, Exception):
            error = self.explained(tile.index, answer)
            try:
                self._give_up(tile.index, error)
            except RooftraceError:
                self.fail(error)
            answer = None
        elif answer is not None:
            assert tile.pixels is not None
            self.stats.engine_seconds += seconds
            self.stats.engine_px += tile.pixels.shape[1] * tile.pixels.shape[2]
            self._figures.tiles_run += 1
        elif tile.index not in self._lost:
            self._figures.tiles_empty += 1
        if tile.index in self._lost:
            self._figures.tiles_failed += 1
        self._answers[tile.index] = answer

    def finishing(self, end: End) -> Callable[[], None]:
        """What the finishing thread is to do at an end."""
        if end.number is None:
            return lambda: self._finish_scene(end.error)
        number = end.number
        if end.part is not None:
            part = end.part
            return lambda: self._guarded(lambda: self._resume(number, part))
        answers, self._answers = self._answers, {}
        figures, self._figures = self._figures, _Figures()
        return lambda: self._guarded(lambda: self._finish(number, answers, figures))

    # In the thread that finishes.

    def _guarded(self, work: Callable[[], None]) -> None:
        if self.error is None:
            try:
                work()
            except RooftraceError as error:
                self.fail(error)

    def _finish(
        self, number: int, answers: Mapping[TileIndex, Answer | None], figures: _Figures
    ) -> None:
        divided = self._divide(number, answers, figures)
        if self._divided is not None:
            self._divided(divided)
            return
        self._hand_on(divided.handed_on)
        received = self._inbox.pop(number, [])
        part = divided.finish(self.plan, self.spec, received, self.threshold)
        if self.parts is not None and self.plan.block_count > 1:
            self.parts.save(number, part)
        self._take(part.block, part.figures)

    def _divide(
        self, number: int, answers: Mapping[TileIndex, Answer | None], figures: _Figures
    ) -> Divided:
        own, handed_on = [], []
        for index, answer in answers.items():
            if answer is None and index not in self._lost:
                continue
            write, read = self.plan.tiles.tile(index).write, self.plan.tiles.tile(index).read
            for other in self.plan.blocks_needing(index):
                extent = write.intersection(self.plan.model_window(other))
                if extent is None:
                    continue
                part = None if answer is None else answer[:, *extent.slices(read)]
                if other == number:
                    own.append(Piece(index, extent, part))
                    continue
                # A copy, so that the whole of the answer is not held by a strip of it.
                piece = Piece(index, extent, None if part is None else part.copy())
                handed_on.append((other, piece))
        window = self.plan.blocks[number]
        glance = None if self.glance is None else self.glance.crop(window)
        valid = self._validity.take(number)
        return Divided(number, tuple(own), tuple(handed_on), valid, glance, asdict(figures))

    def _resume(self, number: int, part: Part) -> None:
        self._inbox.pop(number, None)
        self._hand_on(part.handed_on)
        self.stats.blocks_resumed += 1
        self._take_part(part)

    def take(self, part: Part, *, resumed: bool) -> None:
        """Take the next block, which was made elsewhere.

        Args:
            part: the block.
            resumed: whether by an earlier run.
        """

        def work() -> None:
            self.stats.blocks_resumed += resumed
            self._take_part(part)

        self._guarded(work)

    def _take_part(self, part: Part) -> None:
        if self.glance is not None and part.glance is not None:
            self.glance.paste(part.block.window, *part.glance)
        self._take(part.block, part.figures)

    def _hand_on(self, pieces: Sequence[tuple[int, Piece]]) -> None:
        for number, piece in pieces:
            self._inbox.setdefault(number, []).append(piece)

    def _take(self, block: Block, figures: Mapping[str, int]) -> None:
        self.stats.class_px += block.count
        for name, value in figures.items():
            setattr(self.stats, name, getattr(self.stats, name) + value)
        self._consume(block)

    def finish(self) -> None:
        """All blocks were taken, or no more come since one failed."""
        self._finish_scene(None)

    def _finish_scene(self, error: RooftraceError | None) -> None:
        self.error = self.error or error
        if self._close is not None:
            self._close(self)
