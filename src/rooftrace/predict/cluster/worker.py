"""A worker of a cluster: it runs the tiles of a block, and finishes the block.

A block is finished once the halo outputs of all earlier blocks that count in it are known.
"""

from __future__ import annotations

import copy
import io
import os
import pickle
import platform
import socket
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.errors import DataError, RooftraceError
from rooftrace.core.machine import result_versions
from rooftrace.core.parallel import limit_cores
from rooftrace.core.types import RasterSource, Window
from rooftrace.engines.base import Engine, engine_processor, run_quantised
from rooftrace.io.georeferenced import close_source
from rooftrace.io.masks import NullMask
from rooftrace.predict.block import BlockParts, BlockTiles, Halo, TileOutput, TileStats
from rooftrace.predict.checkpoint import Checkpoint, CheckpointStore, pack
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.outputs import MemorySink, SceneOutputs
from rooftrace.predict.pipeline import run_block
from rooftrace.predict.plan import ScenePlan
from rooftrace.predict.predictor import Predictor

__all__ = [
    "BlockRunResult",
    "BlockWorker",
    "Facts",
    "PackedBlock",
    "SharedScene",
    "can_be_read",
    "packed",
    "remote_predictor",
]

_SCENES_KEPT = 4
"""Maximum number of scenes that a worker keeps open. Its blocks come from one scene, and for a
while from the scene before it."""


@dataclass(frozen=True)
class Facts:
    """Engine, software and processor of a worker.

    The workers of a run may differ in `node`, `notes` and `processor` only.

    Args:
        engine: Name of the engine.
        precision: Numeric precision of the engine.
        settings: Settings of the engine, for run.json.
        notes: Assumptions that the engine made.
        versions: Versions of the packages that results depend on.
        node: Host name of the machine.
        processor: Record of the processor, see `engine_processor`.
    """

    engine: str
    precision: str
    settings: Mapping[str, Any]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    node: str
    processor: Mapping[str, str] = field(default_factory=dict)

    def differs(self, other: Facts) -> str:
        """Return the first difference that may change results; "" if there is none."""
        for name in ("engine", "precision", "settings", "versions"):
            own, wanted = getattr(self, name), getattr(other, name)
            if own != wanted:
                return f"it has {name} {own}, but the worker on {other.node} has {wanted}"
        return ""


@dataclass(frozen=True)
class SharedScene:
    """A scene whose blocks several workers run.

    Args:
        key: Number of the scene in the run.
        plan: Plan of the scene. Every worker opens the source by itself.
        checkpoints: Store of finished blocks; None for a scene of one block.
        readable: Whether the driver can read the source, see `can_be_read`.
    """

    key: int
    plan: ScenePlan
    checkpoints: CheckpointStore | None
    readable: bool


@dataclass(frozen=True)
class PackedBlock:
    """A finished block on its way to the driver.

    Args:
        parts: Its contribution to the outputs of the scene.
        checkpoint: Bytes of the checkpoint, see `pack`; None if the worker has written it, or if
            none is needed.
    """

    parts: BlockParts
    checkpoint: bytes | None


@dataclass(frozen=True)
class BlockRunResult:
    """Result of running the tiles of a block.

    Args:
        halo: Outputs of its tiles that count in later blocks.
        finished: The finished block; None if halo outputs of earlier blocks are still missing.
        tiles: Counts over its tiles.
    """

    halo: Halo
    finished: PackedBlock | None
    tiles: TileStats


class BlockWorker:
    """An engine, and the blocks that wait for halo outputs of earlier blocks.

    Several threads may call it: one block is read while another block is in the network.

    Args:
        models: Models that the driver has read.
        threads: Maximum number of threads of the engine; None uses all cores.
        folder: Working directory of the driver, from which relative paths start.

    Raises:
        RooftraceError: The errors of `ModelSet.ready`.
    """

    def __init__(self, models: ModelSet, threads: int | None, folder: Path) -> None:
        if threads is not None:
            limit_cores(threads)
        if folder.is_dir():
            os.chdir(folder)
        self.predictor = models.ready()
        self.engine = _LockedEngine(self.predictor.engine)
        """The predictor's engine behind a lock, for several threads."""

        self._scenes: OrderedDict[int, _OpenScene] = OrderedDict()
        self._held: dict[tuple[int, int], BlockTiles] = {}
        self._lock = threading.Lock()

    def facts(self) -> Facts:
        """Return the engine and the software of this worker."""
        engine = self.predictor.engine
        return Facts(
            engine.name,
            engine.precision,
            getattr(engine, "settings", {}),
            tuple(getattr(engine, "notes", ())),
            result_versions() | {"python": platform.python_version()},
            socket.gethostname(),
            engine_processor(engine),
        )

    def run(
        self, scene: SharedScene, number: int, received: Sequence[TileOutput] | None
    ) -> BlockRunResult:
        """Read and run the tiles of a block.

        Args:
            scene: The scene.
            number: Number of the block.
            received: All halo outputs of earlier blocks that count in this block. It is then
                finished at once. None if some are still missing; the worker then holds the
                block until `finish` or `drop`.

        Raises:
            DataError, PredictError, ExportError: See `pipeline.run`.
        """
        with self._opened(scene).source() as source:
            tiles = run_block(scene.plan.for_source(source), number, self.engine)
        finished = None
        if received is None:
            with self._lock:
                self._held[scene.key, number] = tiles
        else:
            finished = self._finish(scene, tiles, received)
        return BlockRunResult(tiles.halo, finished, tiles.tiles)

    def finish(
        self, scene: SharedScene, number: int, received: Sequence[TileOutput]
    ) -> PackedBlock:
        """Finish a block that is held.

        Raises:
            ExportError: Its checkpoint cannot be written.
        """
        with self._lock:
            tiles = self._held.pop((scene.key, number))
        return self._finish(scene, tiles, received)

    def drop(self, scene: SharedScene, number: int) -> None:
        """Forget a block that is held."""
        with self._lock:
            self._held.pop((scene.key, number), None)

    def call(self, content: bytes) -> bytes:
        """Make a call, whose function and arguments the driver has packed; see `WorkerCalls`."""
        work, given = pickle.loads(content)  # noqa: S301  # nosec B301
        return packed(work(*given))

    def _finish(
        self, scene: SharedScene, tiles: BlockTiles, received: Sequence[TileOutput]
    ) -> PackedBlock:
        block = tiles.finish(scene.plan, received)
        parts = self._opened(scene).outputs.parts(block)
        if scene.checkpoints is None:
            return PackedBlock(parts, None)
        packed = pack(Checkpoint(block, tiles.halo))
        if not scene.checkpoints.is_visible:
            return PackedBlock(parts, packed)
        scene.checkpoints.save_packed(tiles.number, packed)
        return PackedBlock(parts, None)

    def _opened(self, scene: SharedScene) -> _OpenScene:
        """Return a scene whose source this worker keeps open."""
        with self._lock:
            known = self._scenes.get(scene.key)
            if known is None:
                if scene.readable and not can_be_read(scene.plan.source):
                    raise DataError(
                        f"{scene.plan.source.name} cannot be read on {socket.gethostname()}.",
                        remedy="Put the images in a folder that every machine sees at the same "
                        "path, or give https:// or s3:// URLs.",
                    )
                known = self._scenes[scene.key] = _OpenScene(scene.plan)
            self._scenes.move_to_end(scene.key)
            while len(self._scenes) > _SCENES_KEPT:
                _, old = self._scenes.popitem(last=False)
                old.close()
        return known


class _OpenScene:
    """A scene whose image several threads read, each through a copy of its own."""

    def __init__(self, plan: ScenePlan) -> None:
        self.outputs = SceneOutputs(plan, MemorySink(NullMask()))
        """Outputs of which only the parts of blocks are made."""

        self._source = plan.source
        self._idle = [plan.source]
        self._closed = False

    @contextmanager
    def source(self) -> Iterator[RasterSource]:
        own = self._idle.pop() if self._idle else copy.deepcopy(self._source)
        try:
            yield own
        finally:
            if self._closed:
                close_source(own)
            else:
                self._idle.append(own)

    def close(self) -> None:
        self._closed = True
        for source in self._idle:
            close_source(source)


class _Pickler(pickle.Pickler):
    """Encodes all polygons of an array at once; one by one takes many times as long."""

    def reducer_override(self, value: Any) -> Any:
        is_array = isinstance(value, np.ndarray) and value.dtype == object and value.size > 0
        if is_array and shapely.is_geometry(value).all():
            return shapely.from_wkb, (shapely.to_wkb(value).tolist(),)
        return NotImplemented


def packed(value: Any) -> bytes:
    """Return a function, its arguments or its result as bytes, for `pickle.loads`."""
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def can_be_read(source: RasterSource) -> bool:
    """Return True if the first pixel of an image can be read.

    Every worker must be able to read what the driver can read.
    """
    try:
        source.read(Window(0, 0, 1, 1))
    except RooftraceError:
        return False
    return True


class _LockedEngine:
    """An engine that several threads share: a lock lets in one call at a time. See `Engine`."""

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self.name, self.precision = inner.name, inner.precision

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        with self._lock:
            return self._inner.run(batch)

    def run_quantised(self, batch: NDArray[Any]) -> NDArray[np.uint8]:
        """Return probabilities as 255ths."""
        with self._lock:
            return run_quantised(self._inner, batch)


def remote_predictor(facts: Facts, models: ModelSet) -> Predictor:
    """Return the predictor of a run whose engines are on other machines."""
    engine = _RemoteEngine(facts)
    predictor = models.ready(lambda _: engine)
    return Predictor(predictor.bundle, engine)


class _RemoteEngine:
    """Description of the engines that run on other machines; it runs nothing itself."""

    def __init__(self, facts: Facts) -> None:
        self.name = facts.engine
        self.precision = facts.precision
        self.settings = facts.settings
        self.notes = facts.notes

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        raise AssertionError("the engines of this run are on other machines")
