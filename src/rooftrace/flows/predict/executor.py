"""Executors of a run: they load the network, here or on a cluster, and run scenes through it.

Beside its network, a small image costs some milliseconds of Python, in which threads take turns.
Where a run has many of them, a process for each core or two does all of its images by itself, and
this one keeps the record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.core.machine import peak_rss_mb
from rooftrace.core.parallel import core_count, limit_cores
from rooftrace.engines.base import engine_processor
from rooftrace.flows.predict.image_run import PredictRun, RunOptions
from rooftrace.flows.predict.inputs import SceneInput
from rooftrace.flows.predict.run_folder import MadeImage, RunFolder, WorkerStore, work_of
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.pipeline import SceneBlocks, run_scenes
from rooftrace.predict.plan import SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.tta import TtaChoice

if TYPE_CHECKING:
    from rooftrace.core.processes import Processes
    from rooftrace.predict.cluster.pool import ClusterOptions

__all__ = ["Executor", "LocalExecutor", "executing", "predict_small_images"]

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

    @property
    def processors(self) -> Sequence[Mapping[str, str]]:
        """Records of the processors that have run the network, for run.json."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Notes on the run for the user."""
        ...

    def predict_whole(
        self, run: PredictRun, folder: RunFolder, scenes: Sequence[SceneInput]
    ) -> Sequence[SceneInput]:
        """Predict the scenes that one worker predicts by itself, and return the others.

        Args:
            run: Run that receives the results.
            folder: Folder of the run.
            scenes: All scenes of the run.
        """
        ...

    def run_scenes(self, scenes: Iterable[SceneBlocks]) -> Iterator[SceneBlocks]:
        """Predict scenes block by block and yield them in order, see `pipeline.run_scenes`."""
        ...

    def record(self) -> dict[str, Any]:
        """Return the fields that describe the executor in run.json."""
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

    @property
    def notes(self) -> Sequence[str]:
        return ()

    @property
    def processors(self) -> Sequence[Mapping[str, str]]:
        return [engine_processor(self.predictor.engine)]

    def predict_whole(
        self, run: PredictRun, folder: RunFolder, scenes: Sequence[SceneInput]
    ) -> Sequence[SceneInput]:
        if self.models is None or len(scenes) == 1:
            return scenes
        return predict_small_images(run, folder, scenes, self.models)

    def run_scenes(self, scenes: Iterable[SceneBlocks]) -> Iterator[SceneBlocks]:
        return run_scenes(self._with_processes(scenes), self.predictor.engine)

    def record(self) -> dict[str, Any]:
        return {}

    def _with_processes(self, scenes: Iterable[SceneBlocks]) -> Iterator[SceneBlocks]:
        for blocks in scenes:
            if self.start is not None and blocks.plan.block_count > 1:
                processes = self.start()
                # After one was lost, this process goes on alone with the scenes that follow.
                if not processes.has_lost:
                    blocks.workers = processes
            yield blocks


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
    if cluster is None:
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
            is_gpu = not engine_processor(predictor.engine)["instruction_set"]
            local = LocalExecutor(
                predictor, models.tta,
                None if is_gpu else models, start if core_count() >= _MIN_CORES else None,
            )  # fmt: skip
            yield local
        return
    from rooftrace.flows.predict.cluster import cluster_executor

    with cluster_executor(models, cluster) as executor:
        yield executor


def predict_small_images(
    run: PredictRun,
    folder: RunFolder,
    scenes: Sequence[SceneInput],
    models: ModelSet,
) -> Sequence[SceneInput]:
    """Predict the small images of a run in processes, if there are many, and return the others.

    The results have the same bytes as those of this process. If a process ends unexpectedly, the
    images that are not finished are returned.

    Args:
        run: Run that receives the results; its `total_px` is known.
        folder: Folder of the run.
        scenes: All images of the run.
        models: Models to run; not on a GPU, which a process for each core could not share.
    """
    cores = core_count()
    mean_px = run.total_px / max(len(scenes), 1)
    least = 2 if {*run.options.outputs} - {"mask"} else _MASK_CORES
    if cores < least or run.segmenter is not None or mean_px > _SMALL_PX:
        return scenes
    scenes = [scene for scene in scenes if not run.resume(scene)]
    if len(scenes) * mean_px < _MIN_PX:
        return scenes
    from rooftrace.core.processes import Processes

    size = min(cores, _MAX_PROCESSES)
    begin = partial(_begin, models, max(1, cores // size))
    with Processes(size, _MODULES, begin) as processes:
        return _predict_groups(run, folder, processes, scenes)


@dataclass(frozen=True)
class _Group:
    """Images that a process predicts; picklable.

    Args:
        scenes: The images.
        out: Folder for the results.
        options: Options of every scene.
        run_options: Conduct of the run.
        made_with: See `RunFolder`.
    """

    scenes: Sequence[SceneInput]
    out: Path
    options: SceneOptions
    run_options: RunOptions
    made_with: Mapping[str, Any]


@dataclass(frozen=True)
class _GroupResult:
    """Result of a group; picklable.

    Args:
        images: Finished images by name, and errors of images that failed. The others need several
            blocks, or were not started.
        notes: Notes for the user.
        peak_mb: Peak memory of the process so far, in MB.
    """

    images: Mapping[str, MadeImage | RooftraceError]
    notes: Sequence[str]
    peak_mb: float


def _predict_groups(
    run: PredictRun, folder: RunFolder, processes: Processes, scenes: Sequence[SceneInput]
) -> Sequence[SceneInput]:
    """Predict images by processes, group by group, and return those that are left to this one."""
    in_work: deque[tuple[Sequence[SceneInput], Sequence[str], Future[_GroupResult]]] = deque()
    left: list[SceneInput] = []

    def take(most: int) -> None:
        """Add finished groups to the run, until `most` are in work."""
        while in_work and (len(in_work) > most or in_work[0][2].done()):
            wait([in_work[0][2]])
            group, stamps, future = in_work.popleft()
            try:
                result = future.result()
            except PredictError:
                if not processes.has_lost:
                    raise
                left.extend(group)
                continue
            run.notes += result.notes
            run.others_mb = max(run.others_mb, result.peak_mb)
            for scene, stamp in zip(group, stamps):
                made = result.images.get(scene.name)
                if made is None:
                    left.append(scene)
                elif isinstance(made, RooftraceError):
                    run.fail(scene, made)
                else:
                    run.receive(scene, made.files, made.record, stamp)

    run_options = replace(run.run_options, on_done=None, progress=None)
    try:
        for first in range(0, len(scenes), _GROUP):
            if run.wants_no_more:
                break
            group = scenes[first : first + _GROUP]
            work = _Group(group, run.out, run.options, run_options, folder.made_with)
            stamps = [scene.stamp for scene in group]
            in_work.append((group, stamps, processes.submit(_predict, work)))
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


def _predict(group: _Group) -> _GroupResult:
    """Predict a group in a process."""
    from rooftrace.core.processes import is_stopping

    (predictor,) = _LOADED
    work = work_of(group.out)
    store = WorkerStore(work, group.made_with, work)
    run = PredictRun(predictor, group.out, group.options, store, group.run_options, small_only=True)
    wanted = takewhile(lambda _: not is_stopping(), group.scenes)
    run.predict(wanted, lambda scenes: run_scenes(scenes, predictor.engine))
    failed = {name: one.error for name, one in run.failed.items()}
    return _GroupResult({**store.made, **failed}, tuple(run.notes), peak_rss_mb())
