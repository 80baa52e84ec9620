"""Prediction on a cluster: small scenes whole by one worker each, large ones block by block."""

from __future__ import annotations

import math
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rooftrace.core.errors import ExportError, RooftraceError
from rooftrace.core.text import plural, reason_of
from rooftrace.flows.predict.image_run import (
    PredictRun,
    SceneTask,
    SceneTaskResult,
    predict_task,
)
from rooftrace.flows.predict.inputs import WORK_FOLDER, SceneInput, sizes_px
from rooftrace.flows.predict.run_folder import (
    MADE,
    MadeImage,
    WorkerStore,
    is_shared,
    with_paths,
)
from rooftrace.io.files import export_error, write_atomically
from rooftrace.io.georeferenced import innermost
from rooftrace.io.service_raster import ServiceRaster
from rooftrace.predict.cluster import pool
from rooftrace.predict.cluster.driver import Driver, WorkerTask
from rooftrace.predict.cluster.worker import BlockWorker, remote_predictor
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.pipeline import SceneBlocks
from rooftrace.predict.plan import BLOCK_PX
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.tta import TtaChoice

__all__ = ["ClusterExecutor", "SceneTasks", "SceneWorker", "cluster_executor"]

_WHOLE_PX = 600 * 10**6
"""Maximum number of pixels of a scene that one worker predicts by itself in a run of several
scenes. If the worker is lost, at most a few minutes of work are lost."""

_BLOCK_WORKERS = 4
"""Maximum number of workers whose blocks one driver can receive and finish, see
docs/scale.md."""


@contextmanager
def cluster_executor(models: ModelSet, cluster: pool.ClusterOptions) -> Iterator[ClusterExecutor]:
    """Start the workers of a cluster, and keep them while the context is open; see `executing`.

    Args:
        models: Models to run.
        cluster: Options of the cluster.
    """
    with pool.RayPool(cluster, models, SceneWorker) as workers:
        driver = Driver(workers)
        yield ClusterExecutor(remote_predictor(driver.begin(), models), models.tta, driver)


@dataclass(frozen=True)
class ClusterExecutor:
    """Runs the network on a cluster; see `Executor`."""

    predictor: Predictor
    tta: TtaChoice | None
    driver: Driver

    def predict_whole(self, run: PredictRun, scenes: Sequence[SceneInput]) -> Sequence[SceneInput]:
        run.notes += _share_limits(scenes, self.driver.machines)
        if len(scenes) == 1:
            return scenes
        sizes = sizes_px(scenes)
        # All workers share a scene that is a large part of the run, so that none waits for it.
        fair_px = sum(sizes.values()) / min(self.driver.size, _BLOCK_WORKERS)
        limit_px = min(_WHOLE_PX, max(fair_px, BLOCK_PX**2))
        whole = [scene for scene in scenes if sizes[scene.name] <= limit_px]
        if whole:
            # The largest images come first, so that the run does not wait for one of them at its
            # end. Images that cannot be opened come before them.
            whole.sort(key=lambda scene: -(sizes[scene.name] or math.inf))
            sink = SceneTasks(run)
            self.driver.run_tasks(sink.tasks(whole), sink)
        return [scene for scene in scenes if sizes[scene.name] > limit_px]

    def run_scenes(self, scenes: Iterable[SceneBlocks]) -> Iterator[SceneBlocks]:
        return self.driver.run_scenes(scenes)

    def record(self) -> dict[str, Any]:
        driver = self.driver
        machines = {"nodes": driver.nodes, "machines": driver.machines}
        return {
            "processors": list(driver.processors),
            "notes": [*getattr(self.predictor.engine, "notes", ()), *driver.notes],
            "cluster": {**machines, **asdict(driver.tally)},
        }


def _share_limits(scenes: Sequence[SceneInput], machines: int) -> list[str]:
    """Divide the limits of requests to map services by the number of machines; return notes."""
    notes = []
    for service in dict.fromkeys(innermost(scene.source) for scene in scenes):
        if isinstance(service, ServiceRaster) and machines > 1:
            limits = service.share_limits(machines)
            count = plural(limits.connections, "request")
            notes.append(
                f"{service.name}: the limits of requests are divided by the {machines} machines of "
                f"the cluster. Each makes at most {count} at the same time and "
                f"{limits.per_second:.3g} per second."
            )
    return notes


class SceneTasks:
    """Images that single workers predict as a whole; see `TaskSink`.

    Args:
        run: Run that receives their results.
    """

    def __init__(self, run: PredictRun) -> None:
        self._run = run
        self._tasks: list[SceneTask] = []

    @property
    def wants_no_more(self) -> bool:
        return self._run.wants_no_more

    def tasks(self, scenes: Sequence[SceneInput]) -> Iterator[WorkerTask]:
        """Yield the tasks of the images; the next one is requested when a worker is free."""
        for scene in scenes:
            if self.wants_no_more:
                return
            if not self._run.resume(scene):
                self._tasks.append(self._run.task([scene]))
                yield WorkerTask(scene.shown, "scene", self._tasks[-1])

    def done(self, number: int, value: Any) -> None:
        assert isinstance(value, SceneTaskResult)
        try:
            result = replace(value, images=_moved(value, self._run.out))
        except RooftraceError as error:
            self.failed(number, error)
        else:
            self._run.receive(result, self._tasks[number])

    def failed(self, number: int, error: RooftraceError) -> None:
        self._run.failed[self._tasks[number].scenes[0].name] = error


def _moved(result: SceneTaskResult, out: Path) -> dict[str, MadeImage | RooftraceError]:
    """Move the files of a scene to the results folder; only its first result is moved.

    Returns:
        The images with the paths of the moved files.

    Raises:
        ExportError: The folder is not writable, or this machine has no access to the files.
    """
    ((name, made),) = result.images.items()
    if isinstance(made, RooftraceError):
        raise made
    folder = result.folder
    if result.contents is not None:
        for file, content in result.contents.items():
            write_atomically(out / file, content)
    else:
        try:
            for path in folder.iterdir():
                path.replace(out / path.name)
            folder.rmdir()
        except OSError as error:
            raise ExportError(
                f"The results of a worker in {folder} cannot be moved to {out}: "
                f"{reason_of(error)}.",
                remedy="Give all machines access to the folder, and run the command again.",
            ) from error
    moved = with_paths([made.files, dict(made.record)], folder, lambda file: str(out / file))
    return {name: MadeImage(*moved)}


class SceneWorker(BlockWorker):
    """Worker that predicts whole scenes, in addition to blocks."""

    def scene(self, task: SceneTask) -> SceneTaskResult:
        """Predict a scene, and write its files.

        Raises:
            RooftraceError: The scene cannot be predicted, or its files cannot be written.
        """
        work = task.out / WORK_FOLDER
        if not is_shared(task.out, task.run_id):
            with tempfile.TemporaryDirectory(prefix="rooftrace.") as name:
                folder = Path(name) / "results"
                folder.mkdir()
                made = self._predict(task, folder, Path(name))
                return replace(made, contents={p.name: p.read_bytes() for p in folder.iterdir()})
        # The user of the driver could not read a folder that `mkdtemp` creates.
        folder = work / f"{MADE}{uuid.uuid4().hex}"
        try:
            folder.mkdir()
        except OSError as error:
            raise export_error(work, error) from error
        try:
            return self._predict(task, folder, work)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _predict(self, task: SceneTask, folder: Path, work: Path) -> SceneTaskResult:
        store = WorkerStore(work, task.made_with)
        predictor = Predictor(self.predictor.bundle, self.engine)
        result = predict_task(predictor, task, store, task.scenes, folder, small_only=False)
        for made in result.images.values():
            if isinstance(made, RooftraceError):
                raise made
        return result
