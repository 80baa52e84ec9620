"""`rooftrace predict`: files and folders in; masks, polygons, previews and a record out."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rooftrace.core.errors import ConfigError, RooftraceError
from rooftrace.core.types import RasterSource
from rooftrace.flows.inputs import Job, find_jobs
from rooftrace.flows.machine import peak_rss_mb, versions
from rooftrace.io.atomic import export_error, write_atomically
from rooftrace.io.raster import NodataRule
from rooftrace.predict.ensemble import Combine, Models, load_models
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.result import ClassFigures, OutputPaths, Summary
from rooftrace.predict.tta import Tta

__all__ = ["PredictOutput", "PredictReport", "run_predict"]

Progress = Callable[[int, int], None]

_MOST_LISTED = 10


@dataclass(frozen=True)
class PredictOutput:
    """One image: where its results are, and their figures."""

    input: str
    mask: str
    polygons: str
    preview: str
    buildings: int
    built_up_share: float
    pixels: int
    seconds: float
    classes: tuple[ClassFigures, ...]


@dataclass(frozen=True)
class PredictReport:
    """A run.

    Args:
        outputs: one for each image, in order.
        mpx_per_s: over all of them, files included.
        peak_rss_mb: of the process.
        notes: what was assumed or skipped, for the person to see.
    """

    outputs: tuple[PredictOutput, ...]
    mpx_per_s: float
    peak_rss_mb: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "outputs": [asdict(output) for output in self.outputs],
            "mpx_per_s": self.mpx_per_s,
            "peak_rss_mb": self.peak_rss_mb,
        }


def run_predict(
    inputs: Sequence[Path],
    bundle: Models,
    out: Path,
    *,
    gsd_m: float | None = None,
    threshold: float | None = None,
    min_area_m2: float | None = None,
    ensemble: Combine = "average",
    weights: Sequence[float] | None = None,
    tta: Tta | None = None,
    engine: str | None = None,
    precision: str | None = None,
    nodata: NodataRule | None = None,
    mosaic: bool = False,
    zoom: int | None = None,
    progress: Progress | None = None,
) -> PredictReport:
    """Predict every image that `inputs` name. Slippy tiles lie where their names say.

    An image that fails does not stop the others; its error is raised when they are done, and
    `run.json` tells what there is.

    Args:
        inputs: images, folders of images, and folders of slippy tiles.
        bundle: the model, several that are combined, or None for the one that comes with
            rooftrace.
        out: folder for the results; made where it is missing.
        gsd_m: metres per pixel of the images, where their georeference does not say.
        threshold: on the building's probability; default the model's own.
        min_area_m2: smaller polygons are left out.
        ensemble, weights: how several models are combined.
        tta: each model also sees mirrored tiles, see `Tta`.
        engine, precision: default the fastest that runs well here.
        nodata: what is nodata in the images besides what they say themselves.
        mosaic: whether each input is a folder of slippy tiles that is one scene.
        zoom: of the tiles of a mosaic, where there are several.
        progress: called with the pixels that are done and that there are.

    Raises:
        ConfigError: two images whose results would have one name, or that would be overwritten;
            a mosaic of several zooms; a threshold for a model of more than two classes.
        DataError, BundleError, PredictError, ExportError: as an image or the model gives cause.
    """
    jobs, skipped = find_jobs(inputs, nodata, mosaic=mosaic, zoom=zoom)
    _check_names(jobs, out)
    predictor = load_models(
        bundle, ensemble, weights=weights, tta=tta, engine=engine, precision=precision
    )
    threshold = predictor.threshold_for(threshold)
    _check_writable(out)
    run = _Run(predictor, out, progress)
    run.notes += getattr(predictor.engine, "notes", ())
    run.total_px = sum(_pixels_of(job.source) for job in jobs)
    for job in jobs:
        run.add(job, gsd_m=gsd_m, threshold=threshold, min_area_m2=min_area_m2)
    if skipped:
        run.notes.append(_skipped_note(skipped))
    report = run.report()
    record = _record(run, report, [job.path for job in jobs], skipped)
    record["options"] = {
        "gsd_m": gsd_m,
        "threshold": threshold,
        "min_area_m2": min_area_m2,
        "nodata": None if nodata is None else asdict(nodata),
        "mosaic": mosaic,
        "zoom": zoom,
    }
    write_atomically(out / "run.json", (json.dumps(record, indent=1) + "\n").encode())
    if run.failed:
        raise _failure(run.failed, len(jobs))
    return report


def _check_names(jobs: Sequence[Job], out: Path) -> None:
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
        for ending in ("_mask.tif", "_mask.png", "_preview.png"):
            target = out / (job.name + ending)
            if target.resolve() in given:
                raise ConfigError(
                    f"The result of {job.path} would be written over the input {target}.",
                    remedy="Choose another folder with -o.",
                )


def _check_writable(out: Path) -> None:
    # Told before hours of work and not after them.
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise export_error(out, error) from error


def _pixels_of(source: RasterSource) -> int:
    try:
        return source.grid.height * source.grid.width
    except RooftraceError:
        # Raised again, and told, when it is its turn.
        return 0


class _Run:
    """What is gathered while images are predicted one after the other."""

    def __init__(self, predictor: Predictor, out: Path, progress: Progress | None) -> None:
        self.predictor = predictor
        self.out = out
        self.total_px = 0
        self.outputs: list[PredictOutput] = []
        self.figures: list[dict[str, Any]] = []
        self.failed: list[tuple[Path, RooftraceError]] = []
        self.notes: list[str] = []
        self._progress = progress
        self._done_px = 0
        self._started = time.perf_counter()

    def add(self, job: Job, **options: float | None) -> None:
        started = time.perf_counter()

        def progress(done: int, _total: int) -> None:
            if self._progress is not None:
                self._progress(self._done_px + done, self.total_px)

        try:
            paths, result = self.predictor.predict_to_files(
                job.source, self.out, name=job.name, progress=progress, **options
            )
        except RooftraceError as error:
            self.failed.append((job.path, error))
            return
        finally:
            job.source.close()
        self._done_px += result.summary.pixels
        self.notes += result.summary.notes
        self.outputs.append(_output(job.path, paths, result.summary, time.perf_counter() - started))
        self.figures.append(result.summary.to_json() | {"input": str(job.path)})

    def report(self) -> PredictReport:
        seconds = time.perf_counter() - self._started
        pixels = sum(output.pixels for output in self.outputs)
        return PredictReport(
            outputs=tuple(self.outputs),
            mpx_per_s=pixels / 1e6 / max(seconds, 1e-9),
            peak_rss_mb=peak_rss_mb(),
            notes=tuple(_shortened(self.notes)),
        )


def _output(path: Path, paths: OutputPaths, summary: Summary, seconds: float) -> PredictOutput:
    return PredictOutput(
        input=str(path),
        mask=str(paths.mask),
        polygons=str(paths.polygons),
        preview=str(paths.preview),
        buildings=summary.buildings,
        built_up_share=summary.built_up_share,
        pixels=summary.pixels,
        seconds=seconds,
        classes=summary.classes,
    )


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
    run: _Run, report: PredictReport, images: Sequence[Path], skipped: Sequence[Path]
) -> dict[str, Any]:
    bundle = run.predictor.bundle
    engine = run.predictor.engine
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [str(path) for path in images],
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
        "figures": run.figures,
        "failed": [{"input": str(path), **error.to_json()} for path, error in run.failed],
        "skipped": [str(path) for path in skipped],
        "notes": run.notes,
        "versions": versions(),
    }


def _failure(failed: Sequence[tuple[Path, RooftraceError]], count: int) -> RooftraceError:
    path, error = failed[0]
    if count == 1:
        return error
    message = error.message if str(path) in error.message else f"{path}: {error.message}"
    told = f"{len(failed)} of {count} images failed, as run.json tells."
    return type(error)(f"{message} {told}", remedy=error.remedy)
