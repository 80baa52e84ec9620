"""Prediction of images one by one: all images of a run, or those of one worker or process.

A `PredictRun` plans one image after the other, sends them through a pipeline, writes their results,
and gathers outputs, failures and notes. A process or the worker of a cluster receives a
`SceneTask`, predicts its images with a run of its own, and returns a `SceneTaskResult`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from shapely import to_wkb

from rooftrace.core.errors import RooftraceError
from rooftrace.core.system import peak_rss_mb
from rooftrace.core.types import RasterSource
from rooftrace.flows.predict.inputs import SceneInput
from rooftrace.flows.predict.run_folder import FinishedImage, RunFolder, WorkerStore
from rooftrace.io.area import select_overview
from rooftrace.io.georeferenced import close_source
from rooftrace.io.legend import NODATA
from rooftrace.io.vector_write import write_copies
from rooftrace.predict.block import Block
from rooftrace.predict.outputs import ClassFigures, OutputPaths, SceneOutputs
from rooftrace.predict.pipeline import SceneBlocks, run_scenes
from rooftrace.predict.plan import SceneOptions, ScenePlan, TileIndex, plan_scene
from rooftrace.predict.predictor import Predictor

if TYPE_CHECKING:
    from rooftrace.flows.heights import HeightsReport
    from rooftrace.labels.rle import Order
    from rooftrace.models.clicks import PromptSegmenter

OnDone = Callable[[SceneInput, Mapping[str, Any]], None]
"""Function called with each finished image and its record."""

RunProgress = Callable[[int, int, int, int], None]
"""Function called with the numbers of pixels done, of pixels in total, of buildings found so far,
and of finished images."""


@dataclass(frozen=True)
class RunOptions:
    """Conduct of a run over any number of images; `SceneOptions` say what each result contains.

    Args:
        strict: Whether the run stops starting images after one has failed.
        keep: Whether the list of finished images is kept, so that a later run can add images.
        order: Pixel order of the run lengths in the record of each image; None for none.
        formats: Suffixes of further files of the polygons of each image, see `write_copies`.
        segmenter: Network that refines the outlines of buildings; None to keep those of the model.
    """

    strict: bool = False
    keep: bool = False
    order: Order | None = None
    formats: Sequence[str] = ()
    segmenter: PromptSegmenter | None = None
    on_done: OnDone | None = None
    progress: RunProgress | None = None


@dataclass(frozen=True)
class SceneFiles:
    """Paths and figures of the results of one image.

    Args:
        input: Path or URL of the image.
        mask, polygons, preview, density: Paths of the results, by the names that they have in
            `OutputPaths`; None for a result that was not made.
        buildings: Number of buildings; None if polygons were not requested.
        built_up_share: Share of the valid pixels that are buildings, 0..1.
        pixels, valid_pixels: Number of pixels of the image, and of those that are not nodata.
        gsd_m: Metres per pixel; None if not known.
        threshold: Threshold of the building probability; None for more than two classes.
        seconds: Time of this image: from its first pixel to its last file, without the time before
            the previous image of the run was finished.
    """

    input: str
    mask: str | None
    polygons: str | None
    preview: str | None
    density: str | None
    buildings: int | None
    built_up_share: float
    pixels: int
    valid_pixels: int
    gsd_m: float | None
    threshold: float | None
    seconds: float
    classes: tuple[ClassFigures, ...]

    def to_json(self) -> dict[str, Any]:
        # Not `asdict`, which copies every value and takes as long as a small mask.
        return vars(self) | {"classes": tuple(vars(one).copy() for one in self.classes)}


@dataclass(frozen=True)
class RunReport:
    """Result of a prediction run.

    Args:
        mpx_per_s: Megapixels per second over all images that this run predicted, with the time for
            reading and writing files.
        peak_rss_mb: Peak memory in MB of the process, or of the largest one that predicted images.
        resumed_images, resumed_blocks: Numbers of images and blocks that an earlier run finished.
        notes: Assumptions and skipped files that the user should know.
        failures: Images that failed, in order, and their errors; those of which only a further
            file of polygons failed are among `outputs`, too.
        table: Path of the table of run lengths, or the COCO results; None if there is none.
        heights: Heights of the buildings of each image, where they were asked for.
    """

    outputs: tuple[SceneFiles, ...]
    mpx_per_s: float
    peak_rss_mb: float
    resumed_images: int = 0
    resumed_blocks: int = 0
    notes: tuple[str, ...] = ()
    failures: tuple[tuple[SceneInput, RooftraceError], ...] = ()
    table: str | None = None
    heights: tuple[HeightsReport, ...] = ()

    def to_json(self) -> dict[str, Any]:
        fields = {**vars(self), "outputs": [output.to_json() for output in self.outputs]}
        fields["heights"] = [one.to_json() for one in self.heights]
        fields["failed"] = [
            {"input": one.shown, **error.to_json(), "message": one.without_folders(error.message)}
            for one, error in self.failures
        ]
        left_out = {"notes", "failures"} | ({"table"} if self.table is None else set())
        left_out |= set() if self.heights else {"heights"}
        return {name: value for name, value in fields.items() if name not in left_out}


@dataclass(eq=False)
class PredictRun:
    """Prediction of images one by one: all images of a run, or those of one worker.

    Args:
        small_only: Whether images of several blocks are left out.
        total_px: Number of pixels of all images for progress; see `about_total_px`.
        others_mb: Peak memory in MB of the largest other process that predicts images of the run.
        resumed_images, resumed_blocks, resumed_px: Numbers of images, blocks and pixels that an
            earlier run finished.
    """

    predictor: Predictor
    out: Path
    options: SceneOptions
    store: RunFolder | WorkerStore
    run_options: RunOptions = RunOptions()
    small_only: bool = False
    total_px: int = 0
    outputs: dict[str, SceneFiles] = field(default_factory=dict)
    failed: dict[str, RooftraceError] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    others_mb: float = 0.0
    resumed_images: int = 0
    resumed_blocks: int = 0
    resumed_px: int = 0
    _done_px: int = 0
    _ahead_px: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Pixels of the tiles that were run, by unfinished block."""

    _in_work: int = 0
    """Number of images that were planned and are not finished."""

    _is_planned: bool = False
    """True if no further image will be planned."""

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
            run_scenes: Function of the pipeline or of a cluster that yields the scenes with their
                blocks.
        """
        for blocks in run_scenes(self._planned(scenes)):
            scene, plan = blocks.item, blocks.plan
            try:
                finished = self._write_results(blocks, scene)
                self.store.add(scene, finished)
                self._take(scene, finished.record, advance=False)
            except RooftraceError as error:
                self.failed[scene.name] = error
            finally:
                self._ended = time.perf_counter()
                with self._lock:
                    self._in_work -= 1
                    for number in range(len(plan.blocks)):
                        del self._ahead_px[scene.name, number]
                close_source(plan.source)

    def _planned(self, scenes: Iterable[SceneInput]) -> Iterator[SceneBlocks]:
        """Yield the scenes to predict; their items are the images."""
        spec = self.predictor.bundle.spec
        for scene in scenes:
            if self.wants_no_more:
                return
            if self.resume(scene):
                continue
            try:
                notes = [*scene.notes]
                source: RasterSource = scene.source
                if scene.url and self.options.gsd_m is None and self.options.scale is None:
                    source, note = select_overview(source, spec.least_gsd_m)
                    notes += [note] if note else []
                plan = plan_scene(source, spec, self.options, provenance=scene.provenance)
                if self.small_only and len(plan.blocks) > 1:
                    scene.source.close()
                    continue
                self.notes += map(scene.without_folders, notes)
                is_kept = len(plan.blocks) > 1 or self.run_options.segmenter is not None
                kept = self.store.checkpoints(scene, plan) if is_kept else None
            except RooftraceError as error:
                self.failed[scene.name] = error
                scene.source.close()
                continue
            with self._lock:
                self._in_work += 1
            yield SceneBlocks(plan, kept, scene, self._add_tile)
        self._is_planned = True

    def _write_results(self, blocks: SceneBlocks, scene: SceneInput) -> FinishedImage:
        """Write the results of a scene, block by block."""
        plan, order, wanted = blocks.plan, self.run_options.order, self.options.outputs
        paths = OutputPaths.of(self.out, scene.name, plan.source.grid, plan.spec.legend)
        mask = None if order is None else np.full(plan.source.grid.shape, NODATA, np.uint8)
        before = number = 0
        with SceneOutputs(
            plan, paths, spill=self.store.spill,
            # Images are read while others are finished, which does not count as their time.
            started=max(blocks.started, self._ended),
            segmenter=self.run_options.segmenter, answers=blocks.folder, workers=blocks.workers,
        ) as outputs:  # fmt: skip
            for block in blocks.blocks:
                buildings = outputs.feed(block)
                if mask is not None and isinstance(block, Block):
                    mask[block.window.slices()] = block.mask
                with self._lock:
                    del self._ahead_px[scene.name, number]
                    self._advance(block.window.area_px, buildings - before)
                before, number = buildings, number + 1
                # Not kept until the next block is finished.
                del block
            scene.check_unchanged()
            if len(plan.blocks) > 1 and self._is_planned and self._in_work == 1:
                # Writing the files of a large scene takes as much memory as the network.
                self.predictor.engine.release()
            result = outputs.finish()
        summary, written = result.summary, vars(paths.of_result(result, wanted))
        files = {name: path and str(path) for name, path in written.items()}
        # Servers show the notes to others.
        image_notes = [*map(scene.without_folders, summary.notes)]
        self.notes += image_notes
        self.resumed_blocks += summary.blocks_resumed
        self.resumed_px += summary.pixels_resumed
        output = SceneFiles(
            input=scene.shown, **files,
            buildings=None if summary.regularized is None else summary.buildings,
            built_up_share=summary.built_up_share, pixels=summary.pixels,
            valid_pixels=summary.valid_pixels, gsd_m=summary.gsd_m, threshold=summary.threshold,
            seconds=summary.seconds, classes=summary.classes,
        )  # fmt: skip
        figures = summary.to_json() | {
            "input": scene.shown,
            "notes": image_notes,
            "provenance": vars(plan.provenance),
            "failed_tiles": list(result.tiles.errors),
        }
        record: dict[str, Any] = {"output": output.to_json(), "figures": figures}
        if result.outline is not None:
            record["outline"] = to_wkb(result.outline, hex=True)
        if mask is not None and order is not None:
            from rooftrace.labels.rle import encode_runs

            record["runs"] = encode_runs(mask == plan.spec.building_class, order)
        return FinishedImage([*filter(None, files.values())], record)

    @property
    def wants_no_more(self) -> bool:
        """True if no further image is started."""
        return self.run_options.strict and bool(self.failed)

    def resume(self, scene: SceneInput) -> bool:
        """Return whether nothing is left to do for an image.

        Adds the results of an image that an earlier run has finished, and an image that fails.
        """
        try:
            record = self.store.finished(scene)
        except RooftraceError as error:
            self.failed[scene.name] = error
            scene.source.close()
            return True
        if record is None:
            return False
        self.resumed_images += 1
        self.resumed_px += int(record["output"]["pixels"])
        self._take(scene, record, advance=True)
        return True

    def task(self, scenes: Sequence[SceneInput]) -> SceneTask:
        """Return the task to predict images in another process."""
        conduct = replace(self.run_options, formats=(), on_done=None, progress=None)
        return SceneTask(scenes, self.out.absolute(), self.options, conduct)

    def receive(self, result: SceneTaskResult, task: SceneTask) -> list[SceneInput]:
        """Add images that another process has predicted, and return those that it left out."""
        self.notes += result.notes
        self.others_mb = max(self.others_mb, result.peak_mb)
        left = []
        for scene in task.scenes:
            finished = result.images.get(scene.name)
            if finished is None:
                left.append(scene)
            elif isinstance(finished, RooftraceError):
                self.failed[scene.name] = finished
            else:
                try:
                    self.store.add(scene, finished)
                    self._take(scene, finished.record, advance=True)
                except RooftraceError as error:
                    self.failed[scene.name] = error
        return left

    def _take(self, scene: SceneInput, record: Mapping[str, Any], *, advance: bool) -> None:
        """Add the results of a finished image, by its record."""
        output = record["output"]
        classes = tuple(ClassFigures(**one) for one in output["classes"])
        self.outputs[scene.name] = SceneFiles(**{**output, "classes": classes})
        if advance:
            self._advance(output["pixels"], output["buildings"] or 0)
        if self.run_options.formats:
            try:
                self.notes += write_copies(Path(output["polygons"]), self.run_options.formats)
            except RooftraceError as error:
                self.failed[scene.name] = error
        if self.run_options.on_done is not None:
            self.run_options.on_done(scene, record)

    def _add_tile(self, scene: SceneInput, plan: ScenePlan, index: TileIndex) -> None:
        """Add a tile that was run to the progress, as a part of its block."""
        number = plan.extents(index)[0][0]
        with self._lock:
            share_px = plan.blocks[number].area_px // len(plan.own_tiles(number))
            self._ahead_px[scene.name, number] += share_px
            self._advance(0, 0)

    def _advance(self, pixels: int, buildings: int) -> None:
        with self._lock:
            self._done_px += pixels
            self._buildings += buildings
            if self.run_options.progress is not None:
                done_px = self._done_px + self._ahead_px.total()
                self.run_options.progress(
                    done_px, max(done_px, self.total_px), self._buildings,
                    len(self.outputs) + len(self.failed),
                )  # fmt: skip

    def report(self, scenes: Sequence[SceneInput]) -> RunReport:
        """Return the report of the run, with all notes."""
        seconds = time.perf_counter() - self._started
        outputs = tuple(self.outputs[one.name] for one in scenes if one.name in self.outputs)
        pixels = sum(output.pixels for output in outputs) - self.resumed_px
        return RunReport(
            outputs=outputs,
            mpx_per_s=pixels / 1e6 / max(seconds, 1e-9),
            peak_rss_mb=max(peak_rss_mb(), self.others_mb),
            resumed_images=self.resumed_images,
            resumed_blocks=self.resumed_blocks,
            notes=tuple(self.notes),
            failures=tuple(
                (one, self.failed[one.name]) for one in scenes if one.name in self.failed
            ),
        )


@dataclass(frozen=True)
class SceneTask:
    """Images that a process or the worker of a cluster predicts by itself; picklable."""

    scenes: Sequence[SceneInput]
    out: Path
    options: SceneOptions
    run_options: RunOptions


@dataclass(frozen=True)
class SceneTaskResult:
    """Result of a task; picklable.

    Args:
        images: Finished images by name, and errors of images that failed. The others need several
            blocks, or were not started.
        contents: Contents of the files by name, from a worker of a cluster.
    """

    images: Mapping[str, FinishedImage | RooftraceError]
    notes: Sequence[str]
    peak_mb: float
    contents: Mapping[str, bytes] = field(default_factory=dict)


def predict_task(
    predictor: Predictor,
    task: SceneTask,
    store: WorkerStore,
    scenes: Iterable[SceneInput],
    out: Path,
    *,
    small_only: bool,
) -> SceneTaskResult:
    """Predict the images of a task in this process."""
    run = PredictRun(predictor, out, task.options, store, task.run_options, small_only=small_only)
    run.predict(scenes, lambda planned: run_scenes(planned, predictor.engine))
    return SceneTaskResult({**store.made, **run.failed}, tuple(run.notes), peak_rss_mb())
