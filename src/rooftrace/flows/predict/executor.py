"""Executors of a run: they load the network, here or on a cluster, and run scenes through it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from rooftrace.core.parallel import core_count
from rooftrace.engines.base import engine_processor
from rooftrace.flows.predict.inputs import SceneInput
from rooftrace.flows.predict.run_folder import RunFolder
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.pipeline import run_scenes
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.scene_blocks import SceneBlocks
from rooftrace.predict.tta import TtaChoice

if TYPE_CHECKING:
    from rooftrace.core.processes import Processes
    from rooftrace.flows.predict.run import Executor, PredictRun
    from rooftrace.predict.cluster.pool import ClusterOptions

__all__ = ["LocalExecutor", "executing"]

_MIN_CORES = 4
"""Number of cores from which processes trace blocks. On fewer, the network uses them all."""

_MAX_PROCESSES = 8
"""Maximum number of these processes; more would wait for the blocks of the main process."""

_MODULES = ("rooftrace.predict.outputs", "geopandas")
"""Modules of what they do; otherwise each of them would import them for its first footprints."""


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
        # Imported when it is needed: a single image needs no processes.
        from rooftrace.flows.predict.image_processes import predict_small_images

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

                size = min(core_count() // 2, _MAX_PROCESSES)
                processes = stack.enter_context(Processes(size, _MODULES))
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
