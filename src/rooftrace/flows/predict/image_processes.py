"""Prediction of many small images by processes of this machine, each with an engine of its own.

Beside its network, a small image costs some milliseconds of Python, in which threads take turns. A
process for each core or two does all of its images by itself, and this one keeps the record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
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
from rooftrace.flows.predict.inputs import SceneInput
from rooftrace.flows.predict.run import PredictRun, RunOptions
from rooftrace.flows.predict.run_folder import MadeImage, RunFolder, WorkerStore, work_of
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.pipeline import run_scenes
from rooftrace.predict.plan import SceneOptions
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

_MAX_PROCESSES = 16
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
    scenes = [scene for scene in scenes if not run.resume(scene)]
    if len(scenes) * mean_px < _MIN_PX:
        return scenes
    size = min(cores, _MAX_PROCESSES)
    begin = partial(_begin, models, max(1, cores // size))
    with Processes(size, _MODULES, begin, or_threads=False) as processes:
        return _Groups(run, folder, processes).predict(scenes)


@dataclass(frozen=True)
class _Group:
    """Images that a process predicts; picklable.

    Args:
        scenes: The images.
        out: Folder for the results.
        options: Options of every scene.
        strict: Whether no image is started after one has failed.
        made_with: See `RunFolder`.
    """

    scenes: Sequence[SceneInput]
    out: Path
    options: SceneOptions
    strict: bool
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


@dataclass(frozen=True)
class _InWork:
    """Group that a process predicts, with the stamps of its images."""

    scenes: Sequence[SceneInput]
    stamps: Sequence[str]
    result: Future[_GroupResult]


class _Groups:
    """Prediction of images by processes, group by group.

    Args:
        run: Run that receives the results.
        folder: Folder of the run.
        processes: Processes with a model each, see `_begin`.
    """

    def __init__(self, run: PredictRun, folder: RunFolder, processes: Processes) -> None:
        self._run = run
        self._folder = folder
        self._processes = processes
        self._in_work: deque[_InWork] = deque()
        self._left: list[SceneInput] = []

    def predict(self, scenes: Sequence[SceneInput]) -> Sequence[SceneInput]:
        """Predict images, and return those that are left to this process."""
        run = self._run
        try:
            for first in range(0, len(scenes), _GROUP):
                if run.wants_no_more:
                    break
                self._in_work.append(self._begun(scenes[first : first + _GROUP]))
                self._take(2 * self._processes.size - 1)
            self._take(0)
        except BaseException:
            # After Ctrl-C, images that are as good as finished need not be made again.
            self._processes.stop()
            self._take(0)
            raise
        if self._processes.has_lost:
            run.notes.append(
                "A process that predicted images ended unexpectedly, perhaps because the memory "
                "was used up. The other images were predicted without processes."
            )
        return self._left

    def _begun(self, scenes: Sequence[SceneInput]) -> _InWork:
        run = self._run
        strict, made_with = run.run_options.strict, self._folder.made_with
        group = _Group(scenes, run.out, run.options, strict, made_with)
        stamps = [scene.stamp for scene in scenes]
        return _InWork(scenes, stamps, self._processes.submit(_predict, group))

    def _take(self, most: int) -> None:
        """Add finished groups to the run, until `most` are in work."""
        waiting = self._in_work
        while waiting and (len(waiting) > most or waiting[0].result.done()):
            wait([waiting[0].result])
            self._add(waiting.popleft())

    def _add(self, group: _InWork) -> None:
        try:
            result = group.result.result()
        except PredictError:
            if not self._processes.has_lost:
                raise
            self._left += group.scenes
            return
        run = self._run
        run.notes += result.notes
        run.others_mb = max(run.others_mb, result.peak_mb)
        for scene, stamp in zip(group.scenes, group.stamps):
            made = result.images.get(scene.name)
            if made is None:
                self._left.append(scene)
            elif isinstance(made, RooftraceError):
                run.fail(scene, made)
            else:
                run.receive(scene, made.files, made.record, stamp)


_LOADED: list[Predictor] = []
"""Model of a process."""


def _begin(models: ModelSet, cores: int) -> None:
    """Load the model; called first in each process."""
    limit_cores(cores)
    cv2.setNumThreads(cores)
    _LOADED.append(models.ready())


def _predict(group: _Group) -> _GroupResult:
    """Predict a group in a process."""
    (predictor,) = _LOADED
    work = work_of(group.out)
    store = WorkerStore(work, group.made_with, work)
    run_options = RunOptions(strict=group.strict)
    run = PredictRun(predictor, group.out, group.options, store, run_options, small_only=True)
    wanted = takewhile(lambda _: not is_stopping(), group.scenes)
    run.predict(wanted, lambda scenes: run_scenes(scenes, predictor.engine))
    failed = {name: one.error for name, one in run.failed.items()}
    return _GroupResult({**store.made, **failed}, tuple(run.notes), peak_rss_mb())
