"""`rooftrace predict`: files and folders in; masks, polygons, previews and a record out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rooftrace.core.errors import ConfigError, RooftraceError
from rooftrace.core.types import RasterSource
from rooftrace.core.versions import installed
from rooftrace.flows.executor import Executor, executing
from rooftrace.flows.inputs import Job, find_jobs
from rooftrace.flows.machine import versions
from rooftrace.flows.predict_report import PredictReport
from rooftrace.flows.runfolder import RunFolder
from rooftrace.flows.scene_run import OnDone, Progress, SceneRun
from rooftrace.flows.whole import Wholes
from rooftrace.io.area import Area
from rooftrace.io.atomic import write_atomically
from rooftrace.io.raster import NodataRule
from rooftrace.io.vector import check_vector_path
from rooftrace.models.spec import BundleSpec
from rooftrace.predict.ensemble import Combine
from rooftrace.predict.model_set import Models, read_models
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.predictor import Predictor
from rooftrace.predict.tta import Tta

if TYPE_CHECKING:
    from rooftrace.predict.cluster.ray_pool import ClusterOptions

__all__ = ["run_jobs", "run_predict"]

_MOST_LISTED = 10

_ASKED_AT_ONCE = 16
"""Images on servers, whose headers are some hundred milliseconds away."""


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
                # The largest first: else all would wait for one of them in the end; before them
                # those that cannot be opened.
                apart.sort(key=lambda job: -(sizes[job.name] or math.inf))
                taker = Wholes(run, folder, sizes, strict=strict)
                executor.run_apart(taker.tasks(apart), taker)
            done = {job.name for job in apart}
            rest = [job for job in jobs if job.name not in done]
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
