"""What is gathered while images go through the network: of a run, or of one image on a worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from shapely import to_wkb

from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import RasterSource
from rooftrace.flows.inputs import Job
from rooftrace.flows.machine import peak_rss_mb
from rooftrace.flows.predict_report import PredictOutput, PredictReport, output_of
from rooftrace.io.remote import coarsened
from rooftrace.predict.block import Block
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.parts import PartStore
from rooftrace.predict.passage import SceneStream
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.result import OutputPaths
from rooftrace.predict.scene import ScenePlan
from rooftrace.predict.work import SceneWork

__all__ = ["Keeper", "OnDone", "Progress", "SceneRun"]

Progress = Callable[[int, int, int], None]
"""Called with the pixels that are done, that there are, and the buildings that were found."""

OnDone = Callable[[Job, Mapping[str, Any]], None]
"""Called with each image that is done, and with what is kept of it."""

_MOST_LISTED = 10

_MOST_FIGURES = 1000
"""Images of which run.json has all figures."""


class Keeper(Protocol):
    """What keeps what is known of images, as `RunFolder` does."""

    @property
    def spool(self) -> Path | None: ...
    def finished(self, job: Job) -> Mapping[str, Any] | None: ...
    def record(self, job: Job) -> Mapping[str, Any]: ...
    def parts(self, job: Job, grid: Mapping[str, Any]) -> PartStore: ...
    def add(self, job: Job, files: list[str], record: Mapping[str, Any]) -> None: ...


class SceneRun:
    """What is gathered while images go through the network, one after the other or together.

    Images are opened in the thread that reads, and their files written in the one that finishes.
    """

    def __init__(
        self,
        predictor: Predictor,
        out: Path,
        options: SceneOptions,
        folder: Keeper,
        progress: Progress | None,
        on_done: OnDone | None,
    ) -> None:
        self.predictor = predictor
        self.out = out
        self.total_px = 0
        self.outputs: dict[str, PredictOutput] = {}
        self.failed: dict[str, tuple[str, RooftraceError]] = {}
        self.notes: list[str] = []
        self.resumed_images = 0
        self.resumed_blocks = 0
        self._begun: dict[str, SceneWork] = {}
        self.options = options
        self._folder = folder
        self._progress = progress
        self._on_done = on_done
        self._done_px = 0
        self._resumed_px = 0
        self._buildings = 0
        self._started = time.perf_counter()

    def scenes(self, jobs: Sequence[Job], *, strict: bool) -> Iterator[SceneStream]:
        """What is to be done of the images; those that cannot be begun have failed.

        Args:
            strict: whether none is begun once one has failed.
        """
        for job in jobs:
            if strict and self.failed:
                return
            try:
                if not self.take_up(job):
                    self.notes += job.notes
                    yield self._begin(job)
            except RooftraceError as error:
                self.failed[job.name] = job.shown, error
                job.source.close()

    def abandon(self, error: BaseException) -> None:
        """Leave nothing half-written behind of the images that were under way."""
        for work in self._begun.values():
            work.abandon(error)

    def take_up(self, job: Job) -> bool:
        """Whether an earlier run has done an image, which is taken over then."""
        record = self._folder.finished(job)
        if record is None:
            return False
        self.resumed_images += 1
        self._resumed_px += int(record["output"]["pixels"])
        self.take(job, record)
        return True

    def take(self, job: Job, record: Mapping[str, Any]) -> None:
        """Take what was made of an image elsewhere, or before."""
        output = PredictOutput.from_json(record["output"])
        self.outputs[job.name] = output
        self._done_px += output.pixels
        self._buildings += output.buildings or 0
        if self._progress is not None:
            self._progress(self._done_px, self.total_px, self._buildings)
        if self._on_done is not None:
            self._on_done(job, record)

    def _begin(self, job: Job) -> SceneStream:
        predictor = self.predictor
        source: RasterSource = job.source
        if self.options.gsd_m is None and self.options.scale is None:
            source, note = coarsened(source, predictor.bundle.spec.gsd_m)
            self.notes += [note] if note else []
        paths = predictor.paths_for(source, self.out, job.name)
        before = 0

        def on_block(work: SceneWork, block: Block) -> None:
            nonlocal before
            self._done_px += block.window.area_px
            self._buildings += work.buildings - before
            before = work.buildings
            if self._progress is not None:
                self._progress(self._done_px, self.total_px, self._buildings)

        def close(scene: SceneStream) -> None:
            del self._begun[job.name]
            try:
                if scene.error is not None:
                    raise scene.error
                self._finish(job, scene, work, paths)
            except RooftraceError as error:
                work.abandon(error)
                self.failed[job.name] = job.shown, error
            finally:
                self.notes += getattr(source, "notes", ())
                getattr(source, "close", lambda: None)()

        scene, work = predictor.start(
            source, self.options, predictor.sink_for(source, paths, self.options),
            folder=self._folder.spool, on_block=on_block, close=close,
        )  # fmt: skip
        self._begun[job.name] = work
        if work.plan.block_count > 1:
            scene.parts = self._folder.parts(job, _grid_of(source, work.plan))
        return scene

    def _finish(self, job: Job, scene: SceneStream, work: SceneWork, paths: OutputPaths) -> None:
        result = work.finish(scene.stats, *paths.writers(self.options), _lost(scene))
        summary = result.summary
        self.notes += summary.notes
        self.resumed_blocks += summary.blocks_resumed
        output = output_of(job.shown, paths, result, self.options)
        figures = summary.to_json() | {"input": job.shown, "failed_tiles": scene.failed}
        self.outputs[job.name] = output
        files = [output.mask, output.polygons, output.preview, output.density]
        record: dict[str, Any] = {"output": asdict(output), "figures": figures}
        if result.outline is not None:
            record["outline"] = to_wkb(result.outline, hex=True)
        self._folder.add(job, [file for file in files if file is not None], record)
        if self._on_done is not None:
            self._on_done(job, record)

    def failures(self, jobs: Sequence[Job]) -> list[tuple[str, RooftraceError]]:
        """The images that failed and why, in their order."""
        return [self.failed[job.name] for job in jobs if job.name in self.failed]

    def figures(self, jobs: Sequence[Job]) -> list[dict[str, Any]] | None:
        """All that was counted of each image; None of very many, of which `outputs` tell enough."""
        done = [job for job in jobs if job.name in self.outputs]
        if len(done) > _MOST_FIGURES:
            return None
        return [self._folder.record(job)["figures"] for job in done]

    def report(self, jobs: Sequence[Job]) -> PredictReport:
        seconds = time.perf_counter() - self._started
        outputs = tuple(self.outputs[job.name] for job in jobs if job.name in self.outputs)
        pixels = sum(output.pixels for output in outputs) - self._resumed_px
        return PredictReport(
            outputs=outputs,
            mpx_per_s=pixels / 1e6 / max(seconds, 1e-9),
            peak_rss_mb=peak_rss_mb(),
            resumed_images=self.resumed_images,
            resumed_blocks=self.resumed_blocks,
            notes=tuple(_shortened(self.notes)),
            failures=tuple(self.failures(jobs)),
        )


def _grid_of(source: RasterSource, plan: ScenePlan) -> dict[str, Any]:
    grid = source.grid
    return {
        "shape": list(grid.shape),
        "transform": [*grid.transform][:6],
        "crs": None if grid.crs is None else grid.crs.to_wkt(),
        "rows": list(plan.rows.edges),
        "cols": list(plan.cols.edges),
        "tile": list(plan.tiles.tile_shape_yx),
    }


def _lost(scene: SceneStream) -> tuple[str, ...]:
    count = scene.stats.tiles_failed
    if not count:
        return ()
    return (f"{scene.source.name}: {count} tiles failed and are nodata now, as run.json tells.",)


def _shortened(notes: list[str]) -> list[str]:
    """A folder of images that all lack the same says so a few times, not thousands."""
    if len(notes) <= _MOST_LISTED:
        return notes
    return [*notes[:_MOST_LISTED], f"… and {len(notes) - _MOST_LISTED} notes more, in run.json."]
