"""Executors of a run: they load the network, here or on a cluster, and run scenes through it.

Beside its network, a small image costs some milliseconds of Python, in which threads take turns.
Where a run has many of them, a process for each core or two does all of its images by itself, and
this one keeps the record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

import cv2

from rooftrace.core.errors import PredictError
from rooftrace.core.parallel import core_count, limit_cores
from rooftrace.engines.base import engine_processor
from rooftrace.flows.predict.image_run import (
    PredictRun,
    SceneTask,
    SceneTaskResult,
    predict_task,
)
from rooftrace.flows.predict.inputs import WORK_FOLDER, SceneInput
from rooftrace.flows.predict.run_folder import WorkerStore
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.pipeline import SceneBlocks, run_scenes
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.tta import TtaChoice

if TYPE_CHECKING:
    from rooftrace.core.processes import Processes
    from rooftrace.flows.predict.cluster import ClusterOptions


_MIN_CORES = 4
"""Number of cores from which processes trace blocks. On fewer, the network uses them all."""

_MAX_TRACING = 8
"""Maximum number of these processes; more would wait for the blocks of the main process."""

_TRACING_MODULES = ("rooftrace.predict.outputs", "geopandas")
"""Modules of what they do; otherwise each of them would import them for its first footprints."""

_MIN_PX = 150 * 10**6
"""Number of pixels of all images from which processes predict them; with fewer, the run ends
before it gains what their start takes."""

_MASK_CORES = 4
"""Number of cores from which processes predict masks alone, which take less beside the network."""

_SMALL_PX = 512**2
"""Mean number of pixels of an image up to which processes predict them. The network is a larger
part of the work on larger ones, and needs more memory for each process."""

_MAX_PROCESSES = 16
"""Maximum number of processes. Each of them takes the memory of an engine."""

_GROUP = 64
"""Number of images that a process predicts at a time. Engines compile the network for each number
of tiles, and at the end of a group it is another one."""

_MODULES = (__name__, "geopandas")
"""Modules that all processes need, imported once."""


class Executor(Protocol):
    """Runs the network on scenes, in this process or on a cluster."""

    @property
    def predictor(self) -> Predictor:
        """Model of the run; its engine may be on other machines."""
        ...

    @property
    def tta(self) -> TtaChoice | None:
        """Test-time augmentation that was asked for; None for that of the models."""
        ...

    def predict_whole(self, run: PredictRun, scenes: Sequence[SceneInput]) -> Sequence[SceneInput]:
        """Predict the scenes that one worker predicts by itself, and return the others.

        Args:
            run: Run that receives the results; its `total_px` is known.
            scenes: All scenes of the run.
        """
        ...

    def run_scenes(self, scenes: Iterable[SceneBlocks]) -> Iterator[SceneBlocks]:
        """Predict scenes block by block and yield them in order, see `pipeline.run_scenes`."""
        ...

    def record(self) -> dict[str, Any]:
        """Return fields of run.json: `processors` that have run the network, `notes` and others."""
        ...


@dataclass(frozen=True)
class LocalExecutor:
    """Runs the network in this process; see `Executor`."""

    predictor: Predictor
    tta: TtaChoice | None = None
    models: ModelSet | None = None
    """Models for the engines of processes that predict small images; None for this one alone."""

    start: Callable[[], Processes] | None = None
    """Function that returns the processes that trace the blocks of large scenes; None for this
    process alone."""

    def predict_whole(self, run: PredictRun, scenes: Sequence[SceneInput]) -> Sequence[SceneInput]:
        """Predict the small images of a run in processes, if there are many.

        The results have the same bytes as those of this process. If a process ends unexpectedly,
        the images that are not finished are returned.
        """
        cores = core_count()
        mean_px = run.total_px / max(len(scenes), 1)
        least = 2 if {*run.options.outputs} - {"mask"} else _MASK_CORES
        if self.models is None or len(scenes) == 1 or run.segmenter is not None:
            return scenes
        if cores < least or mean_px > _SMALL_PX:
            return scenes
        scenes = [scene for scene in scenes if not run.resume(scene)]
        if len(scenes) * mean_px < _MIN_PX:
            return scenes
        from rooftrace.core.processes import Processes

        size = min(cores, _MAX_PROCESSES)
        begin = partial(_begin, self.models, max(1, cores // size))
        with Processes(size, _MODULES, begin) as processes:
            return _predict_groups(run, processes, scenes)

    def run_scenes(self, scenes: Iterable[SceneBlocks]) -> Iterator[SceneBlocks]:
        return run_scenes(map(self._with_processes, scenes), self.predictor.engine)

    def record(self) -> dict[str, Any]:
        engine = self.predictor.engine
        # The engine adds notes while it runs.
        notes = list(getattr(engine, "notes", ()))
        return {"processors": [engine_processor(engine)], "notes": notes}

    def _with_processes(self, scene: SceneBlocks) -> SceneBlocks:
        if self.start is not None and scene.plan.block_count > 1:
            processes = self.start()
            # After one was lost, this process goes on alone with the scenes that follow.
            if not processes.has_lost:
                scene.workers = processes
        return scene


@contextmanager
def executing(models: ModelSet, cluster: ClusterOptions | None = None) -> Iterator[Executor]:
    """Load the engines of models, and keep them ready while the context is open.

    Args:
        models: Models to run.
        cluster: Cluster to run on; None for this process.

    Raises:
        MissingExtraError: The cluster's package is not installed.
        ConfigError: No cluster answers, or it does not have the requested resources.
        PredictError: No worker starts.
        BundleError, GsdMismatch: See `ModelSet.ready`.
    """
    if cluster is not None:
        from rooftrace.flows.predict.cluster import cluster_executor

        with cluster_executor(models, cluster) as executor:
            yield executor
        return
    with ExitStack() as stack:

        @cache
        def start() -> Processes:
            # Imported when it is needed: a single image needs no processes.
            from rooftrace.core.processes import Processes

            size = min(core_count() // 2, _MAX_TRACING)
            processes = stack.enter_context(Processes(size, _TRACING_MODULES))
            processes.start()
            return processes

        predictor = models.ready()
        # Processes for each core could not share a GPU.
        is_gpu = not engine_processor(predictor.engine)["instruction_set"]
        yield LocalExecutor(
            predictor, models.tta,
            None if is_gpu else models, start if core_count() >= _MIN_CORES else None,
        )  # fmt: skip


def _predict_groups(
    run: PredictRun, processes: Processes, scenes: Sequence[SceneInput]
) -> Sequence[SceneInput]:
    """Predict images by processes, group by group, and return those that are left to this one."""
    in_work: deque[tuple[SceneTask, Future[SceneTaskResult]]] = deque()
    left: list[SceneInput] = []

    def take(most: int) -> None:
        """Add finished groups to the run, until `most` are in work."""
        while in_work and (len(in_work) > most or in_work[0][1].done()):
            wait([in_work[0][1]])
            task, future = in_work.popleft()
            try:
                left.extend(run.receive(future.result(), task))
            except PredictError:
                if not processes.has_lost:
                    raise
                left.extend(task.scenes)

    try:
        for first in range(0, len(scenes), _GROUP):
            if run.wants_no_more:
                break
            task = run.task(scenes[first : first + _GROUP])
            in_work.append((task, processes.submit(_predict, task)))
            take(2 * processes.size - 1)
        take(0)
    except BaseException:
        # After Ctrl-C, images that are as good as finished need not be made again.
        processes.stop()
        take(0)
        raise
    if processes.has_lost:
        run.notes.append(
            "A process that predicted images ended unexpectedly, perhaps because the memory "
            "was used up. The other images were predicted without processes."
        )
    return left


_LOADED: list[Predictor] = []
"""Model of a process."""


def _begin(models: ModelSet, cores: int) -> None:
    """Load the model; called first in each process."""
    limit_cores(cores)
    cv2.setNumThreads(cores)
    _LOADED.append(models.ready())


def _predict(task: SceneTask) -> SceneTaskResult:
    """Predict a group in a process."""
    from rooftrace.core.processes import is_stopping

    work = task.out / WORK_FOLDER
    store = WorkerStore(work, task.made_with, work)
    wanted = takewhile(lambda _: not is_stopping(), task.scenes)
    return predict_task(_LOADED[0], task, store, wanted, task.out, small_only=True)
