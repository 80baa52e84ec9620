"""`rooftrace predict`: predict images, and write masks, polygons, previews and a record.

`predict_inputs` is one run over many images. Its `PredictRun` plans one image after the other,
sends them through the pipeline of an `Executor`, and gathers outputs, failures and notes.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol

from shapely import to_wkb

from rooftrace.core.errors import ConfigError, RooftraceError
from rooftrace.core.machine import peak_rss_mb, result_versions, versions
from rooftrace.core.text import list_and_count, merge_notes, plural
from rooftrace.core.types import RasterSource
from rooftrace.flows.predict.executor import executing
from rooftrace.flows.predict.inputs import PredictInputs, SceneInput, about_total_px, holds_results
from rooftrace.flows.predict.report import FailedImage, PredictOutput, PredictReport
from rooftrace.flows.predict.run_folder import RunFolder
from rooftrace.flows.stac_output import PredictedScene, check_stac, predicted_scene, write_stac
from rooftrace.io.area import select_overview
from rooftrace.io.files import check_outputs, write_json
from rooftrace.io.georeferenced import close_source
from rooftrace.io.vector_write import check_vector_path
from rooftrace.models.prompts import PromptSegmenter
from rooftrace.predict.checkpoint import CheckpointStore
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.outputs import FileSink, SceneOutputs
from rooftrace.predict.plan import RESULT_FILES, SceneOptions, ScenePlan, TileIndex, plan_scene
from rooftrace.predict.predictor import Predictor, PredictProgress
from rooftrace.predict.refine_outlines import check_refinable
from rooftrace.predict.result import OutputPaths, SceneResult
from rooftrace.predict.scene_blocks import SceneBlocks
from rooftrace.predict.tta import TtaChoice, applied_tta

if TYPE_CHECKING:
    from rooftrace.predict.cluster.pool import ClusterOptions

__all__ = [
    "Executor",
    "OnDone",
    "PredictRun",
    "RunOptions",
    "RunStore",
    "predict_inputs",
    "run_predict",
]

OnDone = Callable[[SceneInput, Mapping[str, Any]], None]
"""Function called with each finished image and its record."""


@dataclass(frozen=True)
class RunOptions:
    """Conduct of a run over any number of images; `SceneOptions` say what each result contains.

    Args:
        strict: Whether the run stops starting images after one has failed.
        keep: Whether the list of finished images is kept, so that a later run can add images.
        on_done: See `OnDone`.
        progress: See `PredictProgress`.
    """

    strict: bool = False
    keep: bool = False
    on_done: OnDone | None = None
    progress: PredictProgress | None = None


_MAX_NOTES = 10
"""Maximum number of notes in a report; run.json lists all."""

_MAX_EARLIER_LISTED = 5
"""Maximum number of results of earlier runs that a note lists."""

_MAX_FIGURES = 1000
"""Maximum number of images in a run whose figures are written to run.json."""


def run_predict(
    inputs: PredictInputs,
    models: ModelSet,
    out: Path,
    options: SceneOptions | None = None,
    *,
    cluster: ClusterOptions | None = None,
    keep: bool = False,
    stac: bool = False,
    segmenter: PromptSegmenter | None = None,
    on_done: OnDone | None = None,
    progress: PredictProgress | None = None,
) -> PredictReport:
    """Predict all images, and write the results of each.

    An image that fails does not stop the others. Its error is raised after they are finished, and
    `run.json` lists the results that were written. The same call resumes a run that was stopped
    for any reason, and writes the same bytes as a run that was not stopped.

    Args:
        inputs: Images to predict.
        models: Models to predict with.
        out: Folder for the results, created if missing.
        options: Options of every scene.
        cluster: Cluster to run on; default: this process. The results are identical.
        keep, on_done, progress: See `RunOptions`.
        stac: Whether the results are described by a STAC collection; see `write_stac`.
        segmenter: Network that refines the outlines of buildings; None to keep those of the model.

    Raises:
        ConfigError: The results of two images would have the same name; an image, or a file that
            no run has written, would be overwritten; a threshold was given for a model of more than
            two classes; outlines cannot be refined with these options.
        DataError, BundleError, PredictError, ExportError: An image or the model cannot be used.
        MissingExtraError: A package is not installed: the cluster's, or pystac for `stac`.
    """
    options = options or SceneOptions()
    if segmenter is not None:
        for bundle in models.bundles:
            check_refinable(bundle.spec, options)
        if cluster is not None:
            raise ConfigError(
                "Outlines are refined in one process, but a cluster was given.",
                remedy="Leave out --cluster, or leave out --refine.",
            )
    described: dict[str, PredictedScene | None] = {}

    def take(scene: SceneInput, record: Mapping[str, Any]) -> None:
        if stac:
            described[scene.name] = predicted_scene(
                scene.name, scene.source.grid.crs, record, scene.attribution
            )
        if on_done is not None:
            on_done(scene, record)

    if stac:
        check_stac()
        options = replace(options, outline=True)
    with executing(models, cluster) as executor:
        run_options = RunOptions(keep=keep, on_done=take, progress=progress)
        report = predict_inputs(inputs, executor, out, options, run_options, segmenter)
        if stac:
            bundle = executor.predictor.bundle
            model = {"name": bundle.spec.name, "sha256": bundle.sha256}
            done = [described.get(scene.name) for scene in inputs.scenes]
            notes = write_stac(
                out, "the given imagery", [one for one in done if one is not None], model,
                "run.json", "If their date is known, give it with --imagery-date.",
            )  # fmt: skip
            report = replace(report, notes=(*report.notes, *notes))
    if not report.failures:
        return report
    shown, error = report.failures[0].shown, report.failures[0].error
    if len(inputs.scenes) == 1:
        raise error
    message = error.message if shown in error.message else f"{shown}: {error.message}"
    failed = f"{len(report.failures)} of {len(inputs.scenes)} images failed; run.json lists them."
    raise type(error)(f"{message} {failed}", remedy=error.remedy)


def predict_inputs(
    inputs: PredictInputs,
    executor: Executor,
    out: Path,
    options: SceneOptions,
    run_options: RunOptions = RunOptions(),
    segmenter: PromptSegmenter | None = None,
) -> PredictReport:
    """Predict any number of images as one run; the same call resumes it.

    The report lists failed images in `failures`. If there are any, finished blocks and images are
    kept for the next run.

    Args:
        inputs: Images with distinct names.
        executor: Model and the machines that run it, see `executing`.
        out: Folder for the results, created if missing.
        options: Options of every scene.
        run_options: Conduct of the run.
        segmenter: See `run_predict`.

    Raises:
        ConfigError: The results of two images would have the same name; an image would be
            overwritten; a threshold was given for a model of more than two classes.
        ExportError: Another run writes to the folder, or the folder is not writable.
    """
    scenes, predictor = inputs.scenes, executor.predictor
    _check_results(inputs, out, options.outputs)
    spec = predictor.bundle.spec
    settings = {
        **asdict(options),
        "threshold": predictor.threshold_for(options.threshold),
        "stretch": options.stretch or "auto",
        "tta": applied_tta(predictor.bundle, executor.tta),
        **inputs.settings,
    }
    if segmenter is not None:
        settings["refine"] = segmenter.record
    made_with = {"with": _identity(executor), "options": settings}
    with RunFolder(out, made_with) as folder:
        run = PredictRun(predictor, out, options, folder, run_options, segmenter)
        is_changed = settings["threshold"] not in (None, spec.threshold)
        is_changed |= settings["tta"] != applied_tta(predictor.bundle)
        if spec.calibration is not None and is_changed:
            run.notes.append(
                "Scores were calibrated for the model's own threshold and mirroring of tiles. "
                "With these settings they only approximate probabilities."
            )
        run.total_px = about_total_px(scenes)
        run.predict(executor.predict_whole(run, folder, scenes), executor.run_scenes)
        run.notes += _earlier_results(scenes, out, options.outputs)
        # The engine adds notes while it runs.
        notes = getattr(predictor.engine, "notes", ())
        run.notes += [*notes, *executor.notes, *inputs.notes, *folder.notes]
        report = run.report(scenes)
        used = {"options": settings, "processors": list(executor.processors)}
        record = _record(run, report, inputs) | used | executor.record()
        write_json(out / "run.json", record)
        if not report.failures and not run_options.keep:
            folder.discard()
    return replace(report, notes=_brief(report.notes, scenes))


def _check_results(inputs: PredictInputs, out: Path, outputs: Sequence[str]) -> None:
    """Check before the work that the results of all images can be written to a folder.

    Args:
        inputs: Images to predict.
        out: Folder for the results.
        outputs: Names of the results.

    Raises:
        ConfigError: The results of two images would have the same name, or an input or a file
            that no run has written would be overwritten.
        ExportError: See `check_vector_path`.
    """
    scenes = inputs.scenes
    by_name: dict[str, SceneInput] = {}
    for scene in scenes:
        # Two addresses may differ in their queries alone, which are not shown.
        other = by_name.setdefault(scene.name, scene)
        if other is not scene:
            raise ConfigError(
                f"{other.path} and {scene.path} would both be written as {scene.name}_… in {out}.",
                remedy="Predict them into different folders, or rename one of them.",
            )
    # A folder of labelled images has masks of the same names.
    is_own = holds_results(out)
    endings = [end for kind, ends in RESULT_FILES.items() if kind in outputs for end in ends]
    there = {}
    for scene in scenes:
        if {"polygons", "density"} & {*outputs}:
            check_vector_path(out / f"{scene.name}_buildings.gpkg")
        for ending in endings:
            target = out / (scene.name + ending)
            if target.exists():
                there[target] = scene
    if not there:
        return
    check_outputs(there, [*(scene.path for scene in scenes), *inputs.files])
    if not is_own:
        target, scene = next(iter(there.items()))
        raise ConfigError(
            f"The result of {scene.path} would be written over {target}, and {out} is not the "
            "results folder of an earlier run.",
            remedy="Choose another folder with -o, or remove the file.",
        )


def _earlier_results(scenes: Sequence[SceneInput], out: Path, outputs: Sequence[str]) -> list[str]:
    """Return a note on results in a folder that were not requested, and so are of earlier runs."""
    others = [end for kind, ends in RESULT_FILES.items() if kind not in outputs for end in ends]
    if not others:
        return []
    with os.scandir(out) as entries:
        there = {entry.name for entry in entries}
    names = [f"{scene.name}{end}" for scene in scenes for end in others]
    earlier = [name for name in names if name in there]
    if not earlier:
        return []
    listed = list_and_count(earlier, _MAX_EARLIER_LISTED)
    return [f"{out} also holds results of an earlier run, perhaps of other settings: {listed}"]


def _identity(executor: Executor) -> dict[str, Any]:
    """Return the properties of model and program on which results depend, as plain data."""
    predictor = executor.predictor
    return {
        "bundle": predictor.bundle.sha256,
        "instruction_set": executor.processors[0]["instruction_set"],
        "engine": [predictor.engine.name, predictor.engine.precision],
        "settings": getattr(predictor.engine, "settings", {}),
        "versions": result_versions(),
    }


def _record(run: PredictRun, report: PredictReport, inputs: PredictInputs) -> dict[str, Any]:
    """Return the content of run.json, without the options and the executor."""
    bundle, engine = run.predictor.bundle, run.predictor.engine
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [scene.shown for scene in inputs.scenes],
        "bundle": {
            "name": bundle.spec.name,
            "sha256": bundle.sha256,
            "file": bundle.source,
            "gsd_m": bundle.spec.gsd_m,
            "finest_gsd_m": bundle.spec.finest_gsd_m,
            "interpolated_gsd_m": bundle.spec.interpolated_gsd_m,
        },
        "engine": {
            "name": engine.name,
            "precision": engine.precision,
            "settings": getattr(engine, "settings", {}),
        },
        **report.to_json(),
        "figures": run.figures(inputs.scenes),
        "failed": [{"input": one.shown, **one.error.to_json()} for one in report.failures],
        "skipped": [str(path) for path in inputs.skipped],
        "notes": report.notes,
        "versions": versions(),
    }


def _brief(notes: Sequence[str], scenes: Sequence[SceneInput]) -> tuple[str, ...]:
    """Return the first notes for the terminal; those that many images cause are one."""
    names = {name for scene in scenes for name in (scene.shown, scene.source.name)}
    merged = merge_notes(notes, names)
    if len(merged) > _MAX_NOTES:
        more = plural(len(merged) - _MAX_NOTES, "more note")
        merged = [*merged[:_MAX_NOTES], f"… and {more} in run.json."]
    return tuple(merged)


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


class RunStore(Protocol):
    """Store of the finished images and blocks of a run, see `RunFolder`."""

    @property
    def spill(self) -> Path | None: ...
    def finished(self, scene: SceneInput) -> Mapping[str, Any] | None: ...
    def record(self, scene: SceneInput) -> Mapping[str, Any]: ...
    def checkpoints(self, scene: SceneInput, plan: ScenePlan) -> CheckpointStore: ...
    def add(
        self, scene: SceneInput, files: list[str], record: Mapping[str, Any], stamp: str
    ) -> None: ...


@dataclass(eq=False)
class PredictRun:
    """Prediction of images one by one: all images of a run, or one image on a worker.

    Args:
        predictor: Model to predict with.
        out: Folder for the results.
        options: Options of every scene.
        store: Store of finished images and blocks.
        run_options: Conduct of the run.
        segmenter: See `run_predict`.
        small_only: Whether images of several blocks are left out.
        total_px: Number of pixels of all images for progress; see `about_total_px`.
        outputs: Outputs of finished images by name.
        failed: Failed images by name.
        notes: Notes for the user.
        others_mb: Peak memory in MB of the largest other process that predicts images of the run.
        resumed_images, resumed_blocks, resumed_px: Numbers of images, blocks and pixels that an
            earlier run finished.
    """

    predictor: Predictor
    out: Path
    options: SceneOptions
    store: RunStore
    run_options: RunOptions = RunOptions()
    segmenter: PromptSegmenter | None = None
    small_only: bool = False
    total_px: int = 0
    outputs: dict[str, PredictOutput] = field(default_factory=dict)
    failed: dict[str, FailedImage] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    others_mb: float = 0.0
    resumed_images: int = 0
    resumed_blocks: int = 0
    resumed_px: int = 0
    _begun: dict[SceneBlocks, tuple[SceneInput, str]] = field(default_factory=dict)
    """Scenes that are planned and not yet finished, with their stamps."""

    _done_px: int = 0
    _ahead_px: Counter[tuple[SceneBlocks, int]] = field(default_factory=Counter)
    """Pixels of the tiles that were run, by unfinished block."""

    _lock: RLock = field(default_factory=RLock)
    _ended: float = 0.0
    _buildings: int = 0
    _started: float = field(default_factory=time.perf_counter)

    def predict(
        self,
        scenes: Iterable[SceneInput],
        run_scenes: Callable[[Iterable[SceneBlocks]], Iterator[SceneBlocks]],
    ) -> None:
        """Predict images and write their results; errors of images are stored in `failed`.

        Args:
            scenes: Images to predict.
            run_scenes: Function of the pipeline or of a cluster that yields the scenes with their
                blocks.
        """
        for blocks in run_scenes(self._planned(scenes)):
            self._finish(blocks)

    def _finish(self, blocks: SceneBlocks) -> None:
        """Write the outputs of a scene, and add it."""
        (scene, stamp), plan = self._begun.pop(blocks), blocks.plan
        paths = self.predictor.paths_for(plan.source, self.out, scene.name)
        try:
            # Images are read while others are finished, which is no time of their own.
            started = max(blocks.started, self._ended)
            result = self._write(blocks, scene, paths, stamp, started)
            self._add(scene, plan, paths, stamp, result)
        except RooftraceError as error:
            self.fail(scene, error)
        finally:
            self._ended = time.perf_counter()
            with self._lock:
                for number in range(plan.block_count):
                    del self._ahead_px[blocks, number]
            self.notes += getattr(plan.source, "notes", ())
            close_source(plan.source)

    def _write(
        self, blocks: SceneBlocks, scene: SceneInput, paths: OutputPaths, stamp: str, started: float
    ) -> SceneResult:
        """Write the outputs of a scene, block by block."""
        plan = blocks.plan
        with SceneOutputs(
            plan, FileSink(paths, plan), spill=self.store.spill, started=started,
            segmenter=self.segmenter, answers=blocks.folder, workers=blocks.workers,
        ) as outputs:  # fmt: skip
            before = 0
            for number, block in enumerate(blocks):
                outputs.feed(block)
                with self._lock:
                    del self._ahead_px[blocks, number]
                    self._advance(block.window.area_px, outputs.buildings - before)
                before = outputs.buildings
            scene.check_unchanged(stamp)
            return outputs.finish()

    def _planned(self, scenes: Iterable[SceneInput]) -> Iterator[SceneBlocks]:
        """Yield the scenes to predict, and add them to `_begun`."""
        spec = self.predictor.bundle.spec
        for scene in scenes:
            if self.wants_no_more:
                return
            if self.resume(scene):
                continue
            try:
                notes, stamp = [*scene.notes], scene.stamp
                source: RasterSource = scene.source
                if self.options.gsd_m is None and self.options.scale is None:
                    source, note = select_overview(source, spec.least_gsd_m)
                    notes += [note] if note else []
                plan = plan_scene(source, spec, self.options, provenance=scene.provenance)
                if self.small_only and plan.block_count > 1:
                    scene.source.close()
                    continue
                self.notes += notes
                is_kept = plan.block_count > 1 or self.segmenter is not None
                kept = self.store.checkpoints(scene, plan) if is_kept else None
            except RooftraceError as error:
                self.fail(scene, error)
                scene.source.close()
                continue
            blocks = SceneBlocks(plan, kept)
            blocks.on_tile = self._add_tile
            self._begun[blocks] = scene, stamp
            yield blocks

    @property
    def wants_no_more(self) -> bool:
        """True if no further image is started."""
        return self.run_options.strict and bool(self.failed)

    def resume(self, scene: SceneInput) -> bool:
        """Return whether nothing is left to do for an image.

        Adds the output of an image that an earlier run has finished, and an image that fails.
        """
        try:
            record = self.store.finished(scene)
        except RooftraceError as error:
            self.fail(scene, error)
            scene.source.close()
            return True
        if record is None:
            return False
        self.resumed_images += 1
        self.resumed_px += int(record["output"]["pixels"])
        self.take(scene, record)
        return True

    def receive(
        self, scene: SceneInput, files: list[str], record: Mapping[str, Any], stamp: str
    ) -> None:
        """Add an image that another process has finished; see `RunFolder.add`."""
        try:
            self.store.add(scene, files, record, stamp)
            self.take(scene, record)
        except RooftraceError as error:
            self.fail(scene, error)

    def take(self, scene: SceneInput, record: Mapping[str, Any]) -> None:
        """Add the output of a finished image, by its record."""
        output = PredictOutput.from_json(record["output"])
        self.outputs[scene.name] = output
        self._advance(output.pixels, output.buildings or 0)
        if self.run_options.on_done is not None:
            self.run_options.on_done(scene, record)

    def fail(self, scene: SceneInput, error: RooftraceError) -> None:
        """Add an image that failed."""
        self.failed[scene.name] = FailedImage(scene.name, scene.shown, error)

    def _add_tile(self, blocks: SceneBlocks, index: TileIndex) -> None:
        """Add a tile that was run to the progress, as a part of its block."""
        plan = blocks.plan
        number = plan.blocks_needing(index)[0]
        with self._lock:
            share_px = plan.blocks[number].area_px // len(plan.own_tiles(number))
            self._ahead_px[blocks, number] += share_px
            self._advance(0, 0)

    def _advance(self, pixels: int, buildings: int) -> None:
        with self._lock:
            self._done_px += pixels
            self._buildings += buildings
            if self.run_options.progress is not None:
                done_px = self._done_px + self._ahead_px.total()
                self.run_options.progress(done_px, max(done_px, self.total_px), self._buildings)

    def _add(
        self,
        scene: SceneInput,
        plan: ScenePlan,
        paths: OutputPaths,
        stamp: str,
        result: SceneResult,
    ) -> None:
        """Add a predicted image, whose files are written."""
        summary = result.summary
        self.notes += summary.notes
        self.resumed_blocks += summary.blocks_resumed
        self.resumed_px += summary.pixels_resumed
        output = PredictOutput.of(scene.shown, self.options.outputs, paths, result)
        failed_tiles = list(result.tiles.errors)
        figures = summary.to_json() | {
            "input": scene.shown,
            "provenance": asdict(plan.provenance),
            "failed_tiles": failed_tiles,
        }
        files = [output.mask, output.polygons, output.preview, output.density]
        record: dict[str, Any] = {"output": output.to_json(), "figures": figures}
        if result.outline is not None:
            record["outline"] = to_wkb(result.outline, hex=True)
        self.store.add(scene, [file for file in files if file is not None], record, stamp)
        self.outputs[scene.name] = output
        if self.run_options.on_done is not None:
            self.run_options.on_done(scene, record)

    def figures(self, scenes: Sequence[SceneInput]) -> list[dict[str, Any]] | None:
        """Return all figures of each image; None for more than 1,000 images."""
        done = [scene for scene in scenes if scene.name in self.outputs]
        if len(done) > _MAX_FIGURES:
            return None
        return [self.store.record(scene)["figures"] for scene in done]

    def report(self, scenes: Sequence[SceneInput]) -> PredictReport:
        """Return the report of the run, with all notes."""
        seconds = time.perf_counter() - self._started
        outputs = tuple(self.outputs[one.name] for one in scenes if one.name in self.outputs)
        pixels = sum(output.pixels for output in outputs) - self.resumed_px
        return PredictReport(
            outputs=outputs,
            mpx_per_s=pixels / 1e6 / max(seconds, 1e-9),
            peak_rss_mb=max(peak_rss_mb(), self.others_mb),
            resumed_images=self.resumed_images,
            resumed_blocks=self.resumed_blocks,
            notes=tuple(self.notes),
            failures=tuple(self.failed[one.name] for one in scenes if one.name in self.failed),
        )
