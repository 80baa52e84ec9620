"""All of a scene on a worker of a cluster: from its first tile to its files."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rooftrace.core.errors import ExportError, RooftraceError
from rooftrace.flows.inputs import Job
from rooftrace.flows.runfolder import MADE, RunFolder, is_shared, parts_of, stamp, work_of
from rooftrace.flows.scene_run import SceneRun
from rooftrace.io.atomic import write_atomically
from rooftrace.predict.cluster.tasks import Task
from rooftrace.predict.cluster.worker import BlockWorker
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.parts import PartStore
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.stream import run_streams

__all__ = ["SceneWorker", "WholeMade", "WholeScene", "Wholes"]


@dataclass(frozen=True)
class WholeScene:
    """A scene that a worker is to predict.

    Args:
        job: the scene.
        options: what was chosen for it.
        out: the folder of the run, which the worker may see.
        run_id: by which the worker knows that it does.
        made_with: what results depend on, as `RunFolder` has it.
    """

    job: Job
    options: SceneOptions
    out: Path
    run_id: str
    made_with: Mapping[str, Any]


@dataclass(frozen=True)
class WholeMade:
    """What a worker made of a scene.

    Args:
        folder: where the files lie, or lay on the worker.
        files: their names.
        record: what is kept of the scene.
        notes: for the person to see.
        resumed_blocks: that another worker or run had finished.
        contents: of the files by name, where the worker does not see the folder of the run.
    """

    folder: Path
    files: tuple[str, ...]
    record: Mapping[str, Any]
    notes: tuple[str, ...]
    resumed_blocks: int
    contents: Mapping[str, bytes] | None = None

    def put(self, out: Path) -> tuple[list[str], dict[str, Any]]:
        """Put the files into the folder of the run: who was slower writes nothing there.

        Returns:
            The paths of those that count as results, and the record, with paths as they are now.

        Raises:
            ExportError: it cannot be written to, or the files cannot be seen here.
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
                    f"{self.folder}: what a worker has written cannot be moved to {out}: "
                    f"{error.strerror}.",
                    remedy="Give the same command again when the folder is seen by all machines.",
                ) from error
        record: dict[str, Any] = _moved(dict(self.record), self.folder, out)
        return [str(out / name) for name in self.files], record


class Wholes:
    """Images of a run that workers do by themselves; see `TaskTaker`.

    Args:
        run: takes what is made of them.
        folder: of the run.
        sizes: pixels of images by name.
        strict: whether nothing more is done once one has failed.
    """

    def __init__(
        self, run: SceneRun, folder: RunFolder, sizes: Mapping[str, int], *, strict: bool
    ) -> None:
        self._run = run
        self._folder = folder
        self._sizes = sizes
        self._strict = strict
        self._jobs: list[Job] = []

    @property
    def wants_no_more(self) -> bool:
        return self._strict and bool(self._run.failed)

    def tasks(self, jobs: Sequence[Job]) -> Iterator[Task]:
        """What is to be done of the images, as workers have time for them."""
        run = self._run
        for job in jobs:
            if self.wants_no_more:
                return
            try:
                if run.take_up(job):
                    continue
            except RooftraceError as error:
                run.failed[job.name] = job.shown, error
                continue
            run.notes += job.notes
            self._jobs.append(job)
            given = WholeScene(
                job, run.options, run.out.absolute(), self._folder.run_id, self._folder.made_with
            )
            yield Task(job.shown, "scene", given, max(self._sizes[job.name], 1))

    def done(self, number: int, value: Any) -> None:
        assert isinstance(value, WholeMade)
        job, run = self._jobs[number], self._run
        run.notes += value.notes
        run.resumed_blocks += value.resumed_blocks
        try:
            files, record = value.put(run.out)
            self._folder.add(job, files, record)
            run.take(job, record)
        except RooftraceError as error:
            self.failed(number, error)

    def failed(self, number: int, error: RooftraceError) -> None:
        job = self._jobs[number]
        self._run.failed[job.name] = job.shown, error


class SceneWorker(BlockWorker):
    """A `BlockWorker` that also does all of a scene."""

    def scene(self, task: WholeScene) -> WholeMade:
        """Predict a scene, and write its files.

        Raises:
            RooftraceError: as `run_jobs` tells of an image.
        """
        if is_shared(task.out, task.run_id):
            with _folder_in(work_of(task.out)) as folder:
                return self._made(task, folder, parts_of(task.out, task.job))
        with tempfile.TemporaryDirectory(prefix="rooftrace.") as name:
            folder = Path(name) / "results"
            folder.mkdir()
            made = self._made(task, folder, Path(name) / "parts")
            return replace(made, contents={p.name: p.read_bytes() for p in folder.iterdir()})

    def _made(self, task: WholeScene, folder: Path, parts: Path) -> WholeMade:
        keeper = _One(parts, task.made_with)
        predictor = Predictor(self.predictor.bundle, self.engine)
        run = SceneRun(predictor, folder, task.options, keeper, None, None)
        try:
            run_streams(run.scenes([task.job], strict=True), predictor.engine)
        except BaseException as error:
            run.abandon(error)
            raise
        if run.failed:
            ((_, reason),) = run.failed.values()
            raise reason
        return WholeMade(folder, keeper.files, keeper.kept, tuple(run.notes), run.resumed_blocks)


class _One:
    """What `RunFolder` is to a run, for one scene whose journal is the driver's."""

    def __init__(self, parts: Path, made_with: Mapping[str, Any]) -> None:
        self._parts = parts
        self._made_with = made_with
        self.files: tuple[str, ...] = ()
        self.kept: Mapping[str, Any] = {}

    @property
    def spool(self) -> Path | None:
        """The machine's own, since what does not fit into memory is nobody else's affair."""
        return None

    def finished(self, job: Job) -> None:
        """The driver has looked that up."""

    def record(self, job: Job) -> Mapping[str, Any]:
        return self.kept

    def parts(self, job: Job, grid: Mapping[str, Any]) -> PartStore:
        return PartStore(self._parts, {**self._made_with, "image": stamp(job), "grid": grid})

    def add(self, job: Job, files: list[str], record: Mapping[str, Any]) -> None:
        # The parts stay until the driver has noted the scene.
        self.files = tuple(Path(file).name for file in files)
        self.kept = dict(record)


@contextmanager
def _folder_in(work: Path) -> Iterator[Path]:
    """A new folder that only a failure removes.

    Raises:
        ExportError: it cannot be made.
    """
    # Not `mkdtemp`, whose folders are closed to the driver's user.
    folder = work / f"{MADE}{uuid.uuid4().hex}"
    try:
        folder.mkdir()
    except OSError as error:
        raise ExportError(
            f"{work} cannot be written to: {error.strerror}.", remedy="Check who may write there."
        ) from error
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _moved(told: Any, here: Path, there: Path) -> Any:
    """Plain data in which paths of files in one folder are those in another."""
    if isinstance(told, str):
        return str(there / Path(told).name) if told.startswith(f"{here}/") else told
    if isinstance(told, Mapping):
        return {key: _moved(value, here, there) for key, value in told.items()}
    if isinstance(told, list | tuple):
        return [_moved(value, here, there) for value in told]
    return told
