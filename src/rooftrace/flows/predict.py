"""`rooftrace predict`: files and folders in; masks, polygons, previews and a record out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from shapely import to_wkb

from rooftrace.core.errors import ConfigError, RooftraceError
from rooftrace.core.types import RasterSource
from rooftrace.core.versions import installed
from rooftrace.flows.executor import Executor, executing
from rooftrace.flows.inputs import Job, find_jobs
from rooftrace.flows.machine import peak_rss_mb, versions
from rooftrace.flows.predict_report import PredictOutput, PredictReport, output_of
from rooftrace.flows.runfolder import RunFolder
from rooftrace.flows.whole import WholeMade, WholeScene
from rooftrace.io.area import Area
from rooftrace.io.atomic import write_atomically
from rooftrace.io.raster import NodataRule
from rooftrace.io.remote import coarsened
from rooftrace.io.vector import check_vector_path
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.block import Block
from rooftrace.predict.cluster.tasks import Task
from rooftrace.predict.ensemble import Combine
from rooftrace.predict.model_set import Models, read_models
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.parts import PartStore
from rooftrace.predict.passage import SceneStream
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.result import OutputPaths
from rooftrace.predict.scene import ScenePlan
from rooftrace.predict.tta import Tta
from rooftrace.predict.work import SceneWork

if TYPE_CHECKING:
    from rooftrace.predict.cluster.ray_pool import ClusterOptions

__all__ = ["Keeper", "OnDone", "SceneRun", "run_jobs", "run_predict"]

Progress = Callable[[int, int, int], None]
"""Called with the pixels that are done, that there are, and the buildings that were found."""

OnDone = Callable[[Job, Mapping[str, Any]], None]
"""Called with each image that is done, and with what is kept of it."""

_MOST_LISTED = 10

_ASKED_AT_ONCE = 16
"""Images on servers, whose headers are some hundred milliseconds away."""

_MOST_FIGURES = 1000
"""Images of which run.json has all figures."""


def run_predict(
    inputs: Sequence[Path | str],
    bundle: Models,
    out: Path,
    options: SceneOptions | None = None,
    *,
    ensemble: Combine = "average",
    weights: Sequence[float] | None = None,
    tta: Tta | None = None,
    engine: str | None = None,
    precision: str | None = None,
    nodata: NodataRule | None = None,
    mosaic: bool = False,
    zoom: int | None = None,
    area: Area | None = None,
    cluster: ClusterOptions | None = None,
    keep: bool = False,
    on_done: OnDone | None = None,
    progress: Progress | None = None,
) -> PredictReport:
    """Predict every image that `inputs` name. Slippy tiles lie where their names say.

    An image that fails does not stop the others; its error is raised when they are done, and
    `run.json` tells what there is. A run that was stopped, however that came about, is gone on
    with by the same call: it writes the same bytes as one that was left alone.

    Args:
        inputs: images, folders of images, and folders of slippy tiles.
        bundle: the model, several that are combined, or None for the one that comes with
            rooftrace.
        out: folder for the results; made where it is missing.
        options: what can be chosen for a scene.
        ensemble, weights: how several models are combined.
        tta: each model also sees mirrored tiles, see `Tta`.
        engine, precision: default the fastest that runs well here.
        nodata: what is nodata in the images besides what they say themselves.
        mosaic: whether each input is a folder of slippy tiles that is one scene.
        zoom: of the tiles of a mosaic, where there are several.
        area: outside of which nothing is done.
        cluster: where blocks are run; default this process. The results are the same bytes.
        keep, on_done: see `run_jobs`.
        progress: see `Progress`.

    Raises:
        ConfigError: two images whose results would have one name, or that would be overwritten;
            a mosaic of several zooms; a threshold for a model of more than two classes.
        DataError, BundleError, PredictError, ExportError: as an image or the model gives cause.
        MissingExtraError: a cluster without its package.
    """
    options = options or SceneOptions()
    jobs, skipped = find_jobs(inputs, nodata, mosaic=mosaic, zoom=zoom, area=area)
    models = read_models(
        bundle, ensemble, weights=weights, tta=tta, engine=engine, precision=precision
    )
    told = {
        "tta": tta,
        "nodata": None if nodata is None else asdict(nodata),
        "mosaic": mosaic,
        "zoom": zoom,
        "area": None if area is None else [area.name, area.digest],
    }
    with executing(models, cluster) as executor:
        report = run_jobs(
            jobs, executor, out, options, told, skipped=skipped, keep=keep, on_done=on_done,
            progress=progress,
        )  # fmt: skip
    if report.failures:
        raise _failure(report.failures, len(jobs))
    return report


def run_jobs(
    jobs: Sequence[Job],
    executor: Executor,
    out: Path,
    options: SceneOptions,
    told: Mapping[str, Any],
    *,
    skipped: Sequence[Path] = (),
    strict: bool = False,
    keep: bool = False,
    on_done: OnDone | None = None,
    progress: Progress | None = None,
) -> PredictReport:
    """Predict any number of images as one run, which the same call goes on with.

    Those that fail are the report's `failures`; what there is of the run stays for the next one.

    Args:
        jobs: with names of their own.
        executor: the model, and where it runs, see `executing`.
        out: folder for the results; made where it is missing.
        options: what was chosen for each scene.
        told: what else the results depend on; plain data. It stands in `run.json`.
        skipped: what was no image among the inputs, to be told of.
        strict: whether no other image is begun once one has failed.
        keep: whether it stays known which images are done, for a run of more of them.
        on_done: called with each image that is done, and what is kept of it, see `RunFolder`.
        progress: see `Progress`.

    Raises:
        ConfigError: two images whose results would have one name, or that would be overwritten; a
            threshold for a model of more than two classes.
        ExportError: another run writes there, or nobody can.
    """
    _check_names(jobs, out, options)
    predictor = executor.predictor
    told = {
        **asdict(options),
        "threshold": predictor.threshold_for(options.threshold),
        **told,
    }
    with RunFolder(out, {"with": _identity(predictor), "options": told}) as folder:
        run = SceneRun(predictor, out, options, folder, progress, on_done)
        if _calibrated_otherwise(predictor.bundle.spec, told):
            run.notes.append(
                "Scores were calibrated for the model's own threshold, without mirrored tiles: "
                "here they are near, but not quite, the probabilities that they stand for."
            )
        sizes = _sizes_of(jobs)
        run.total_px = sum(sizes.values())
        apart = [] if len(jobs) == 1 else [
            job for job in jobs if executor.is_apart(sizes[job.name], run.total_px)
        ]  # fmt: skip
        try:
            if apart:
                # The largest first: else all would wait for one of them in the end.
                apart.sort(key=lambda job: -sizes[job.name])
                taker = _Wholes(run, folder, sizes)
                executor.run_apart(taker.tasks(apart, strict=strict), taker)
            others = {job.name for job in jobs} - {job.name for job in apart}
            rest = [job for job in jobs if job.name in others]
            executor.run(run.scenes(rest, strict=strict))
        except BaseException as error:
            run.abandon(error)
            raise
        # Some are of what the engine met on its way.
        run.notes += [*getattr(predictor.engine, "notes", ()), *executor.notes]
        if skipped:
            run.notes.append(_skipped_note(skipped))
        if folder.replaced:
            run.notes.append(
                f"What an earlier run had begun in {out} was of another model, image or option: "
                "begun anew."
            )
        report = run.report(jobs)
        record = _record(run, report, jobs, skipped) | {"options": told} | executor.record()
        write_atomically(out / "run.json", (json.dumps(record, indent=1) + "\n").encode())
        if not report.failures and not keep:
            folder.discard()
    return report


def _calibrated_otherwise(spec: BundleSpec, told: Mapping[str, Any]) -> bool:
    """Whether the scores of a calibrated model are asked for under other conditions."""
    moved = told["threshold"] not in (None, spec.threshold)
    return spec.calibration is not None and (moved or told.get("tta") is not None)


def _identity(predictor: Predictor) -> dict[str, Any]:
    """All of the model and the program that a result depends on."""
    return {
        "bundle": predictor.bundle.sha256,
        "engine": [predictor.engine.name, predictor.engine.precision],
        "settings": getattr(predictor.engine, "settings", {}),
        "versions": installed(("rooftrace", "openvino", "onnxruntime", "numpy", "shapely")),
    }


def _check_names(jobs: Sequence[Job], out: Path, options: SceneOptions) -> None:
    by_name: dict[str, Path] = {}
    for job in jobs:
        other = by_name.setdefault(job.name, job.path)
        if other != job.path:
            raise ConfigError(
                f"{other} and {job.path} would both be written as {job.name}_… in {out}.",
                remedy="Predict them into different folders, or rename one.",
            )
    given = {job.path.resolve() for job in jobs}
    for job in jobs:
        if {"polygons", "density"} & {*options.outputs}:
            # Before anything is computed that could not be written then.
            check_vector_path(out / f"{job.name}.gpkg")
        for ending in ("_mask.tif", "_mask.png", "_preview.png"):
            target = out / (job.name + ending)
            if target.resolve() in given:
                raise ConfigError(
                    f"The result of {job.path} would be written over the input {target}.",
                    remedy="Choose another folder with -o.",
                )


def _sizes_of(jobs: Sequence[Job]) -> dict[str, int]:
    """Pixels of images by name; of those on servers many are asked at once."""
    remote = [job for job in jobs if job.url]
    with ThreadPoolExecutor(_ASKED_AT_ONCE, "header") as pool:
        sizes = dict(zip([job.name for job in remote],
                         pool.map(_pixels_of, [job.source for job in remote])))  # fmt: skip
    return sizes | {job.name: _pixels_of(job.source) for job in jobs if not job.url}


def _pixels_of(source: RasterSource) -> int:
    try:
        return source.grid.height * source.grid.width
    except RooftraceError:
        # Raised again, and told, when it is its turn.
        return 0


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


class _Wholes:
    """Images that workers do by themselves; see `TaskTaker`."""

    def __init__(self, run: SceneRun, folder: RunFolder, sizes: Mapping[str, int]) -> None:
        self._run = run
        self._folder = folder
        self._sizes = sizes
        self._jobs: list[Job] = []

    def tasks(self, jobs: Sequence[Job], *, strict: bool) -> Iterator[Task]:
        """What is to be done of the images, as workers have time for them."""
        run = self._run
        for job in jobs:
            if strict and run.failed:
                return
            if run.take_up(job):
                continue
            run.notes += job.notes
            self._jobs.append(job)
            given = WholeScene(job, run.options, run.out.absolute(), self._folder.made_with)
            yield Task(job.shown, "scene", given, max(self._sizes[job.name], 1))

    def done(self, number: int, value: Any) -> None:
        assert isinstance(value, WholeMade)
        job, run = self._jobs[number], self._run
        try:
            files, record = value.put(run.out)
            self._folder.add(job, files, record)
        except RooftraceError as error:
            self.failed(number, error)
            return
        run.notes += value.notes
        run.resumed_blocks += value.resumed_blocks
        run.take(job, record)

    def failed(self, number: int, error: RooftraceError) -> None:
        job = self._jobs[number]
        self._run.failed[job.name] = job.shown, error


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


def _skipped_note(skipped: Sequence[Path]) -> str:
    listed = ", ".join(path.name for path in skipped[:_MOST_LISTED])
    more = f" and {len(skipped) - _MOST_LISTED} more" if len(skipped) > _MOST_LISTED else ""
    return f"skipped as no images: {listed}{more}"


def _record(
    run: SceneRun, report: PredictReport, jobs: Sequence[Job], skipped: Sequence[Path]
) -> dict[str, Any]:
    bundle = run.predictor.bundle
    engine = run.predictor.engine
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [job.shown for job in jobs],
        "bundle": {
            "name": bundle.spec.name,
            "sha256": bundle.sha256,
            "file": bundle.source,
            "gsd_m": bundle.spec.gsd_m,
        },
        "engine": {
            "name": engine.name,
            "precision": engine.precision,
            "settings": getattr(engine, "settings", {}),
        },
        **report.to_json(),
        "figures": run.figures(jobs),
        "failed": [{"input": shown, **error.to_json()} for shown, error in report.failures],
        "skipped": [str(path) for path in skipped],
        "notes": run.notes,
        "versions": versions(),
    }


def _failure(failed: Sequence[tuple[str, RooftraceError]], count: int) -> RooftraceError:
    shown, error = failed[0]
    if count == 1:
        return error
    message = error.message if shown in error.message else f"{shown}: {error.message}"
    told = f"{len(failed)} of {count} images failed, as run.json tells."
    return type(error)(f"{message} {told}", remedy=error.remedy)
