"""What one worker of a cluster does: the tiles of a block, and the block when its time has come."""

from __future__ import annotations

import copy
import os
import platform
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.errors import DataError, RooftraceError
from rooftrace.core.types import RasterSource, Window
from rooftrace.core.versions import installed
from rooftrace.engines.base import Engine
from rooftrace.engines.processor import limit_threads
from rooftrace.io.gdal import limit_gdal_threads
from rooftrace.predict.block import Block, Piece
from rooftrace.predict.divided import Divided
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.parts import PartStore, pack
from rooftrace.predict.passage import Glance, SceneStream
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.scene import ScenePlan
from rooftrace.predict.stream import run_streams
from rooftrace.vector.traced import BlockOutlines, Tracing

__all__ = ["BlockWorker", "Facts", "Made", "Ran", "SceneTask", "can_be_read", "described"]

_SCENES_KEPT = 4
"""That are open: blocks of one come together, and the last ones of the one before."""


@dataclass(frozen=True)
class Facts:
    """What a worker is; those of one run answer alike but for `node`.

    Args:
        engine, precision, settings: of its engine, for the record.
        notes: what the engine assumed.
        versions: of what a result depends on.
        node: the machine.
    """

    engine: str
    precision: str
    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    node: str

    def differs(self, other: Facts) -> str:
        """In what this one would answer otherwise; "" where it would not."""
        for name in ("engine", "precision", "settings", "versions"):
            own, wanted = getattr(self, name), getattr(other, name)
            if own != wanted:
                return f"its {name} is {own}, that of {other.node} {wanted}"
        return ""


@dataclass(frozen=True)
class SceneTask:
    """A scene, as workers get it.

    Args:
        key: of the scene among those of the run.
        source: the image, which every worker opens by itself.
        plan: its blocks.
        threshold: see `SceneStream`.
        forgiving: see `SceneStream`.
        glance: an empty one; None where no preview is made.
        parts: where blocks are kept; None where there is but one block.
        tracing: of its polygons; None where none are made.
        readable: what `can_be_read` says where the run was begun.
    """

    key: int
    source: RasterSource
    plan: ScenePlan
    threshold: float | None
    forgiving: bool
    glance: Glance | None
    parts: PartStore | None
    tracing: Tracing | None
    readable: bool


@dataclass(frozen=True)
class Made:
    """A finished block.

    Args:
        part: as bytes, see `pack`.
        outlines: its polygons, where any are made.
        kept: whether the worker has written the part to where parts are kept.
    """

    part: bytes
    outlines: BlockOutlines | None
    kept: bool


@dataclass(frozen=True)
class Ran:
    """What came of the tiles of a block.

    Args:
        handed_on: for which later block, what they say of it.
        made: the block, where all that earlier ones hand on to it was known.
        engine_seconds, engine_px: see `StreamStats`.
        failed: tiles that were taken for nodata, and why.
    """

    handed_on: tuple[tuple[int, Piece], ...]
    made: Made | None
    engine_seconds: float
    engine_px: int
    failed: tuple[str, ...]


class BlockWorker:
    """One engine, and the blocks that wait for what others hand on to them.

    Several threads may call it: one block is read while another has the network.

    Args:
        models: that were read where the run was begun.
        threads: that the engine may use; None for as many as there are cores.
        folder: where the run was begun: paths may start from there.

    Raises:
        As `ModelSet.ready`.
    """

    def __init__(self, models: ModelSet, threads: int | None, folder: Path) -> None:
        if threads is not None:
            limit_threads(threads)
            limit_gdal_threads(threads)
        if folder.is_dir():
            os.chdir(folder)
        self.predictor = models.ready()
        self.engine = _one_at_a_time(self.predictor.engine)
        """The predictor's, for several threads."""

        self._scenes: OrderedDict[int, _Opened] = OrderedDict()
        self._held: dict[tuple[int, int], Divided] = {}
        self._lock = threading.Lock()

    def facts(self) -> Facts:
        """What this worker is."""
        engine = self.predictor.engine
        return Facts(
            engine.name,
            engine.precision,
            getattr(engine, "settings", {}),
            tuple(getattr(engine, "notes", ())),
            {
                **installed(("rooftrace", "openvino", "onnxruntime", "numpy", "shapely")),
                "python": platform.python_version(),
            },
            socket.gethostname(),
        )

    def run(self, task: SceneTask, number: int, received: Sequence[Piece] | None) -> Ran:
        """Read and run the tiles of a block.

        Args:
            task: the scene.
            number: of the block.
            received: what is handed on to it, where all of it is known: then the block is finished,
                too. Else it is held until `finish` or `drop`.

        Raises:
            DataError, PredictError, ExportError: as `run_streams` tells them.
        """
        taken: list[Divided] = []
        with self._opened(task).source() as source:
            scene = SceneStream(
                source, self.predictor.bundle.spec, task.plan, _nothing,
                threshold=task.threshold, glance=copy.deepcopy(task.glance),
                forgiving=task.forgiving, only=[number], divided=taken.append,
            )  # fmt: skip
            run_streams([scene], self.engine)
        if scene.error is not None:
            raise scene.error
        (divided,) = taken
        made = None
        if received is None:
            with self._lock:
                self._held[task.key, number] = divided
        else:
            made = self._make(task, divided, received)
        stats = scene.stats
        return Ran(
            divided.handed_on, made, stats.engine_seconds, stats.engine_px, tuple(scene.failed)
        )

    def finish(self, task: SceneTask, number: int, received: Sequence[Piece]) -> Made:
        """Finish a block that is held.

        Raises:
            ExportError: it cannot be kept.
        """
        with self._lock:
            divided = self._held.pop((task.key, number))
        return self._make(task, divided, received)

    def drop(self, task: SceneTask, number: int) -> None:
        """Let go of a block that is held."""
        with self._lock:
            self._held.pop((task.key, number), None)

    def _make(self, task: SceneTask, divided: Divided, received: Sequence[Piece]) -> Made:
        spec = self.predictor.bundle.spec
        part = divided.finish(task.plan, spec, received, task.threshold)
        outlines = None if task.tracing is None else part.block.traced(task.tracing)
        packed = pack(part)
        kept = task.parts is not None and task.parts.is_here
        if kept and task.parts is not None:
            task.parts.keep(divided.number, packed)
        return Made(packed, outlines, kept)

    def _opened(self, task: SceneTask) -> _Opened:
        """The scene as this worker has it open."""
        with self._lock:
            known = self._scenes.get(task.key)
            if known is None:
                if task.readable and not can_be_read(task.source):
                    raise DataError(
                        f"{task.source.name} cannot be read on {socket.gethostname()}.",
                        remedy="Put images where every machine finds them by the same path, or "
                        "name them by https:// or s3:// addresses.",
                    )
                known = self._scenes[task.key] = _Opened(task.source)
            self._scenes.move_to_end(task.key)
            while len(self._scenes) > _SCENES_KEPT:
                _, old = self._scenes.popitem(last=False)
                old.close()
        return known


class _Opened:
    """An image that several threads read, each by a copy of its own."""

    def __init__(self, source: RasterSource) -> None:
        self._source = source
        self._idle = [source]
        self._closed = False

    @contextmanager
    def source(self) -> Iterator[RasterSource]:
        own = self._idle.pop() if self._idle else copy.deepcopy(self._source)
        try:
            yield own
        finally:
            if self._closed:
                _close(own)
            else:
                self._idle.append(own)

    def close(self) -> None:
        self._closed = True
        for source in self._idle:
            _close(source)


def _close(source: RasterSource) -> None:
    getattr(source, "close", lambda: None)()


def can_be_read(source: RasterSource) -> bool:
    """Whether the first pixel of an image can be: what one machine reads, all of them have to."""
    try:
        source.read(Window(0, 0, 1, 1))
    except RooftraceError:
        return False
    return True


def _nothing(_: Block) -> None:
    raise AssertionError("a block was finished that should not have been")


class _OneAtATime:
    """An engine that several threads ask; see `Engine`."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self.name, self.precision = inner.name, inner.precision

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        with self._lock:
            return self._inner.run(batch)


class _OneAtATimeQuantised(_OneAtATime):
    """One that rounds inside its network."""

    def __init__(
        self, inner: Engine, quantised: Callable[[NDArray[Any]], NDArray[np.uint8]]
    ) -> None:
        super().__init__(inner)
        self._quantised = quantised

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        with self._lock:
            return self._quantised(batch)


def _one_at_a_time(engine: Engine) -> Engine:
    quantised = getattr(engine, "run_quantised", None)
    return _OneAtATime(engine) if quantised is None else _OneAtATimeQuantised(engine, quantised)


def described(facts: Facts, models: ModelSet) -> Predictor:
    """The model of a run whose engines are elsewhere."""
    told = _Elsewhere(facts)
    predictor = models.ready(lambda _: told)
    return Predictor(predictor.bundle, told)


class _Elsewhere:
    """An engine that runs on other machines; it tells what it is, and does nothing."""

    def __init__(self, facts: Facts) -> None:
        self.name = facts.engine
        self.precision = facts.precision
        self.settings = facts.settings
        self.notes = facts.notes

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        raise AssertionError("the engines of this run are on other machines")
