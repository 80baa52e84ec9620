"""Prediction of many small images by processes of this machine, each with an engine of its own.

Beside its network, a small image costs some milliseconds of Python, in which threads take turns. A
process for each core or two does all of its images by itself, and this one keeps the record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import cv2

from rooftrace.core.errors import PredictError, RooftraceError
from rooftrace.core.machine import peak_rss_mb
from rooftrace.core.parallel import core_count, limit_cores
from rooftrace.core.processes import Processes, is_stopping
from rooftrace.engines.processor import cap_instruction_set, this_processor
from rooftrace.flows.predict.inputs import SceneInput
from rooftrace.flows.predict.run import PredictRun, RunOptions
from rooftrace.flows.predict.run_folder import RunFolder
from rooftrace.predict.checkpoint import CheckpointStore
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.pipeline import run_scenes
from rooftrace.predict.plan import SceneOptions, ScenePlan
from rooftrace.predict.predictor import Predictor

__all__ = ["predict_small_images"]

_MIN_PX = 150 * 10**6
"""Number of pixels of all images from which processes predict them; with fewer, the run ends
before it gains what their start takes."""

_MASK_CORES = 4
"""Number of cores from which processes predict masks alone, which take less beside the network."""

_SMALL_PX = 512**2
"""Mean number of pixels of an image up to which processes predict them. The network is a larger
part of the work on larger ones, and needs more memory for each process."""

_MAX_PROCESSES = 8
"""Maximum number of processes. Each of them takes the memory of an engine."""

_GROUP = 64
"""Number of images that a process predicts at a time. Engines compile the network for each number
of tiles, and at the end of a group it is another one."""

_MODULES = (__name__, "geopandas")
"""Modules that all processes need, imported once."""


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
    begun = _Begun(run, folder, [scene for scene in scenes if not _is_done(run, scene)])
    if len(begun.scenes) * mean_px < _MIN_PX:
        return begun.scenes
    size = min(cores, _MAX_PROCESSES)
    used = this_processor().instruction_set
    begin = partial(_begin, models, max(1, cores // size), used)
    with Processes(size, _MODULES, begin, or_threads=False) as processes:
        return begun.predict(processes)


def _is_done(run: PredictRun, scene: SceneInput) -> bool:
    """Add the output of an image that an earlier run has finished, or the error of looking."""
    try:
        return run.resume(scene)
    except RooftraceError as error:
        run.fail(scene, error)
        return True


@dataclass(frozen=True)
class _Group:
    """Images that a process predicts; picklable.

    Args:
        scenes: The images.
        out: Folder for the results.
        options: Options of every scene.
        strict: Whether no image is started after one has failed.
        spill: See `RunStore`.
    """

    scenes: Sequence[SceneInput]
    out: Path
    options: SceneOptions
    strict: bool
    spill: Path


@dataclass(frozen=True)
class _Made:
    """Finished image of a group: its files, and its record."""

    files: list[str]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class _GroupResult:
    """Result of a group; picklable.

    Args:
        images: Finished images by name, and errors of images that failed. The others need several
            blocks, or were not started.
        notes: Notes for the user.
        peak_mb: Peak memory of the process so far, in MB.
    """

    images: Mapping[str, _Made | RooftraceError]
    notes: Sequence[str]
    peak_mb: float


class _Begun:
    """Images of a run that processes predict, group by group."""

    def __init__(self, run: PredictRun, folder: RunFolder, scenes: Sequence[SceneInput]) -> None:
        self.scenes = scenes
        self._run = run
        self._folder = folder
        self._left: list[SceneInput] = []
        self._waiting: deque[tuple[_Group, Sequence[str], Future[_GroupResult]]] = deque()
        """Groups in work, with the stamps of their images."""

    def predict(self, processes: Processes) -> Sequence[SceneInput]:
        """Predict the images, and return those that are left to this process."""
        try:
            for group in self._groups():
                stamps = [scene.stamp for scene in group.scenes]
                self._waiting.append((group, stamps, processes.submit(_predict, group)))
                self._take(2 * processes.size - 1)
            self._take(0)
        except BaseException:
            # After Ctrl-C, images that are as good as finished need not be made again.
            processes.stop()
            self._take(0)
            raise
        if processes.has_lost:
            self._run.notes.append(
                "A process that predicted images ended unexpectedly, perhaps because the memory "
                "was used up. The other images were predicted without processes."
            )
        return self._left

    def _groups(self) -> Iterator[_Group]:
        run = self._run
        for first in range(0, len(self.scenes), _GROUP):
            if run.wants_no_more:
                return
            scenes = self.scenes[first : first + _GROUP]
            strict = run.run_options.strict
            yield _Group(scenes, run.out, run.options, strict, self._folder.spill)

    def _take(self, most: int) -> None:
        """Add finished groups to the run, until `most` are in work."""
        while self._waiting and (len(self._waiting) > most or self._waiting[0][2].done()):
            group, stamps, future = self._waiting[0]
            try:
                result = future.result()
            except PredictError:  # a process was lost
                self._left += group.scenes
                continue
            finally:
                if future.done():
                    self._waiting.popleft()
            self._run.notes += result.notes
            self._run.others_mb = max(self._run.others_mb, result.peak_mb)
            for scene, stamp in zip(group.scenes, stamps):
                self._add(scene, stamp, result.images.get(scene.name))

    def _add(self, scene: SceneInput, stamp: str, made: _Made | RooftraceError | None) -> None:
        try:
            if isinstance(made, RooftraceError):
                self._run.fail(scene, made)
            elif made is None:
                self._left.append(scene)
            else:
                self._folder.add(scene, made.files, made.record, stamp)
                self._run.take(scene, made.record)
        except RooftraceError as error:
            self._run.fail(scene, error)


class _Store:
    """Store of the images of a group; the run's own process keeps the manifest. See `RunStore`."""

    def __init__(self, spill: Path) -> None:
        self.spill = spill
        self.made: dict[str, _Made] = {}

    def finished(self, scene: SceneInput) -> None:
        """Return None: the run has already looked up the image."""

    def record(self, scene: SceneInput) -> Mapping[str, Any]:
        return self.made[scene.name].record

    def checkpoints(self, scene: SceneInput, plan: ScenePlan) -> CheckpointStore:
        raise AssertionError("an image of several blocks is left to the run's own process")

    def add(
        self, scene: SceneInput, files: list[str], record: Mapping[str, Any], stamp: str
    ) -> None:
        self.made[scene.name] = _Made(files, record)


_LOADED: list[Predictor] = []
"""Model of a process."""


def _begin(models: ModelSet, cores: int, instruction_set: str) -> None:
    """Load the model; called first in each process."""
    limit_cores(cores)
    cv2.setNumThreads(cores)
    cap_instruction_set(instruction_set)
    _LOADED.append(models.ready())


def _predict(group: _Group) -> _GroupResult:
    """Predict a group in a process."""
    (predictor,) = _LOADED
    store = _Store(group.spill)
    run_options = RunOptions(strict=group.strict)
    run = PredictRun(predictor, group.out, group.options, store, run_options, small_only=True)
    wanted = takewhile(lambda _: not is_stopping(), group.scenes)
    run.predict(wanted, lambda scenes: run_scenes(scenes, predictor.engine))
    failed = {name: one.error for name, one in run.failed.items()}
    return _GroupResult({**store.made, **failed}, tuple(run.notes), peak_rss_mb())
