"""`rooftrace predict`: one run over many images, with a folder of results and a record."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2

from rooftrace.core.errors import ConfigError, PredictError
from rooftrace.core.parallel import core_count, limit_cores
from rooftrace.core.system import result_versions, versions
from rooftrace.core.text import list_and_count, merge_notes, plural, utc_now
from rooftrace.engines.base import engine_processor
from rooftrace.flows.predict.image_run import (
    PredictRun,
    RunOptions,
    RunProgress,
    RunReport,
    SceneTask,
    SceneTaskResult,
    predict_task,
)
from rooftrace.flows.predict.inputs import PredictInputs, SceneInput, about_total_px, adjacent_note
from rooftrace.flows.predict.run_folder import RunFolder, WorkerStore
from rooftrace.io.companions import (
    WORK_FOLDER,
    holds_results,
    predicted_images,
    recorded_files,
    recorded_runs,
)
from rooftrace.io.files import check_outputs, write_json
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.pipeline import SceneBlocks, run_scenes
from rooftrace.predict.plan import NOT_CALIBRATED, RESULT_FILES, SceneOptions, threshold_for
from rooftrace.predict.predictor import Predictor, TtaChoice, applied_tta

if TYPE_CHECKING:
    from rooftrace.core.processes import Processes
    from rooftrace.flows.predict.cluster import ClusterExecutor, ClusterOptions
    from rooftrace.flows.predict.contest_output import RleOutput
    from rooftrace.flows.stac_output import PredictedScene
    from rooftrace.models.clicks import PromptSegmenter

_MAX_NOTES = 10
"""Maximum number of notes in a report; run.json lists all."""

_SCALES = {"name", "gsd_m", "finest_gsd_m", "interpolated_gsd_m"}
"""Fields of the model's contract in run.json."""

_MAX_FIGURES = 1000
"""Maximum number of images in a run whose figures are written to run.json."""

_MAX_EARLIER_LISTED = 5
"""Maximum number of results of earlier runs that a note lists."""


def run_predict(
    inputs: PredictInputs,
    models: ModelSet,
    out: Path,
    options: SceneOptions | None = None,
    *,
    cluster: ClusterOptions | None = None,
    stac: bool = False,
    formats: Sequence[str] = (),
    segmenter: PromptSegmenter | None = None,
    rle: RleOutput | None = None,
    progress: RunProgress | None = None,
) -> RunReport:
    """Predict all images, and write the results of each.

    An image that fails does not stop the others. Its error is raised after they are finished, with
    their report as `error.report`; `run.json` lists the results, too. The same call resumes a run
    that was stopped for any reason, and writes the same bytes as a run that was not stopped.

    Args:
        out: Folder for the results, created if missing.
        cluster: Cluster to run on; default: this process. The results are identical.
        stac: Whether the results are described by a STAC collection; see `write_stac`.
        formats: Suffixes of further files of the polygons of each image, see `write_copies`.
        segmenter: Network that refines the outlines of buildings; None to keep those of the model.
        rle: Table of run lengths to write when all images are predicted.

    Raises:
        ConfigError: The results of two images would have the same name; an image, or a file that
            no run has written, would be overwritten; a threshold was given for a model of more than
            two classes; outlines cannot be refined with these options.
        DataError, BundleError, PredictError, ExportError: An image or the model cannot be used.
        MissingExtraError: A package is not installed: the cluster's, or pystac for `stac`.
    """
    options = options or SceneOptions()
    if segmenter is not None:
        from rooftrace.predict.refine_outlines import check_refinable

        for bundle in models.bundles:
            check_refinable(bundle.spec, options)
    if cluster is not None and (segmenter is not None or rle is not None):
        option = "--refine" if rle is None else "--outputs rle"
        raise ConfigError(
            f"{option} works in one process, but a cluster was given.",
            remedy=f"Leave out --cluster, or leave out {option}.",
        )
    if formats and "polygons" not in options.outputs:
        raise ConfigError(
            "Formats of polygons were given, but the outputs have none.",
            remedy="Add polygons to --outputs, or leave out --format.",
        )
    described: dict[str, PredictedScene] = {}
    if stac:
        from rooftrace.flows.stac_output import check_stac, predicted_scene, write_stac

        check_stac()
        options = options.model_copy(update={"valid_outline": True})

    def describe(scene: SceneInput, record: Mapping[str, Any]) -> None:
        crs = scene.source.grid.crs
        if crs is not None and record["figures"]["gsd_m"]:
            described[scene.name] = predicted_scene(scene.name, record, crs)

    run_options = RunOptions(
        formats=formats, segmenter=segmenter, on_done=describe if stac else None, progress=progress
    )
    with executing(models, cluster) as executor:
        # A catalogue removes the duplicates of which this note tells.
        adjacent = adjacent_note(inputs.scenes) if len(inputs.scenes) > 1 else []
        report = predict_inputs(inputs, executor, out, options, run_options, rle, adjacent)
    notes = [*report.notes]
    if stac:
        bundle = executor.predictor.bundle
        notes += write_stac(
            out, "the given imagery",
            [described[scene.name] for scene in inputs.scenes if scene.name in described],
            {"name": bundle.spec.name, "sha256": bundle.sha256},
            "run.json", "If their date is known, give it with --imagery-date.",
        )  # fmt: skip
    report = replace(report, notes=tuple(notes))
    if not report.failures:
        return report
    scene, error = report.failures[0]
    if len(inputs.scenes) == 1:
        raise error
    failed = f"{len(report.failures)} of {len(inputs.scenes)} images failed; run.json lists them."
    raised = error.named(scene.shown, failed)
    raised.report = report
    raise raised


def predict_inputs(
    inputs: PredictInputs,
    executor: Executor,
    out: Path,
    options: SceneOptions,
    run_options: RunOptions,
    rle: RleOutput | None = None,
    notes: Sequence[str] = (),
) -> RunReport:
    """Predict any number of images as one run; the same call resumes it.

    The report lists failed images in `failures`. If there are any, finished blocks and images are
    kept for the next run.

    Args:
        inputs: Images with distinct names.
        executor: Model and the machines that run it, see `executing`.
        out: Folder for the results, created if missing.

    Raises:
        ConfigError: The results of two images would have the same name; an image would be
            overwritten; a threshold was given for a model of more than two classes.
        ExportError: Another run writes to the folder, or the folder is not writable.
    """
    scenes, predictor = inputs.scenes, executor.predictor
    spec = predictor.bundle.spec
    _check_results(inputs, out, options.outputs)
    if rle is not None:
        run_options = replace(run_options, order=rle.order)
    made_with = _made_with(inputs, executor, options, run_options)
    with RunFolder(out, made_with, partial(_results_there, scenes, out, options.outputs)) as folder:
        run = PredictRun(predictor, out, options, folder, run_options)
        if spec.calibration and made_with["options"]["tta"] != applied_tta(predictor.bundle):
            run.notes.append(NOT_CALIBRATED)
        run.total_px = about_total_px(scenes)
        run.predict(executor.predict_whole(run, scenes), executor.run_scenes)
        record = executor.record()
        run.notes += _earlier_results(scenes, out, options.outputs)
        files = {
            name: one.input for one in run.outputs.values() for name in recorded_files(vars(one))
        }
        run.notes += _replaced_results(out, files)
        run.notes += [*record["notes"], *inputs.notes, *folder.notes, *notes]
        report = run.report(scenes)
        if rle is not None and not report.failures:
            runs = (folder.entry(scene)["record"]["runs"] for scene in rle.scenes)
            more, table = rle.write(out, runs, spec)
            report = replace(report, table=table, notes=(*report.notes, *more))
        figures = None
        if len(run.outputs) <= _MAX_FIGURES:
            done = [scene for scene in scenes if scene.name in run.outputs]
            figures = [folder.entry(scene)["record"]["figures"] for scene in done]
        record |= _record(inputs, predictor.bundle, made_with, figures, report)
        record["earlier"] = _earlier_runs(out, files)
        write_json(out / "run.json", record)
        if not report.failures and not run_options.keep:
            folder.discard()
    return replace(report, notes=tuple(_shortened(report.notes, scenes)))


def _made_with(
    inputs: PredictInputs, executor: Executor, options: SceneOptions, run_options: RunOptions
) -> dict[str, Any]:
    """Return everything except the images on which results depend, see `RunFolder`."""
    bundle, engine = executor.predictor.bundle, executor.predictor.engine
    settings = {
        **options.model_dump(),
        "threshold": threshold_for(bundle.spec, options.threshold),
        "stretch": options.stretch or "auto",
        "tta": applied_tta(bundle, executor.tta),
        **inputs.settings,
    }
    if run_options.segmenter is not None:
        settings["refine"] = run_options.segmenter.record
    if run_options.order is not None:
        settings["rle"] = run_options.order
    model = {
        "bundle": bundle.sha256,
        "instruction_set": executor.record()["processors"][0]["instruction_set"],
        "engine": {name: getattr(engine, name) for name in ("name", "precision", "settings")},
        "versions": result_versions(),
    }
    return {"with": model, "options": settings}


def _record(
    inputs: PredictInputs,
    bundle: ModelBundle,
    made_with: Mapping[str, Any],
    figures: Sequence[Mapping[str, Any]] | None,
    report: RunReport,
) -> dict[str, Any]:
    """Return the fields of run.json besides those of the executor.

    The figures of finished images are None if they are too many.
    """
    return {
        "bundle": bundle.spec.model_dump(include=_SCALES)
        | {"sha256": bundle.sha256, "file": bundle.source},
        "engine": made_with["with"]["engine"],
        "options": made_with["options"],
        "figures": figures,
        "created": utc_now(),
        "inputs": [scene.shown for scene in inputs.scenes],
        **report.to_json(),
        "skipped": [str(path) for path in inputs.skipped],
        "notes": report.notes,
        "versions": versions(),
    }


def _shortened(notes: Sequence[str], scenes: Sequence[SceneInput]) -> list[str]:
    """Return the notes for the terminal, where those that many images cause are one."""
    names = {Path(name).name for scene in scenes for name in (scene.shown, scene.source.name)}
    merged = merge_notes(notes, names)
    if len(merged) > _MAX_NOTES:
        more = plural(len(merged) - _MAX_NOTES, "more note")
        merged = [*merged[:_MAX_NOTES], f"… and {more} in run.json."]
    return merged


def _check_results(inputs: PredictInputs, out: Path, outputs: Sequence[str]) -> None:
    """Check before the work that the results of all images can be written to a folder."""
    scenes = inputs.scenes
    by_name: dict[str, SceneInput] = {}
    for scene in scenes:
        # Two URLs may differ in their queries alone, which are not shown.
        other = by_name.setdefault(scene.name, scene)
        if other is not scene:
            raise ConfigError(
                f"{other.path} and {scene.path} would both be written as {scene.name}_… in {out}.",
                remedy="Predict them into different folders, or rename one of them.",
            )
    there = dict(_results_there(scenes, out, outputs))
    if not there:
        return
    check_outputs(there, [scene.path for scene in scenes])
    # A folder of labelled images has masks of the same names.
    if not holds_results(out):
        target, scene = next(iter(there.items()))
        raise ConfigError(
            f"The result of {scene.path} would be written over {target}, and {out} is not the "
            "results folder of an earlier run.",
            remedy="Choose another folder with -o, or remove the file.",
        )


def _results_there(
    scenes: Sequence[SceneInput], out: Path, outputs: Collection[str]
) -> Iterator[tuple[Path, SceneInput]]:
    """Yield the files in a folder that have the names of results of images, with the image."""
    endings = [end for kind, ends in RESULT_FILES.items() if kind in outputs for end in ends]
    for scene in scenes:
        for ending in endings:
            target = out / (scene.name + ending)
            if target.exists():
                yield target, scene


def _earlier_results(scenes: Sequence[SceneInput], out: Path, outputs: Sequence[str]) -> list[str]:
    """Return a note on results in a folder that were not requested, and so are of earlier runs."""
    others = RESULT_FILES.keys() - {*outputs}
    earlier = [target.name for target, _ in _results_there(scenes, out, others)]
    if not earlier:
        return []
    listed = list_and_count(earlier, _MAX_EARLIER_LISTED)
    return [f"{out} also holds results of an earlier run, perhaps of other settings: {listed}"]


def _replaced_results(out: Path, inputs: Mapping[str, str]) -> list[str]:
    """Return a note on other images of the same names, such as those of another year."""
    replaced = {
        str(image)
        for name, image in predicted_images(out).items()
        if name in inputs and image.resolve() != Path(inputs[name]).resolve()
    }
    if not replaced:
        return []
    listed = list_and_count(sorted(replaced), _MAX_EARLIER_LISTED)
    return [f"Replaced results of other images of the same name; -o keeps them apart: {listed}"]


def _earlier_runs(out: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the records of the runs before in a folder, newest first, with those images whose
    results still lie there and are not among the names of this run's.
    """
    taken, kept = {*names}, []
    for run in recorded_runs(out):
        left = [
            output
            for output in run["outputs"]
            if (files := recorded_files(output)).isdisjoint(taken)
            and any((out / name).is_file() for name in files)
        ]
        taken.update(*map(recorded_files, left))
        images = {output["input"] for output in left}
        figures = [each for each in run.get("figures") or () if each["input"] in images]
        kept += [{**run, "outputs": left, "figures": figures}] if left else []
    return kept


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


@dataclass(frozen=True)
class LocalExecutor:
    """Runs the network on scenes in this process; a `ClusterExecutor` does it on a cluster."""

    predictor: Predictor
    """Model of the run."""

    tta: TtaChoice | None = None
    """Test-time augmentation that was asked for; None for that of the models."""

    models: ModelSet | None = None
    """Models for the engines of processes that predict small images; None for this one alone."""

    start: Callable[[], Processes] | None = None
    """Function that returns the processes that trace the blocks of large scenes; None for this
    process alone."""

    def predict_whole(self, run: PredictRun, scenes: Sequence[SceneInput]) -> Sequence[SceneInput]:
        """Predict the small images of a run in processes, if there are many; return the others.

        The results have the same bytes as those of this process. If a process ends unexpectedly,
        the images that are not finished are returned, too.
        """
        cores = core_count()
        mean_px = run.total_px / max(len(scenes), 1)
        least = 2 if {*run.options.outputs} - {"mask"} else _MASK_CORES
        if self.models is None or len(scenes) == 1 or run.run_options.segmenter is not None:
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
        """Predict scenes block by block and yield them in order, see `pipeline.run_scenes`."""
        return run_scenes(map(self._with_processes, scenes), self.predictor.engine)

    def record(self) -> dict[str, Any]:
        """Return fields of run.json: `processors` that have run the network, `notes` and others."""
        engine = self.predictor.engine
        # The engine adds notes while it runs.
        notes = list(engine.notes)
        return {"processors": [engine_processor(engine)], "notes": notes}

    def _with_processes(self, scene: SceneBlocks) -> SceneBlocks:
        if self.start is not None and len(scene.plan.blocks) > 1:
            processes = self.start()
            # After one was lost, this process goes on alone with the scenes that follow.
            if not processes.has_lost:
                scene.workers = processes
        return scene


Executor: TypeAlias = "LocalExecutor | ClusterExecutor"


@contextmanager
def executing(models: ModelSet, cluster: ClusterOptions | None = None) -> Iterator[Executor]:
    """Load the engines of models, and keep them ready while the context is open.

    Args:
        cluster: Cluster to run on; None for this process.

    Raises:
        ConfigError: No cluster answers, or it does not have the requested resources.
        PredictError: No worker starts.
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

        predictor = models.predictor
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

    store = WorkerStore(task.out / WORK_FOLDER)
    wanted = takewhile(lambda _: not is_stopping(), task.scenes)
    return predict_task(_LOADED[0], task, store, wanted, task.out, small_only=True)
