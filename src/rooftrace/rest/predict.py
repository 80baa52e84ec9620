"""POST /v1/predict: an image in, its buildings out; GET /v1/model: by what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import Response

from rooftrace.core.errors import BusyError, DataError, DeadlineError, TooLargeError
from rooftrace.predict.options import SceneOptions
from rooftrace.predict.result import Prediction
from rooftrace.rest.answers import MEDIA_TYPES, Answer, Format, encoded, figures_of, outputs_for
from rooftrace.rest.problems import ProblemError, problem_responses
from rooftrace.rest.schemas import Measured, ModelCard, ModelClass
from rooftrace.service.service import Request as Taken
from rooftrace.service.service import Service

__all__ = ["PredictQuery", "predict_router"]

_ACCEPTED: dict[str, Format] = {
    "application/geo+json": "geojson",
    "application/json": "geojson",
    "image/png": "png",
    "application/zip": "zip",
}

_GONE = 499
"""What logs know a client as that went away; nobody receives it."""

_RAW = ("application/octet-stream", "image/png", "image/jpeg", "image/tiff", "image/webp",
        "image/jp2")  # fmt: skip

Metres = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class PredictQuery(BaseModel):
    """The options of a prediction; what is unknown is refused rather than ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Annotated[
        Format | None,
        Field(description="Of the answer; default by the header Accept, else geojson."),
    ] = None
    filename: Annotated[
        str | None,
        Field(
            max_length=255,
            description="What results are called after, where the body is the image itself. An "
            "image without a georeference that is called like a slippy tile lies where that is.",
        ),
    ] = None
    threshold: Annotated[
        float | None,
        Field(
            ge=0, le=1, allow_inf_nan=False,
            description="On the building's probability; default the model's own.",
        ),
    ] = None  # fmt: skip
    gsd: Annotated[
        float | None,
        Field(
            ge=0.001, le=1000, allow_inf_nan=False,
            description="Metres per pixel, where the file does not say or is wrong.",
        ),
    ] = None  # fmt: skip
    scale: Annotated[
        float | None,
        Field(
            ge=0.05, le=4, allow_inf_nan=False,
            description="The image is taken so many times as large, whatever metres say.",
        ),
    ] = None  # fmt: skip
    min_area: Annotated[
        Metres | None, Field(description="m²: smaller footprints are left out.")
    ] = None
    min_hole: Annotated[
        Metres | None, Field(description="m²: smaller holes of buildings are filled.")
    ] = None
    regularize: Annotated[
        bool, Field(description="Whether outlines get right angles where buildings have them.")
    ] = True
    separate: Annotated[bool, Field(description="Whether buildings that touch are cut apart.")] = (
        True
    )
    cell: Annotated[
        float,
        Field(
            ge=1, le=1e6, allow_inf_nan=False,
            description="The side of a cell of the density in the zip, in metres.",
        ),
    ] = 100.0  # fmt: skip
    count: Annotated[
        bool,
        Field(
            description="Whether buildings are counted for a mask, too. To outline them takes "
            "longer than the network does; GeoJSON and zip have them anyway."
        ),
    ] = False

    def options(self, form: Format) -> SceneOptions:
        """What the predictor is told."""
        return SceneOptions(
            gsd_m=self.gsd, scale=self.scale, threshold=self.threshold,
            min_area_m2=self.min_area, min_hole_m2=self.min_hole, regularize=self.regularize,
            separate=self.separate, cell_m=self.cell, outputs=outputs_for(form, count=self.count),
        )  # fmt: skip


def predict_router(service: Service) -> APIRouter:
    """The router of a service."""
    router = APIRouter(prefix="/v1", tags=["prediction"])
    intake = _Intake(service.limits.waiting)
    seconds = service.limits.seconds
    bundle = service.bundle

    @router.post(
        "/predict",
        summary="Buildings of an image",
        operation_id="predict",
        openapi_extra={"requestBody": _REQUEST_BODY},
        response_class=Response,
        responses=_PREDICT_RESPONSES,
    )
    async def predict(request: Request, asked: Annotated[PredictQuery, Query()]) -> Response:
        """Answered at once: GeoJSON of the footprints, the mask as PNG, or a zip of all files.

        The image is sent as the field `file` of a form, or is the body itself. With a georeference
        GeoJSON has longitude and latitude; without one pixels, which its member `coordinates` says.
        """
        started = time.perf_counter()
        form = asked.format or _negotiated(request.headers.getlist("accept"))
        with intake.one():
            try:
                async with asyncio.timeout(seconds):
                    upload = await _received(request, asked.filename, service.limits.upload_bytes)
                    taken = service.submit(upload.data, upload.name, asked.options(form))
                    prediction = await _awaited(request, taken)
                    if prediction is None:
                        return Response(status_code=_GONE)
                    answer = await run_in_threadpool(_answer, prediction, form, asked.count)
            except TimeoutError:
                raise DeadlineError(
                    f"The request was not done within {seconds:g} seconds.",
                    remedy="Send a smaller image, or start a job.",
                ) from None
        took = f"total;dur={1000 * (time.perf_counter() - started):.1f}"
        return Response(
            answer.body,
            media_type=MEDIA_TYPES[form],
            headers=answer.headers | {"Server-Timing": took, "Vary": "Accept"},
        )

    def _answer(prediction: Prediction, form: Format, count: bool) -> Answer:
        counted = "polygons" in outputs_for(form, count=count)
        return encoded(prediction, form, figures_of(prediction, bundle, counted=counted))

    @router.get("/model", summary="The model's contract", operation_id="model")
    async def model() -> ModelCard:
        """What images it expects, what it answers, and what is known of it."""
        return _card(service)

    return router


class _Intake:
    """How many requests are being received and answered: bodies in memory are bounded, too."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises BusyError where there are as many as may be. Of the event loop alone."""
        if self._taken >= self._most:
            raise BusyError(
                f"{self._taken} requests are waiting already.", remedy="Ask again in a while."
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


@dataclass(frozen=True)
class _Upload:
    data: bytes
    name: str


async def _received(request: Request, filename: str | None, most_bytes: int) -> _Upload:
    """The image that a request brings.

    Raises:
        ProblemError: its body is of another kind, or a form without a file.
        DataError: it is empty.
        TooLargeError: it has more bytes than may be.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        upload = await _of_form(request, filename, most_bytes)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            _check_size(size, most_bytes)
            chunks.append(chunk)
        upload = _Upload(b"".join(chunks), filename or "image")
    else:
        told = f"has the type {kind!r}" if kind else "has no Content-Type"
        raise ProblemError(
            "unsupported-media-type",
            f"The body {told}; multipart/form-data, image/… or application/octet-stream was "
            "expected.",
        )
    if not upload.data:
        raise DataError("The upload is empty.", remedy="Send the bytes of an image.")
    return upload


async def _of_form(request: Request, filename: str | None, most_bytes: int) -> _Upload:
    async with request.form(max_files=1, max_fields=8) as form:
        others = sorted({name for name, _ in form.multi_items()} - {"file"})
        if others:
            raise _wrong_field(
                others[0], f"The form has the field {others[0]!r}; only file was expected.",
                "Send options as parameters of the address, such as ?threshold=0.4.",
            )  # fmt: skip
        file = form.get("file")
        if not isinstance(file, UploadFile):
            told = "The form has no field file" if file is None else "The field file is a text"
            raise _wrong_field(
                "file", f"{told}; a file was expected.",
                "Send it as a file, such as curl -F file=@scene.tif does.",
            )  # fmt: skip
        _check_size(file.size or 0, most_bytes)
        return _Upload(await file.read(), filename or file.filename or "image")


def _wrong_field(name: str, message: str, remedy: str) -> ProblemError:
    told = {"parameter": name, "in": "body", "message": message}
    return ProblemError("invalid-request", message, remedy=remedy, errors=[told])


def _check_size(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise TooLargeError(
            f"The image has more than the {most_bytes:,} bytes that are taken at once.",
            remedy="Send a part of it, or start a job for large scenes.",
        )


async def _awaited(request: Request, taken: Taken[Prediction]) -> Prediction | None:
    """What becomes of a request; None where the client went away, which ends it."""
    answer = asyncio.wrap_future(taken.answer)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None
    finally:
        gone.cancel()
        if not answer.done():
            answer.cancel()
            taken.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _negotiated(accept: list[str]) -> Format:
    """The form that a client likes best (RFC 9110, 12.5.1); of equals the first of ours.

    Raises:
        ProblemError: it likes none.
    """
    ranges = [_range(part) for part in ",".join(accept).split(",") if part.strip()]
    if not ranges:
        return "geojson"
    liked = {kind: _quality(kind, ranges) for kind in _ACCEPTED}
    best = max(liked, key=lambda kind: liked[kind])
    if liked[best] <= 0:
        raise ProblemError(
            "not-acceptable",
            f"The header Accept asks for {', '.join(accept)[:100]!r}; there are "
            "application/geo+json, image/png and application/zip.",
            remedy="Ask for one of them, or say format=geojson, png or zip.",
        )
    return _ACCEPTED[best]


def _range(text: str) -> tuple[str, float]:
    """Of a media range: itself, and how much it is liked."""
    kind, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return kind, float(value)
            except ValueError:
                return kind, 0.0
    return kind, 1.0


def _quality(kind: str, ranges: list[tuple[str, float]]) -> float:
    """What the most exact range that matches says."""
    for pattern in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        for given, quality in ranges:
            if given == pattern:
                return quality
    return 0.0


def _card(service: Service) -> ModelCard:
    spec, engine = service.bundle.spec, service.predictor.engine
    legend = spec.legend
    return ModelCard(
        name=spec.name,
        sha256=service.bundle.sha256,
        bands=list(spec.bands),
        dtype=spec.dtype,
        gsd_m=spec.gsd_m,
        classes=[
            ModelClass(class_id=index, name=name, colour="#{:02X}{:02X}{:02X}".format(*rgb))
            for index, (name, rgb) in enumerate(
                (name, legend.rgb(index)) for index, name in enumerate(spec.classes)
            )
        ],
        building_class=spec.building_class,
        threshold=spec.threshold,
        calibrated=spec.calibration is not None,
        metrics=[Measured.model_validate(one.model_dump()) for one in spec.metrics],
        licence=spec.licence,
        attribution=spec.attribution,
        created=spec.created,
        versions=spec.versions,
        engine=engine.name,
        precision=engine.precision,
    )


_FILE: dict[str, Any] = {
    "type": "string",
    "contentMediaType": "application/octet-stream",
    "description": "GeoTIFF, PNG, JPEG, WebP or JPEG 2000.",
}

_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "The image: in a form, or as it is.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": _FILE},
                "required": ["file"],
                "additionalProperties": False,
            },
            "encoding": {"file": {"contentType": "image/*, application/octet-stream"}},
        },
        **{kind: {"schema": {"type": "string", "contentMediaType": kind}} for kind in _RAW},
    },
}

_FIGURES_HEADERS: dict[str, Any] = {
    "Rooftrace-Buildings": ("How many, where they were counted.", {"type": "integer"}),
    "Rooftrace-Built-Up-Share": ("Of the valid pixels.", {"type": "number"}),
    "Rooftrace-Density": ("Where a pixel is valid.", {"enum": ["sparse", "dense"]}),
    "Rooftrace-Gsd-M": ("Metres per pixel, where known.", {"type": "number"}),
    "Rooftrace-Threshold": ("On the building's probability.", {"type": "number"}),
    "Rooftrace-Valid-Pixels": ("Those that are not nodata.", {"type": "integer"}),
    "Rooftrace-Notes": ("What was assumed: a JSON array of sentences.", {"type": "string"}),
    "Content-Disposition": ("What the file may be called.", {"type": "string"}),
    "Server-Timing": ("Milliseconds within the server.", {"type": "string"}),
}

_EXAMPLE: dict[str, Any] = {
    "type": "FeatureCollection",
    "name": "scene",
    "coordinates": "longitude-latitude",
    "figures": {
        "buildings": 1,
        "built_up_share": 0.0061,
        "density": "sparse",
        "gsd_m": 0.3,
        "threshold": 0.305,
        "pixels": 131072,
        "valid_pixels": 131072,
        "classes": [
            {"name": "background", "class_id": 0, "polygons": 0, "pixels": 130272,
             "share": 0.9939, "area_m2": 11724.5},
            {"name": "building", "class_id": 1, "polygons": 1, "pixels": 800, "share": 0.0061,
             "area_m2": 72.0},
        ],
        "notes": [],
        "model": "default",
        "model_sha256": "0" * 64,
    },
    "features": [
        {
            "type": "Feature",
            "properties": {"id": 1, "score": 0.94, "area_m2": 72.27, "perimeter_m": 38.04,
                           "orientation_deg": 57.96, "rectangularity": 0.79},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[33.2171281, -6.1700147], [33.2171078, -6.1699823],
                                 [33.2170218, -6.1700362], [33.2171281, -6.1700147]]],
            },
        }
    ],
}  # fmt: skip

_PREDICT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The buildings of the image.",
        "headers": {
            name: {"description": told, "schema": schema}
            for name, (told, schema) in _FIGURES_HEADERS.items()
        },
        "content": {
            "application/geo+json": {
                "schema": {"$ref": "#/components/schemas/FeatureCollection"},
                "example": _EXAMPLE,
            },
            "image/png": {"schema": {"type": "string", "contentMediaType": "image/png"}},
            "application/zip": {
                "schema": {"type": "string", "contentMediaType": "application/zip"}
            },
        },
    },
    **problem_responses(
        "bad-request", "not-acceptable", "too-large", "unsupported-media-type", "data-error",
        "georeference-error", "gsd-mismatch", "band-mismatch", "config-error", "invalid-request",
        "busy", "predict-error", "deadline",
    ),
}  # fmt: skip
