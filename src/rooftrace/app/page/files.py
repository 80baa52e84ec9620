"""Downloads of the page, made on request, and the HTTP routes that serve them.

The routes also serve the viewer's picture layers and the table of a run.
"""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool

from rooftrace.app.page.pictures import fill_png, outlines, picture_jpeg
from rooftrace.app.page.results import Result, ResultStore, missing_file
from rooftrace.core.errors import ConfigError, RooftraceError
from rooftrace.core.faces import in_page_terms
from rooftrace.density.threshold import DEFAULT_THRESHOLD
from rooftrace.io.image_write import write_png
from rooftrace.io.vector_write import write_footprints
from rooftrace.predict.result import OutputPaths, Prediction
from rooftrace.rest.job_schemas import JobRequest
from rooftrace.rest.jobs import JobIntake
from rooftrace.rest.upload import cannot_store

__all__ = ["DOWNLOADS", "ROOT", "Download", "page_router", "table_csv"]


@dataclass(frozen=True)
class Download:
    """A kind of file to download.

    Args:
        label: Text of the link.
        make: Function that writes the file into a folder and returns its path.
    """

    label: str
    make: Callable[[Prediction, Path], Path]

    def of(self, prediction: Prediction) -> tuple[str, bytes]:
        """Return the file's name and content; nothing stays on disk.

        Raises:
            ExportError: The disk is full.
        """
        with tempfile.TemporaryDirectory(prefix="rooftrace-") as folder:
            path = self.make(prediction, Path(folder))
            return path.name, path.read_bytes()


def _mask(prediction: Prediction, folder: Path) -> Path:
    paths = OutputPaths.of(folder, prediction.name, prediction.mask.grid, prediction.legend)
    prediction.write_mask(paths.mask)
    return paths.mask


def _outlines(suffix: str) -> Callable[[Prediction, Path], Path]:
    def make(prediction: Prediction, folder: Path) -> Path:
        paths = OutputPaths.of(folder, prediction.name, prediction.mask.grid, prediction.legend)
        path = paths.polygons.with_suffix(suffix)
        write_footprints(path, prediction.outlines)
        return path

    return make


def _overlay(prediction: Prediction, folder: Path) -> Path:
    path = folder / f"{prediction.name}_overlay.png"
    assert prediction.result.preview is not None
    write_png(path, prediction.result.preview, photograph=True)
    return path


DOWNLOADS = {
    "mask": Download("Mask", _mask),
    "geojson": Download("GeoJSON", _outlines(".geojson")),
    "gpkg": Download("GeoPackage", _outlines(".gpkg")),
    "overlay": Download("Picture", _overlay),
}
"""Downloads by their names in addresses."""

_COLUMNS = (
    "image", "buildings", "built_up_share", "density", "gsd_m", "threshold", "pixels",
    "valid_pixels", "error",
)  # fmt: skip


def table_csv(results: Sequence[Result]) -> str:
    """Return the figures of a run's images as CSV, one row an image, with the error of failed
    ones.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for result in results:
        summary = result.summary
        if summary is None:
            reason = _plain(in_page_terms(str(result.error)))
            writer.writerow([_plain(result.name), *[""] * (len(_COLUMNS) - 2), reason])
            continue
        writer.writerow([
            _plain(result.name), summary.buildings, f"{summary.built_up_share:.6f}",
            dense_or_sparse(summary.built_up_share, summary.valid_pixels) or "",
            "" if summary.gsd_m is None else f"{summary.gsd_m:.6g}",
            "" if summary.threshold is None else f"{summary.threshold:g}",
            summary.pixels, summary.valid_pixels, "",
        ])  # fmt: skip
    return text.getvalue()


def dense_or_sparse(built_up_share: float, valid_pixels: int) -> str | None:
    """Return the class that `rooftrace density` gives; None if no pixel is valid."""
    share = np.array([built_up_share if valid_pixels else np.nan])
    named: str | None = DEFAULT_THRESHOLD.classes(share)[0]
    return named


def _plain(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


ROOT = "/page"

Made = TypeVar("Made")

_KEPT = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
_FRESH = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def page_router(store: ResultStore, intake: JobIntake | None = None) -> APIRouter:
    """Return the routes under `ROOT`; an address names a run and the number of an image only.

    Args:
        store: Store of the results.
        intake: Intake of jobs, if the server has jobs.
    """
    router = APIRouter(prefix=ROOT, include_in_schema=False)

    def found(run: str, index: int) -> Result:
        result = store.get(run, index)
        if result is None:
            raise HTTPException(404, "There is no such result any more; drop the image once more.")
        return result

    @router.get("/{run}/table.csv")
    def table(run: str) -> Response:
        results = store.run(run)
        if not results:
            raise HTTPException(404, "There are no such results any more; drop the images anew.")
        return _attached("rooftrace.csv", table_csv(results).encode(), "text/csv; charset=utf-8")

    @router.get("/{run}/{index}/picture.jpg")
    def picture(run: str, index: int) -> Response:
        scores = _asked(lambda: found(run, index).scores)
        return Response(picture_jpeg(scores), media_type="image/jpeg", headers=_KEPT)

    @router.get("/{run}/{index}/fill.png")
    def fill(run: str, index: int) -> Response:
        result = found(run, index)
        data = _asked(lambda: fill_png(result.scores, result.at()))
        return Response(data, media_type="image/png", headers=_KEPT)

    @router.get("/{run}/{index}/outlines.bin")
    def rings(run: str, index: int, threshold: float | None = None) -> Response:
        result = found(run, index)
        data = _asked(lambda: outlines(result.scores, result.at(_checked(threshold))))
        return Response(data, media_type="application/octet-stream", headers=_KEPT)

    @router.get("/{run}/{index}/{kind}")
    def download(run: str, index: int, kind: str, threshold: float | None = None) -> Response:
        if kind not in DOWNLOADS:
            raise HTTPException(404, f"There is no file {kind!r}; expected {[*DOWNLOADS]}.")
        result = found(run, index)
        name, data = _asked(lambda: DOWNLOADS[kind].of(result.at(_checked(threshold))))
        return _attached(name, data, "application/octet-stream")

    if intake is not None:

        @router.post("/{run}/{index}/job", status_code=202)
        async def job(request: Request, run: str, index: int) -> dict[str, str]:
            """Start a job that predicts the image again, with all outputs of a results folder."""
            result = found(run, index)

            async def receive(path: Path) -> JobRequest:
                await run_in_threadpool(_copy_upload, result, path)
                return JobRequest(result.name, result.job_options)

            created = await intake.create(request, receive)
            return {"id": created.id}

    return router


def _copy_upload(result: Result, path: Path) -> None:
    """Copy the uploaded file of a result.

    Raises:
        DataError: The file has been removed.
        HTTPException: The disk is full, or cannot be written.
    """
    if result.file is None or not result.file.is_file():
        raise missing_file(Path(result.name))
    try:
        shutil.copyfile(result.file, path)
    except OSError as error:
        raise cannot_store(error) from error


def _checked(threshold: float | None) -> float | None:
    if threshold is None or 0 <= threshold <= 1:
        return threshold
    raise ConfigError(f"The threshold is {threshold}; a number from 0 to 1 was expected.")


def _asked(make: Callable[[], Made]) -> Made:
    """Return what `make` returns; turn our errors into HTTP answers."""
    try:
        return make()
    except RooftraceError as error:
        raise HTTPException(409, str(error)) from error


def _attached(name: str, data: bytes, media_type: str) -> Response:
    named = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return Response(data, media_type=media_type, headers=_FRESH | {"Content-Disposition": named})
