"""POST /v1/predict finds the buildings of an image; GET /v1/model describes the model.

A prediction is encoded in the format that the client asks for: GeoJSON, or a mask as PNG.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from rooftrace.core.errors import DeadlineError, ExportError, GeoreferenceError
from rooftrace.core.text import in_api_terms
from rooftrace.density.files import DEFAULT_THRESHOLD
from rooftrace.io.files import written_bytes
from rooftrace.io.vector_write import write_footprints
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.outputs import Prediction
from rooftrace.predict.plan import SceneOutput
from rooftrace.rest.description import REQUEST_BODY, RESPONSES, DescribedRoute
from rooftrace.rest.schemas import ClassOut, Figures, MetricsOut, ModelCard, ModelClass, SceneQuery
from rooftrace.rest.transfer import UploadLimiter, content_disposition, read_upload
from rooftrace.service.service import QueuedRequest, Service

Format = Literal["geojson", "png"]

_MEDIA_TYPES: dict[Format, str] = {"geojson": "application/geo+json", "png": "image/png"}

_ACCEPTED: dict[str, Format] = {
    "application/geo+json": "geojson",
    "application/json": "geojson",
    "image/png": "png",
}
"""Format by media type in the header Accept."""

_GEOJSON_START = b'{\n"type": "FeatureCollection",\n'
_MAX_STEM_BYTES = 120
"""Maximum length of the stem of a file name; a whole name may have 255 bytes."""

_CARD_FIELDS = {
    "name", "bands", "dtype", "gsd_m", "finest_gsd_m", "interpolated_gsd_m", "building_class",
    "threshold", "licence", "attribution", "created", "versions",
}  # fmt: skip
"""Fields of a bundle's description that clients see as they are."""

_SUMMARY_FIELDS = ("built_up_share", "gsd_m", "threshold", "pixels", "valid_pixels")
"""Figures of a prediction that clients see as they are."""

_CLIENT_CLOSED_REQUEST = 499
"""Status in logs and metrics of a request whose client disconnected."""


class PredictQuery(SceneQuery):
    """Query parameters of an immediate prediction."""

    format: Annotated[
        Format | None,
        Field(
            description="Format of the response; by default chosen by the header Accept, "
            "otherwise geojson"
        ),
    ] = None


def predict_router(service: Service) -> APIRouter:
    """Return the router of a service."""
    router = APIRouter(route_class=DescribedRoute, prefix="/v1", tags=["prediction"])
    limiter = UploadLimiter(service.limits.waiting)
    seconds = service.limits.seconds
    bundle = service.bundle

    @router.post(
        "/predict",
        openapi_extra={"requestBody": REQUEST_BODY},
        response_class=Response,
        responses=RESPONSES,
    )
    async def predict(request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
        """Find the buildings of an image.

        Return footprints as GeoJSON, or the mask as PNG; a job gives all files.

        Send the image as the field `file` of a form, or as the body itself. GeoJSON coordinates
        are longitude and latitude if the image has a georeference, otherwise pixels; the member
        `coordinate_system` says which.
        """
        started = time.perf_counter()
        accept = ",".join(request.headers.getlist("accept")).split(",")
        kinds = (kind.partition(";")[0].strip().lower() for kind in accept)
        accepted: Format = next((_ACCEPTED[kind] for kind in kinds if kind in _ACCEPTED), "geojson")
        form = query.format or accepted
        # A mask needs no outlines: tracing takes longer than the network does.
        outputs: tuple[SceneOutput, ...] = ("mask",) if form == "png" else ("mask", "polygons")
        with limiter.place(request):
            try:
                async with asyncio.timeout(seconds):
                    data, name = await read_upload(
                        request, query.filename, service.limits.upload_bytes
                    )
                    queued = service.submit(data, name, query.scene_options(outputs))
                    prediction = await _result_of(request, queued)
                    if prediction is None:
                        return Response(status_code=_CLIENT_CLOSED_REQUEST)
                    figures = figures_of(prediction, bundle, counted="polygons" in outputs)
                    name, body = await run_in_threadpool(_encode, prediction, form, figures)
            except TimeoutError:
                raise DeadlineError(
                    f"The request took longer than {seconds:g} seconds.",
                    remedy="Send a smaller image, or start a job.",
                ) from None
        # The figures, for clients that receive no JSON.
        headers = {
            "Rooftrace-Buildings": figures.buildings,
            "Rooftrace-Built-Up-Share": round(figures.built_up_share, 6),
            "Rooftrace-Density": figures.density,
            "Rooftrace-Gsd-M": figures.gsd_m,
            "Rooftrace-Threshold": figures.threshold,
            "Rooftrace-Valid-Pixels": figures.valid_pixels,
            # JSON keeps sentences in ASCII and in one line.
            "Rooftrace-Notes": json.dumps(figures.notes) if figures.notes else None,
            "Content-Disposition": content_disposition(name, "inline"),
            "Server-Timing": f"total;dur={1000 * (time.perf_counter() - started):.1f}",
            "Vary": "Accept",
        }
        known = {name: str(value) for name, value in headers.items() if value is not None}
        return Response(body, media_type=_MEDIA_TYPES[form], headers=known)

    @router.get("/model")
    async def model() -> ModelCard:
        """Describe the model: bands, classes, resolution, threshold, metrics and origin."""
        spec, engine, rgb = bundle.spec, service.predictor.engine, bundle.spec.legend.rgb
        return ModelCard(
            sha256=bundle.sha256,
            engine=engine.name,
            precision=engine.precision,
            calibrated=spec.calibration is not None,
            classes=[
                ModelClass(class_id=n, name=name, colour="#{:02X}{:02X}{:02X}".format(*rgb(n)))
                for n, name in enumerate(spec.classes)
            ],
            metrics=[MetricsOut.model_validate(one.model_dump()) for one in spec.metrics],
            **spec.model_dump(include=_CARD_FIELDS),
        )

    return router


async def _result_of(request: Request, queued: QueuedRequest[Prediction]) -> Prediction | None:
    """Wait for a prediction; cancel it and return None if the client disconnects."""
    result = asyncio.wrap_future(queued.answer)

    async def wait_for_disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    disconnect = asyncio.ensure_future(wait_for_disconnect())
    try:
        await asyncio.wait((result, disconnect), return_when=asyncio.FIRST_COMPLETED)
        return result.result() if result.done() else None
    finally:
        disconnect.cancel()
        if not result.done():
            result.cancel()
            queued.cancel()


def figures_of(prediction: Prediction, bundle: ModelBundle, *, counted: bool) -> Figures:
    """Return the figures of a prediction, without times, so that they are reproducible."""
    summary = prediction.result.summary
    is_dense = summary.built_up_share >= DEFAULT_THRESHOLD.threshold
    return Figures(
        **{name: getattr(summary, name) for name in _SUMMARY_FIELDS},
        buildings=summary.buildings if counted else None,
        density=("dense" if is_dense else "sparse") if summary.valid_pixels else None,
        classes=[
            ClassOut(**vars(one) | ({} if counted else {"polygons": None}))
            for one in summary.classes
        ],
        notes=[in_api_terms(note) for note in summary.notes],
        model=bundle.spec.name,
        model_sha256=bundle.sha256,
    )


def _encode(prediction: Prediction, form: Format, figures: Figures) -> tuple[str, bytes]:
    """Return the file name and the bytes of a prediction; equal predictions give equal bytes.

    GeoJSON is that of `rooftrace predict`, with additional members.

    Raises:
        GeoreferenceError: GeoJSON was asked for, and the CRS of the image cannot be
            transformed to longitude and latitude.
    """
    stem = prediction.name.encode()[:_MAX_STEM_BYTES].decode(errors="ignore") or "image"
    crs = prediction.mask.grid.crs
    if form == "png":
        name = f"{stem}_mask.png"
        return name, written_bytes(name, prediction.write_mask)
    name = f"{stem}.geojson"
    try:
        written = written_bytes(name, lambda path: write_footprints(path, prediction.outlines))
    except ExportError as error:
        if crs is None:
            raise
        raise GeoreferenceError(
            f"{stem} cannot be written as GeoJSON: its position in {crs.name!r} has no "
            "longitude and latitude.",
            remedy="Start a job: its GeoPackage keeps the coordinates of the image.",
        ) from error
    if not written.startswith(_GEOJSON_START):
        raise ValueError(f"{name} begins with {written[:40]!r}, not with {_GEOJSON_START!r}")
    members = {
        "coordinate_system": "pixels" if crs is None else "longitude-latitude",
        "figures": figures.model_dump(mode="json"),
    }
    lines = "".join(f'"{key}": {json.dumps(value)},\n' for key, value in members.items())
    return name, b"".join([_GEOJSON_START, lines.encode(), written[len(_GEOJSON_START) :]])
