"""Downloads and viewer layers of the page, made on request, and the HTTP routes that serve them."""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import shapely
from affine import Affine
from fastapi import APIRouter, HTTPException, Request, Response
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from rooftrace.app.page.results import Result, ResultStore, missing_file
from rooftrace.core.errors import ConfigError, RooftraceError
from rooftrace.core.names import content_disposition
from rooftrace.core.text import in_page_terms
from rooftrace.density.threshold import DEFAULT_THRESHOLD
from rooftrace.io.image_write import write_png
from rooftrace.io.legend import NODATA
from rooftrace.io.vector_write import write_footprints
from rooftrace.predict.result import OutputPaths, Prediction
from rooftrace.predict.scores import KeptScores
from rooftrace.rest.job_schemas import JobRequest
from rooftrace.rest.jobs import JobIntake
from rooftrace.rest.upload import cannot_store


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
        scores = _with_http_errors(lambda: found(run, index).scores)
        return Response(picture_jpeg(scores), media_type="image/jpeg", headers=_KEPT)

    @router.get("/{run}/{index}/fill.png")
    def fill(run: str, index: int) -> Response:
        result = found(run, index)
        data = _with_http_errors(lambda: fill_png(result.scores, result.at()))
        return Response(data, media_type="image/png", headers=_KEPT)

    @router.get("/{run}/{index}/outlines.bin")
    def rings(run: str, index: int, threshold: float | None = None) -> Response:
        result = found(run, index)
        data = _with_http_errors(lambda: outlines(result.scores, result.at(_checked(threshold))))
        return Response(data, media_type="application/octet-stream", headers=_KEPT)

    @router.get("/{run}/{index}/{kind}")
    def download(run: str, index: int, kind: str, threshold: float | None = None) -> Response:
        if kind not in DOWNLOADS:
            raise HTTPException(404, f"There is no file {kind!r}; expected {[*DOWNLOADS]}.")
        result = found(run, index)
        name, data = _with_http_errors(lambda: DOWNLOADS[kind].of(result.at(_checked(threshold))))
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


def _with_http_errors(make: Callable[[], Made]) -> Made:
    """Return what `make` returns; turn our errors into HTTP answers."""
    try:
        return make()
    except RooftraceError as error:
        raise HTTPException(409, str(error)) from error


def _attached(name: str, data: bytes, media_type: str) -> Response:
    headers = _FRESH | {"Content-Disposition": content_disposition(name)}
    return Response(data, media_type=media_type, headers=headers)


RAMP = ("#f03b20", "#feb24c", "#ffffb2", "#41b6e4", "#2166ff")
"""Colours of the confidence from `LOW_SCORE` to 1: red to blue, distinct for dichromats too."""

LOW_SCORE = 0.3
_BINS = 32
_PER_PX = 16
_THUMB_PX = 240
_JPEG_QUALITY = 92


def picture_jpeg(scores: KeptScores) -> bytes:
    """Return the image as JPEG, at the size of `KeptScores.picture`."""
    return _encoded(".jpg", scores.picture[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)


def fill_png(scores: KeptScores, prediction: Prediction) -> bytes:
    """Return the fill of the picture as PNG, at the same size.

    For two classes it is the probability as grey, 0 for nodata; the browser applies the threshold.
    For more classes it has their colours; background and nodata are transparent.
    """
    mask = prediction.mask.data[:: scores.step, :: scores.step]
    if prediction.summary.threshold is not None:
        known = prediction.mask.valid[:: scores.step, :: scores.step]
        return _encoded(".png", np.where(known, scores.score, 0), cv2.IMWRITE_PNG_COMPRESSION, 1)
    table = prediction.legend.table.copy()
    table[0, 3] = table[NODATA, 3] = 0
    return _encoded(".png", table[mask][..., [2, 1, 0, 3]], cv2.IMWRITE_PNG_COMPRESSION, 1)


def outlines(scores: KeptScores, prediction: Prediction) -> bytes:
    """Return the rings of all outlines, with holes, which the browser draws at any size.

    Returns:
        Little-endian: uint32 n; (n,) uint32 number of points of each ring; (points, 2) int16 x and
        y in 16ths of the picture's pixels; (n,) uint8 index of each ring in `outline_colours`.
    """
    found = prediction.outlines
    if not len(found):
        return np.zeros(1, "<u4").tobytes()
    _, xy, (ring_ends, polygon_ends) = shapely.to_ragged_array(np.asarray(found.geometry))
    lengths = np.diff(ring_ends)
    colour = np.repeat(_colours_of(prediction), np.diff(polygon_ends)).astype(np.uint8)
    grid = prediction.mask.grid
    to_pixel = ~grid.transform if grid.crs is not None else Affine.identity()
    t = Affine.scale(1 / scores.step) @ to_pixel
    x = t.a * xy[:, 0] + t.b * xy[:, 1] + t.c
    y = t.d * xy[:, 0] + t.e * xy[:, 1] + t.f
    points = np.rint(np.stack([x, y], axis=1) * _PER_PX).astype("<i2")
    count = np.array([len(lengths)], "<u4")
    return b"".join(one.tobytes() for one in (count, lengths.astype("<u4"), points, colour))


def outline_colours(prediction: Prediction) -> list[str]:
    """Return the `#RRGGBB` colours of `outlines`: by confidence, or by class if there are
    several.
    """
    if prediction.summary.threshold is None:
        table = [prediction.legend.rgb(index) for index in range(len(prediction.legend.names))]
    else:
        table = [ramp_colour(number / (_BINS - 1)) for number in range(_BINS)]
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in table]


def _colours_of(prediction: Prediction) -> NDArray[np.int64]:
    """Return (n,) index of each outline in `outline_colours`; unknown scores count as the
    lowest.
    """
    found = prediction.outlines
    if prediction.summary.threshold is None:
        assert found.class_id is not None
        return found.class_id.astype(np.int64)
    along = (np.nan_to_num(found.score).astype(np.float64) - LOW_SCORE) / (1 - LOW_SCORE)
    return np.asarray(np.rint(along.clip(0, 1) * (_BINS - 1)), dtype=np.int64)


def ramp_colour(at: float) -> tuple[int, int, int]:
    """Return red, green and blue at a position of 0 to 1 on the ramp."""
    stops = np.array([list(bytes.fromhex(text[1:])) for text in RAMP], dtype=np.float64)
    place = np.linspace(0, 1, len(stops))
    red, green, blue = (round(float(np.interp(at, place, stops[:, band]))) for band in range(3))
    return red, green, blue


def thumbnail(scores: KeptScores, prediction: Prediction) -> NDArray[np.uint8]:
    """Return a (y, x, 3) thumbnail of the image with its buildings, for the gallery."""
    picture = scores.picture
    if prediction.result.preview is not None:
        drawn = np.asarray(prediction.result.preview)
        height, width = picture.shape[:2]
        left = (drawn.shape[1] - width) // 2
        picture = drawn[:height, left : left + width]
    scale = _THUMB_PX / max(picture.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(picture)
    size = tuple(max(1, round(length * scale)) for length in (picture.shape[1], picture.shape[0]))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _encoded(suffix: str, picture: NDArray[Any], option: int, value: int) -> bytes:
    done, data = cv2.imencode(suffix, picture, [option, value])
    assert done
    return bytes(data)
