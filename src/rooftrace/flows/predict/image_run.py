"""Prediction of images one by one: all images of a run, or those of one worker or process.

A `PredictRun` plans one image after the other, sends them through a pipeline, writes their results,
and gathers outputs, failures and notes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from threading import RLock
from typing import Any, Protocol

from shapely import to_wkb

from rooftrace.core.errors import RooftraceError
from rooftrace.core.machine import peak_rss_mb
from rooftrace.core.types import RasterSource
from rooftrace.flows.predict.inputs import SceneInput
from rooftrace.io.area import select_overview
from rooftrace.io.georeferenced import close_source
from rooftrace.io.masks import MemoryMask
from rooftrace.labels.rle.codec import Order, encode_runs
from rooftrace.models.prompts import PromptSegmenter
from rooftrace.predict.block import Block, BlockParts
from rooftrace.predict.checkpoint import CheckpointStore
from rooftrace.predict.outputs import FileSink, write_outputs
from rooftrace.predict.pipeline import SceneBlocks
from rooftrace.predict.plan import SceneOptions, ScenePlan, TileIndex, plan_scene
from rooftrace.predict.predictor import Predictor, PredictProgress
from rooftrace.predict.result import ClassFigures, OutputPaths, SceneResult

__all__ = [
    "FailedImage",
    "OnDone",
    "PredictOutput",
    "PredictReport",
    "PredictRun",
    "RunOptions",
    "RunStore",
]

OnDone = Callable[[SceneInput, Mapping[str, Any]], None]
"""Function called with each finished image and its record."""

_MAX_FIGURES = 1000
"""Maximum number of images in a run whose figures are written to run.json."""


@dataclass(frozen=True)
class RunOptions:
    """Conduct of a run over any number of images; `SceneOptions` say what each result contains.

    Args:
        strict: Whether the run stops starting images after one has failed.
        keep: Whether the list of finished images is kept, so that a later run can add images.
        order: Pixel order of the run lengths in the record of each image; None for none.
        on_done: See `OnDone`.
        progress: See `PredictProgress`.
    """

    strict: bool = False
    keep: bool = False
    order: Order | None = None
    on_done: OnDone | None = None
    progress: PredictProgress | None = None


@dataclass(frozen=True)
class PredictOutput:
    """Paths and figures of the results of one image.

    Args:
        input: Path or URL of the image.
        mask: Path of the mask; None if it was not requested.
        polygons, preview, density: Paths of the other results; None for a result that was not
            made.
        buildings: Number of buildings; None if polygons were not requested.
        built_up_share: Share of the valid pixels that are buildings, 0..1.
        pixels: Number of pixels of the image.
        seconds: Time of this image: from its first pixel to its last file, without the time before
            the previous image of the run was finished.
        classes: Figures of each class.
    """

    input: str
    mask: str | None
    polygons: str | None
    preview: str | None
    density: str | None
    buildings: int | None
    built_up_share: float
    pixels: int
    seconds: float
    classes: tuple[ClassFigures, ...]

    @classmethod
    def of(
        cls, shown: str, outputs: Sequence[str], paths: OutputPaths, result: SceneResult
    ) -> PredictOutput:
        """Describe the results of an image whose files are written.

        Args:
            shown: Path or URL of the image.
            outputs: Names of the results that were requested.
            paths: Paths of all results.
            result: Results of the image.
        """
        summary = result.summary
        return cls(
            input=shown,
            mask=str(paths.mask) if "mask" in outputs else None,
            polygons=str(paths.polygons) if "polygons" in outputs else None,
            preview=None if result.preview is None else str(paths.preview),
            density=None if result.density is None else f"{paths.density}.tif",
            buildings=None if summary.regularized is None else summary.buildings,
            built_up_share=summary.built_up_share,
            pixels=summary.pixels,
            seconds=summary.seconds,
            classes=summary.classes,
        )

    @property
    def files(self) -> list[str]:
        """Paths of the results."""
        files = (self.mask, self.polygons, self.preview, self.density)
        return [file for file in files if file is not None]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PredictOutput:
        """Return the output that `to_json` has turned into a mapping."""
        classes = tuple(ClassFigures(**one) for one in record["classes"])
        return cls(**{**record, "classes": classes})

    def to_json(self) -> dict[str, Any]:
        # Not `asdict`, which copies every value and takes as long as a small mask.
        return vars(self) | {"classes": tuple(vars(one).copy() for one in self.classes)}


@dataclass(frozen=True)
class FailedImage:
    """An image that failed, and its error.

    Args:
        name: First part of the names of its results, which no other image of the run has.
        shown: Path or URL of the image without its query, which other images may share.
        error: Error of the image.
    """

    name: str
    shown: str
    error: RooftraceError


@dataclass(frozen=True)
class PredictReport:
    """Result of a prediction run.

    Args:
        outputs: Output of each image, in order.
        mpx_per_s: Megapixels per second over all images that this run predicted, with the time for
            reading and writing files.
        peak_rss_mb: Peak memory in MB of the process, or of the largest one that predicted images.
        resumed_images, resumed_blocks: Numbers of images and blocks that an earlier run finished.
        notes: Assumptions and skipped files that the user should know.
        failures: Images that failed, in order.
        table: Path of the table of run lengths; None if there is none.
    """

    outputs: tuple[PredictOutput, ...]
    mpx_per_s: float
    peak_rss_mb: float
    resumed_images: int = 0
    resumed_blocks: int = 0
    notes: tuple[str, ...] = ()
    failures: tuple[FailedImage, ...] = ()
    table: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields of `--json`."""
        table = {} if self.table is None else {"table": self.table}
        return {
            "outputs": [output.to_json() for output in self.outputs],
            "mpx_per_s": self.mpx_per_s,
            "peak_rss_mb": self.peak_rss_mb,
            "resumed_images": self.resumed_images,
            "resumed_blocks": self.resumed_blocks,
            **table,
        }


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
        segmenter: Network that refines the outlines of buildings; None to keep those of the model.
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
    _done_px: int = 0
    _ahead_px: Counter[tuple[str, int]] = field(default_factory=Counter)
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
            (scene, stamp), plan = blocks.item, blocks.plan
            try:
                files, record = self._results(blocks, scene, stamp)
                self.store.add(scene, files, record, stamp)
                self._take(scene, record)
            except RooftraceError as error:
                self.fail(scene, error)
            finally:
                self._ended = time.perf_counter()
                with self._lock:
                    for number in range(plan.block_count):
                        del self._ahead_px[scene.name, number]
                self.notes += getattr(plan.source, "notes", ())
                close_source(plan.source)

    def _planned(self, scenes: Iterable[SceneInput]) -> Iterator[SceneBlocks]:
        """Yield the scenes to predict; their items are the images with their stamps."""
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
            yield SceneBlocks(plan, kept, (scene, stamp), self._add_tile)

    def _results(
        self, blocks: SceneBlocks, scene: SceneInput, stamp: str
    ) -> tuple[list[str], dict[str, Any]]:
        """Write the results of a scene, block by block; return their paths and the record."""
        plan, order = blocks.plan, self.run_options.order
        paths = self.predictor.paths_for(plan.source, self.out, scene.name)
        mask = None if order is None else MemoryMask(plan.shape_yx)
        numbers, before = count(), 0

        def advance(block: Block | BlockParts, buildings: int) -> None:
            nonlocal before
            if mask is not None and block.mask is not None:
                mask.write(block.window, block.mask)
            with self._lock:
                del self._ahead_px[scene.name, next(numbers)]
                self._advance(block.window.area_px, buildings - before)
            before = buildings

        def checked() -> Iterator[Block | BlockParts]:
            yield from blocks.blocks
            scene.check_unchanged(stamp)

        result = write_outputs(
            plan, FileSink(paths, plan), checked(), advance, spill=self.store.spill,
            # Images are read while others are finished, which is no time of their own.
            started=max(blocks.started, self._ended),
            segmenter=self.segmenter, answers=blocks.folder, workers=blocks.workers,
        )  # fmt: skip
        summary = result.summary
        self.notes += summary.notes
        self.resumed_blocks += summary.blocks_resumed
        self.resumed_px += summary.pixels_resumed
        output = PredictOutput.of(scene.shown, self.options.outputs, paths, result)
        figures = summary.to_json() | {
            "input": scene.shown,
            "provenance": asdict(plan.provenance),
            "failed_tiles": list(result.tiles.errors),
        }
        record: dict[str, Any] = {"output": output.to_json(), "figures": figures}
        if result.outline is not None:
            record["outline"] = to_wkb(result.outline, hex=True)
        if mask is not None and order is not None:
            record["runs"] = encode_runs(mask.data == plan.spec.building_class, order)
        return output.files, record

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
        self._take(scene, record, advance=True)
        return True

    def receive(
        self, scene: SceneInput, files: list[str], record: Mapping[str, Any], stamp: str
    ) -> None:
        """Add an image that another process has finished; see `RunFolder.add`."""
        try:
            self.store.add(scene, files, record, stamp)
            self._take(scene, record, advance=True)
        except RooftraceError as error:
            self.fail(scene, error)

    def fail(self, scene: SceneInput, error: RooftraceError) -> None:
        """Add an image that failed."""
        self.failed[scene.name] = FailedImage(scene.name, scene.shown, error)

    def _take(self, scene: SceneInput, record: Mapping[str, Any], *, advance: bool = False) -> None:
        """Add the output of a finished image, by its record."""
        output = PredictOutput.from_json(record["output"])
        self.outputs[scene.name] = output
        if advance:
            self._advance(output.pixels, output.buildings or 0)
        if self.run_options.on_done is not None:
            self.run_options.on_done(scene, record)

    def _add_tile(self, item: tuple[SceneInput, str], plan: ScenePlan, index: TileIndex) -> None:
        """Add a tile that was run to the progress, as a part of its block."""
        number = plan.blocks_needing(index)[0]
        with self._lock:
            share_px = plan.blocks[number].area_px // len(plan.own_tiles(number))
            self._ahead_px[item[0].name, number] += share_px
            self._advance(0, 0)

    def _advance(self, pixels: int, buildings: int) -> None:
        with self._lock:
            self._done_px += pixels
            self._buildings += buildings
            if self.run_options.progress is not None:
                done_px = self._done_px + self._ahead_px.total()
                self.run_options.progress(done_px, max(done_px, self.total_px), self._buildings)

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
