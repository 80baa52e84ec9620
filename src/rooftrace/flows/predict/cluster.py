"""Prediction on a cluster: small scenes whole by one worker each, large ones block by block."""

from __future__ import annotations

import math
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rooftrace.core.errors import ExportError, RooftraceError
from rooftrace.core.text import plural, reason_of
from rooftrace.flows.predict.image_run import PredictRun
from rooftrace.flows.predict.inputs import SceneInput, sizes_px
from rooftrace.flows.predict.run_folder import (
    MADE,
    RunFolder,
    WorkerStore,
    is_shared,
    work_of,
)
from rooftrace.io.files import write_atomically
from rooftrace.io.georeferenced import innermost
from rooftrace.io.service_raster import ServiceRaster
from rooftrace.predict.cluster import pool
from rooftrace.predict.cluster.driver import Driver, WorkerTask
from rooftrace.predict.cluster.worker import BlockWorker, remote_predictor
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.pipeline import SceneBlocks, run_scenes
from rooftrace.predict.plan import BLOCK_PX, SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.tta import TtaChoice

__all__ = [
    "ClusterExecutor",
    "SceneTask",
    "SceneTaskResult",
    "SceneTasks",
    "SceneWorker",
    "cluster_executor",
]

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

    @property
    def processors(self) -> Sequence[Mapping[str, str]]:
        return self.driver.processors

    @property
    def notes(self) -> Sequence[str]:
        return self.driver.notes

    def predict_whole(
        self, run: PredictRun, folder: RunFolder, scenes: Sequence[SceneInput]
    ) -> Sequence[SceneInput]:
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
            sink = SceneTasks(run, folder)
            self.driver.run_tasks(sink.tasks(whole), sink)
        return [scene for scene in scenes if sizes[scene.name] > limit_px]

    def run_scenes(self, scenes: Iterable[SceneBlocks]) -> Iterator[SceneBlocks]:
        return self.driver.run_scenes(scenes)

    def record(self) -> dict[str, Any]:
        driver = self.driver
        machines = {"nodes": driver.nodes, "machines": driver.machines}
        return {"cluster": {**machines, **asdict(driver.tally)}}


def _share_limits(scenes: Sequence[SceneInput], machines: int) -> list[str]:
    """Divide the limits of requests to map services by the number of machines; return notes."""
    notes: dict[str, None] = {}
    images = (innermost(scene.source) for scene in scenes)
    services = [image for image in images if isinstance(image, ServiceRaster)]
    for service in services if machines > 1 else ():
        limits = service.share_limits(machines)
        notes[
            f"{service.name}: the limits of requests are divided by the {machines} machines of the "
            f"cluster. Each makes at most {plural(limits.connections, 'request')} at the same time "
            f"and {limits.per_second:.3g} per second."
        ] = None
    return list(notes)


@dataclass(frozen=True)
class SceneTask:
    """Scene that a worker predicts.

    Args:
        scene: Scene to predict.
        options: Options of the scene.
        out: Results folder of the run; the worker may or may not have access to it.
        run_id: Id by which the worker recognises the folder.
        made_with: Everything except the image on which results depend, see `RunFolder`.
    """

    scene: SceneInput
    options: SceneOptions
    out: Path
    run_id: str
    made_with: Mapping[str, Any]


@dataclass(frozen=True)
class SceneTaskResult:
    """Result of a worker's prediction of a scene.

    Args:
        folder: Folder of the files, on this machine or on the worker.
        files: Names of the files.
        record: Record of the scene.
        notes: Notes for the user.
        resumed_blocks, resumed_px: Numbers of blocks and of their pixels that another worker or run
            finished.
        contents: Contents of the files by name; None if the worker has access to the results
            folder.
    """

    folder: Path
    files: tuple[str, ...]
    record: Mapping[str, Any]
    notes: tuple[str, ...]
    resumed_blocks: int
    resumed_px: int
    contents: Mapping[str, bytes] | None = None

    def put(self, out: Path) -> tuple[list[str], dict[str, Any]]:
        """Move the files to the results folder; only the first result of a scene is moved.

        Returns:
            Paths of the results, and the record with these paths.

        Raises:
            ExportError: The folder is not writable, or this machine has no access to the files.
        """
        if self.contents is not None:
            for name, content in self.contents.items():
                write_atomically(out / name, content)
        else:
            try:
                for path in self.folder.iterdir():
                    path.replace(out / path.name)
                self.folder.rmdir()
            except OSError as error:
                raise ExportError(
                    f"The results of a worker in {self.folder} cannot be moved to {out}: "
                    f"{reason_of(error)}.",
                    remedy="Give all machines access to the folder, and run the command again.",
                ) from error
        record: dict[str, Any] = _with_folder(dict(self.record), self.folder, out)
        return [str(out / name) for name in self.files], record


class SceneTasks:
    """Images that single workers predict as a whole; see `TaskSink`.

    Args:
        run: Run that receives their results.
        folder: Folder of the run.
    """

    def __init__(self, run: PredictRun, folder: RunFolder) -> None:
        self._run = run
        self._folder = folder
        self._scenes: list[SceneInput] = []
        self._stamps: list[str] = []

    @property
    def wants_no_more(self) -> bool:
        return self._run.wants_no_more

    def tasks(self, scenes: Sequence[SceneInput]) -> Iterator[WorkerTask]:
        """Yield the tasks of the images; the next one is requested when a worker is free."""
        run = self._run
        for scene in scenes:
            if self.wants_no_more:
                return
            if run.resume(scene):
                continue
            run.notes += scene.notes
            self._scenes.append(scene)
            self._stamps.append(scene.stamp)
            given = SceneTask(
                scene, run.options, run.out.absolute(), self._folder.run_id, self._folder.made_with
            )
            yield WorkerTask(scene.shown, "scene", given)

    def done(self, number: int, value: Any) -> None:
        assert isinstance(value, SceneTaskResult)
        scene, run = self._scenes[number], self._run
        run.notes += value.notes
        run.resumed_blocks += value.resumed_blocks
        run.resumed_px += value.resumed_px
        try:
            files, record = value.put(run.out)
        except RooftraceError as error:
            self.failed(number, error)
        else:
            run.receive(scene, files, record, self._stamps[number])

    def failed(self, number: int, error: RooftraceError) -> None:
        self._run.fail(self._scenes[number], error)


class SceneWorker(BlockWorker):
    """Worker that predicts whole scenes, in addition to blocks."""

    def scene(self, task: SceneTask) -> SceneTaskResult:
        """Predict a scene, and write its files.

        Raises:
            RooftraceError: The scene cannot be predicted, or its files cannot be written.
        """
        if is_shared(task.out, task.run_id):
            with _folder_in(work_of(task.out)) as folder:
                return self._predict(task, folder, work_of(task.out))
        with tempfile.TemporaryDirectory(prefix="rooftrace.") as name:
            folder = Path(name) / "results"
            folder.mkdir()
            made = self._predict(task, folder, Path(name))
            return replace(made, contents={p.name: p.read_bytes() for p in folder.iterdir()})

    def _predict(self, task: SceneTask, folder: Path, work: Path) -> SceneTaskResult:
        store = WorkerStore(work, task.made_with)
        predictor = Predictor(self.predictor.bundle, self.engine)
        run = PredictRun(predictor, folder, task.options, store)
        run.predict([task.scene], lambda scenes: run_scenes(scenes, self.engine))
        if run.failed:
            (failed,) = run.failed.values()
            raise failed.error
        (made,) = store.made.values()
        files = tuple(Path(file).name for file in made.files)
        return SceneTaskResult(
            folder, files, made.record, tuple(run.notes), run.resumed_blocks, run.resumed_px
        )


@contextmanager
def _folder_in(work: Path) -> Iterator[Path]:
    """Create a folder and yield its path; an error in the context removes it.

    Args:
        work: Parent folder.

    Raises:
        ExportError: The folder cannot be created.
    """
    # The user of the driver could not read a folder that `mkdtemp` creates.
    folder = work / f"{MADE}{uuid.uuid4().hex}"
    try:
        folder.mkdir()
    except OSError as error:
        raise ExportError(
            f"The folder {work} is not writable: {reason_of(error)}.",
            remedy="Check its permissions.",
        ) from error
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _with_folder(value: Any, old: Path, new: Path) -> Any:
    """Return plain data in which the folder of paths is replaced."""
    if isinstance(value, str):
        return str(new / Path(value).name) if value.startswith(f"{old}/") else value
    if isinstance(value, Mapping):
        return {key: _with_folder(one, old, new) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_with_folder(one, old, new) for one in value]
    return value
