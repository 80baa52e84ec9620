"""What the workers of a cluster do: run and finish blocks, predict whole scenes, and make calls.

Ray runs each of these tasks in a process that it uses again for the next one, so that the model and
the last scene are kept there.
"""

from __future__ import annotations

import io
import os
import pickle
import platform
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from rooftrace.core.errors import ConfigError, DataError, RooftraceError
from rooftrace.core.parallel import limit_cores
from rooftrace.core.system import result_versions
from rooftrace.core.types import RasterSource, Window
from rooftrace.engines.base import engine_processor
from rooftrace.flows.predict.image_run import SceneTask, SceneTaskResult, predict_task
from rooftrace.flows.predict.run_folder import WorkerStore
from rooftrace.io.georeferenced import close_source
from rooftrace.predict.block import BlockParts, BlockTiles, Halo
from rooftrace.predict.checkpoint import Checkpoint, CheckpointStore, pack
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.outputs import SceneOutputs
from rooftrace.predict.pipeline import run_block
from rooftrace.predict.plan import ScenePlan
from rooftrace.predict.predictor import Predictor


@dataclass(frozen=True)
class Facts:
    """Engine, software and processor of a machine.

    The machines of a run may differ in `node`, `notes` and `processor` only.

    Args:
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
    processor: Mapping[str, str]

    @classmethod
    def of(cls, predictor: Predictor) -> Facts:
        """Return the facts of this machine."""
        engine = predictor.engine
        return cls(
            engine.name,
            engine.precision,
            engine.settings,
            tuple(engine.notes),
            result_versions() | {"python": platform.python_version()},
            socket.gethostname(),
            engine_processor(engine),
        )

    def check_equals(self, first: Facts) -> None:
        """Check that a machine gives the same results as the first one."""
        for name in ("engine", "precision", "settings", "versions"):
            value, expected = getattr(self, name), getattr(first, name)
            if value != expected:
                raise ConfigError(
                    f"{self.node} has {name} {value}, but {first.node} has {expected}; their "
                    "results could differ.",
                    remedy="Install the same versions on all machines, or leave this one out.",
                )


@dataclass(frozen=True)
class ClusterJob:
    """What every task of a run needs.

    Args:
        key: Key of the run, by which a worker knows it again.
        models: Reference of the models; each machine receives them once.
        threads: Maximum number of threads of an engine; None uses all cores.
        folder: Working directory of the driver, from which relative paths start.
        facts: Facts of the first machine; None before they are known.
    """

    key: str
    models: Any
    threads: int | None
    folder: Path
    facts: Facts | None = None


@dataclass(frozen=True)
class SharedScene:
    """A scene whose blocks several workers run.

    Args:
        key: Key of the scene, by which a worker knows it again.
        folder: Working directory of the driver.
        plan: Plan of the scene. Every worker opens the source by itself.
        checkpoints: Store of finished blocks; None for a scene of one block.
        is_readable: Whether the driver can read the source, see `can_be_read`.
    """

    key: str
    folder: Path
    plan: ScenePlan
    checkpoints: CheckpointStore | None
    is_readable: bool


_LOADED: dict[str, tuple[Predictor, Facts]] = {}
"""Model and facts of this worker by the key of the run."""

_OPENED: dict[str, SceneOutputs] = {}
"""Outputs of the scene whose blocks this worker has run last, by the key of the scene."""


def _loaded(job: ClusterJob) -> Predictor:
    """Return the model of a run in this worker, and load it first if it is a new run."""
    if job.key not in _LOADED:
        import ray

        _LOADED.clear()
        if job.threads is not None:
            limit_cores(job.threads)
        _enter(job.folder)
        models: ModelSet = ray.get(job.models)
        ready = models.ready()
        _LOADED[job.key] = ready, Facts.of(ready)
    predictor, facts = _LOADED[job.key]
    if job.facts is not None:
        facts.check_equals(job.facts)
    return predictor


def _enter(folder: Path) -> None:
    """Make relative paths start where those of the driver do."""
    if folder.is_dir():
        os.chdir(folder)


def _outputs(scene: SharedScene) -> SceneOutputs:
    """Return the outputs of a scene, of which only the parts of blocks are made."""
    if scene.key not in _OPENED:
        for outputs in _OPENED.values():
            close_source(outputs.plan.source)
        _OPENED.clear()
        _enter(scene.folder)
        _OPENED[scene.key] = SceneOutputs(scene.plan)
    return _OPENED[scene.key]


def worker_facts(job: ClusterJob) -> Facts:
    """Load the model of a run, and return the facts of this machine."""
    _loaded(job)
    return _LOADED[job.key][1]


def run_tiles(job: ClusterJob, scene: SharedScene, number: int) -> tuple[BlockTiles, Halo]:
    """Read and run the tiles of a block; the second value goes to later blocks."""
    predictor = _loaded(job)
    if scene.key not in _OPENED and scene.is_readable and not can_be_read(scene.plan.source):
        raise DataError(
            f"{scene.plan.source.name} cannot be read on {socket.gethostname()}.",
            remedy="Put the images in a folder that every machine sees at the same path, or give "
            "https:// or s3:// URLs.",
        )
    tiles = run_block(_outputs(scene).plan, number, predictor.engine)
    return replace(tiles, halo=()), tiles.halo


def finish_block(
    scene: SharedScene, tiles: BlockTiles, own: Halo, *halos: Halo
) -> tuple[BlockParts, bytes | None]:
    """Finish a block with the halo outputs of earlier blocks.

    Returns:
        Its contribution to the outputs of the scene, and the bytes of its checkpoint; None if this
        machine has written it, or if none is needed.
    """
    outputs = _outputs(scene)
    received = [output for halo in halos for target, output in halo if target == tiles.number]
    block = tiles.finish(outputs.plan, received)
    parts = outputs.parts(block)
    if scene.checkpoints is None:
        return parts, None
    packed_block = pack(Checkpoint(block, own))
    if not scene.checkpoints.is_visible:
        return parts, packed_block
    scene.checkpoints.save_packed(tiles.number, packed_block)
    return parts, None


def make_call(content: bytes) -> bytes:
    """Make a call, whose function and arguments the driver has packed; see `Workers`."""
    work, given = pickle.loads(content)  # noqa: S301  # nosec B301  # of our own
    return packed(work(*given))


def predict_scene(job: ClusterJob, task: SceneTask) -> SceneTaskResult:
    """Predict a scene, and return it with the bytes of its files."""
    predictor = _loaded(job)
    with tempfile.TemporaryDirectory(prefix="rooftrace.") as name:
        folder = Path(name)
        result = predict_task(predictor, task, WorkerStore(), task.scenes, folder, small_only=False)
        return replace(result, contents={p.name: p.read_bytes() for p in folder.iterdir()})


def can_be_read(source: RasterSource) -> bool:
    """Return True if the first pixel of an image can be read.

    Every worker must be able to read what the driver can read.
    """
    try:
        source.read(Window(0, 0, 1, 1))
    except RooftraceError:
        return False
    return True


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
