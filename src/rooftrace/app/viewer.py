"""The routes of the viewer on the page `/`: an image is predicted at once, and its threshold moved.

Results are held in memory for a while.
"""

import asyncio
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import shapely
from affine import Affine
from fastapi import APIRouter, HTTPException, Query, Request, Response
from numpy.typing import NDArray
from PIL import Image
from starlette.concurrency import run_in_threadpool

from rooftrace.core.cache import LruCache
from rooftrace.core.errors import RooftraceError
from rooftrace.density.files import DEFAULT_THRESHOLD
from rooftrace.io.files import written_bytes
from rooftrace.io.legend import CONFIDENCE, LOW_SCORE, NODATA
from rooftrace.io.picture import encoded, write_png
from rooftrace.io.vector_write import write_footprints
from rooftrace.predict.outputs import OutputPaths, Prediction
from rooftrace.predict.plan import NOT_CALIBRATED
from rooftrace.predict.scores import KeptPrediction, KeptScores, predict_keeping
from rooftrace.rest.api import figures_of
from rooftrace.rest.schemas import SceneQuery
from rooftrace.rest.transfer import UploadLimiter, content_disposition, read_upload
from rooftrace.service.service import Service

Made = TypeVar("Made")

_MOST_BYTES = 2**30
"""Maximum size of all results in bytes."""

_BYTES_PER_OUTLINE = 1000
"""Approximate size in bytes of a shapely polygon with its figures."""


class Result:
    """Prediction of one image."""

    def __init__(self, name: str, kept: KeptPrediction) -> None:
        self.name = name
        self.scores = kept.scores
        self._prediction = kept.prediction
        self._lock = threading.Lock()
        picture = kept.prediction.result.preview
        mask = kept.prediction.mask
        self.nbytes = (
            kept.scores.nbytes + mask.data.nbytes + mask.valid.nbytes
            + len(kept.prediction.outlines) * _BYTES_PER_OUTLINE
            + (0 if picture is None else picture.width * picture.height * 3)
        )  # fmt: skip

    def at(self, threshold: float | None = None) -> Prediction:
        """Return the prediction at a threshold; the default is the threshold that was used last.

        Raises:
            ConfigError: A threshold was given for a model of more than two classes.
        """
        with self._lock:
            if threshold is not None and threshold != self._prediction.summary.threshold:
                self._prediction = self.scores.redecide(threshold)
            return self._prediction


Results = LruCache[str, Result]
"""Results by key. A key gives access to its result: only the session that predicted it knows it."""


def new_results() -> Results:
    """Return an empty store; the result that was used longest ago expires first."""
    return LruCache(_MOST_BYTES, lambda result: result.nbytes)


def add_result(results: Results, result: Result) -> str:
    """Add a result and return its key, which is drawn at random."""
    key = secrets.token_urlsafe(16)
    results.put(key, result)
    return key


DOWNLOADS = {
    "mask": "Mask", "geojson": "GeoJSON", "gpkg": "GeoPackage", "overlay": "Picture"
}  # fmt: skip
"""Labels of the files to download by their names in URLs."""


def download(prediction: Prediction, kind: str) -> tuple[str, bytes]:
    """Return the name and the content of a file of `DOWNLOADS`; nothing stays on disk."""
    paths = OutputPaths.of(Path(), prediction.name, prediction.mask.grid, prediction.legend)
    if kind == "mask":
        return paths.mask.name, written_bytes(paths.mask.name, prediction.write_mask)
    if kind == "overlay":
        name, picture = f"{prediction.name}_overlay.png", prediction.result.preview
        assert picture is not None
        return name, written_bytes(name, lambda path: write_png(path, picture, photograph=True))
    name = paths.polygons.with_suffix(f".{kind}").name
    return name, written_bytes(name, lambda path: write_footprints(path, prediction.outlines))


ROOT = "/page"

Threshold = Annotated[float | None, Query(ge=0, le=1)]

_CACHED = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
_BINARY = "application/octet-stream"


def viewer_router(results: Results, service: Service) -> APIRouter:
    """Return the routes under `ROOT`: prediction, and the layers and downloads of a result."""
    router = APIRouter(prefix=ROOT, include_in_schema=False)
    limiter = UploadLimiter(service.limits.waiting)

    @router.post("/results")
    async def predict(request: Request, query: Annotated[SceneQuery, Query()]) -> dict[str, Any]:
        with limiter.place(request):
            data, name = await read_upload(request, query.filename, service.limits.upload_bytes)
            options = query.scene_options(("mask", "polygons", "preview"))
            queued = service.submit(data, name, options, predict_keeping)
            result = Result(name, await asyncio.wrap_future(queued.answer))
        return await run_in_threadpool(view, add_result(results, result), result, result.at())

    def view(key: str, result: Result, prediction: Prediction) -> dict[str, Any]:
        figures = figures_of(prediction, service.bundle, counted=True)
        # It would come and go, and move the picture, while the threshold is dragged.
        notes = [note for note in figures.notes if note != NOT_CALIBRATED]
        root = f"{ROOT[1:]}/{key}"
        query = "" if figures.threshold is None else f"?threshold={figures.threshold!r}"
        return {
            "key": key, "name": result.name,
            "kind": "classes" if figures.threshold is None else "score",
            "picture": f"{root}/picture.jpg", "fill": f"{root}/fill.png",
            "outlines": f"{root}/outlines.bin{query}", "colours": outline_colours(prediction),
            "ramp": {"low": LOW_SCORE, "colours": CONFIDENCE}, "threshold": figures.threshold,
            "metres_per_px": None if figures.gsd_m is None else figures.gsd_m * result.scores.step,
            "shape": prediction.mask.grid.shape, "figures": figures.model_dump() | {"notes": notes},
            "built_up": DEFAULT_THRESHOLD.percent(figures.built_up_share, 1).replace("%", " %"),
            "downloads": {
                kind: (label, f"{root}/{kind}{query}") for kind, label in DOWNLOADS.items()
            },
        }  # fmt: skip

    def made(key: str, make: Callable[[Result], Made]) -> Made:
        result = results.get(key)
        if result is None:
            raise HTTPException(404, "This result has expired. Drop the image again.")
        try:
            return make(result)
        except RooftraceError as error:
            raise HTTPException(409, error.in_full) from error

    @router.get("/{key}")
    def decide(key: str, threshold: Threshold = None) -> dict[str, Any]:
        return made(key, lambda it: view(key, it, it.at(threshold)))

    @router.get("/{key}/picture.jpg")
    def picture(key: str) -> Response:
        data = made(key, lambda result: picture_jpeg(result.scores))
        return Response(data, media_type="image/jpeg", headers=_CACHED)

    @router.get("/{key}/fill.png")
    def fill(key: str) -> Response:
        data = made(key, lambda result: fill_png(result.scores, result.at()))
        return Response(data, media_type="image/png", headers=_CACHED)

    @router.get("/{key}/outlines.bin")
    def rings(key: str, threshold: Threshold = None) -> Response:
        data = made(key, lambda result: outlines(result.scores, result.at(threshold)))
        return Response(data, media_type=_BINARY, headers=_CACHED)

    @router.get("/{key}/{kind}")
    def file(key: str, kind: str, threshold: Threshold = None) -> Response:
        if kind not in DOWNLOADS:
            raise HTTPException(404, f"The file {kind!r} does not exist; expected {[*DOWNLOADS]}.")
        name, data = made(key, lambda result: download(result.at(threshold), kind))
        headers = _CACHED | {
            "Cache-Control": "no-store", "Content-Disposition": content_disposition(name)
        }  # fmt: skip
        return Response(data, media_type=_BINARY, headers=headers)

    return router


_BINS = 32
_PER_PX = 16
_JPEG_QUALITY = 92


def picture_jpeg(scores: KeptScores) -> bytes:
    """Return the image as JPEG, at the size of `KeptScores.picture`."""
    return encoded(Image.fromarray(scores.picture), "JPEG", quality=_JPEG_QUALITY)


def fill_png(scores: KeptScores, prediction: Prediction) -> bytes:
    """Return the fill of the picture as PNG, at the same size.

    For two classes it is the probability as grey, 0 for nodata; the browser applies the threshold.
    For more classes it has their colours; background and nodata are transparent.
    """
    mask = prediction.mask.data[:: scores.step, :: scores.step]
    if prediction.summary.threshold is not None:
        valid = prediction.mask.valid[:: scores.step, :: scores.step]
        grey = Image.fromarray(np.where(valid, scores.score, 0))
        return encoded(grey, "PNG", compress_level=1)
    table = prediction.legend.table.copy()
    table[0, 3] = table[NODATA, 3] = 0
    return encoded(Image.fromarray(table[mask]), "PNG", compress_level=1)


def outlines(scores: KeptScores, prediction: Prediction) -> bytes:
    """Return the rings of all outlines, with holes, which the browser draws at any size.

    Returns:
        Little-endian: uint32 n; (n,) uint32 number of points of each ring; (points, 2) int16 x and
        y in 16ths of the picture's pixels; (n,) uint8 index of each ring in `outline_colours`.
    """
    footprints = prediction.outlines
    if not len(footprints):
        return np.zeros(1, "<u4").tobytes()
    _, xy, (ring_ends, polygon_ends) = shapely.to_ragged_array(np.asarray(footprints.geometry))
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
    """Return the `#RRGGBB` colours of `outlines`: by confidence, or of several classes."""
    if prediction.summary.threshold is None:
        table = np.array([prediction.legend.rgb(n) for n in range(len(prediction.legend.names))])
    else:
        stops = np.array([list(bytes.fromhex(text[1:])) for text in CONFIDENCE], dtype=np.float64)
        place, at = np.linspace(0, 1, len(stops)), np.linspace(0, 1, _BINS)
        table = np.rint(np.stack([np.interp(at, place, band) for band in stops.T], axis=1))
    return [f"#{row.astype(np.uint8).tobytes().hex()}" for row in table]


def _colours_of(prediction: Prediction) -> NDArray[np.int64]:
    """Return (n,) index of each outline in `outline_colours`; an unknown score is the lowest."""
    footprints = prediction.outlines
    if prediction.summary.threshold is None:
        assert footprints.class_id is not None
        return footprints.class_id.astype(np.int64)
    along = (np.nan_to_num(footprints.score).astype(np.float64) - LOW_SCORE) / (1 - LOW_SCORE)
    return np.asarray(np.rint(along.clip(0, 1) * (_BINS - 1)), dtype=np.int64)
