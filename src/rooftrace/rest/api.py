"""The REST API as one FastAPI app: POST /v1/predict, the model, health, readiness and metrics.

A prediction is encoded in the format that the client asks for: GeoJSON, or a mask as PNG.
"""

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Scope

from rooftrace.core.errors import DeadlineError, ExportError, GeoreferenceError, RooftraceError
from rooftrace.core.system import version_of
from rooftrace.engines.base import engine_processor
from rooftrace.io.files import written_bytes
from rooftrace.io.reproject import crs_text
from rooftrace.io.vector_write import write_footprints
from rooftrace.models.bundle import ModelBundle
from rooftrace.predict.outputs import Prediction
from rooftrace.predict.plan import SceneOutput
from rooftrace.rest.description import (
    REQUEST_BODY,
    RESPONSES,
    DescribedRoute,
    describe,
    pages_router,
    problem_responses,
)
from rooftrace.rest.pages import accepts_gzip, compressed
from rooftrace.rest.problems import ProblemError, check_query, install_problems
from rooftrace.rest.schemas import (
    Figures,
    Health,
    MetricsOut,
    ModelCard,
    ModelClass,
    ProcessorRecord,
    Readiness,
    SceneQuery,
)
from rooftrace.rest.security import API_PREFIXES, FORM_BYTES, Security, install_security
from rooftrace.rest.transfer import UploadLimiter, content_disposition, read_upload
from rooftrace.service.service import QueuedRequest, Service

_LOG = logging.getLogger(__name__)

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
JobsByState = Callable[[], Mapping[str, int]]
"""Function that returns the number of jobs by state."""


def create_api(
    service: Service,
    *,
    security: Security | None = None,
    routers: Sequence[APIRouter] = (),
    jobs_by_state: JobsByState | None = None,
) -> FastAPI:
    """Return the app of a service.

    Routes that are added later, such as a page at `/`, get the remaining URLs.

    Args:
        service: Service that predicts; the lifespan of the app closes it.
        security: Protection; by default no key, any host, and the service's upload limit.
        routers: Routers of further operations, with the same protection and description.
        jobs_by_state: Counter of jobs, for /metrics.
    """
    security = security or Security(body_bytes=service.limits.upload_bytes + FORM_BYTES)
    app = FastAPI(
        title="rooftrace",
        version=version_of("rooftrace") or "0",
        docs_url=None,
        redoc_url=None,
        lifespan=serving(service),
        dependencies=[Depends(check_query)],
    )
    metrics = Metrics(service, jobs_by_state)
    install_problems(app)
    install_security(app, security, metrics.note)
    for router in (
        predict_router(service), health_router(service, metrics), *routers, pages_router(app),
    ):  # fmt: skip
        app.include_router(router)
    describe(app, secured=security.api_key is not None)
    _reserve_prefixes(app)
    return app


def serving(service: Service) -> Lifespan:
    """Return a lifespan that warms a service in the background and closes it at the end.

    /healthz answers while the service is warmed.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # The first request with a query would build it, and hold up all others. FastAPI also hides
        # warnings of pydantic in it by catch_warnings, which threads take away from one another.
        app.openapi()
        thread = threading.Thread(target=_warm, args=(service,), name="warm", daemon=True)
        thread.start()
        try:
            yield
        finally:
            await run_in_threadpool(thread.join)
            await run_in_threadpool(service.close)

    return lifespan


def _warm(service: Service) -> None:
    try:
        service.warm()
    except RooftraceError as error:
        _LOG.error("the model does not run, so the server will not become ready: %s", error)


def _reserve_prefixes(app: FastAPI) -> None:
    """Refuse wrong methods and URLs below the API's prefixes in this app.

    Otherwise a page that is mounted at `/` would answer them, because it matches every URL.
    """
    # A route that matches except for the method answers 405 with the allowed methods.
    routes = Router(routes=list(app.router.routes))
    for prefix in API_PREFIXES:
        for path in (prefix, f"{prefix}/{{rest:path}}"):
            app.router.routes.append(Route(path, routes, methods=_METHODS, include_in_schema=False))


Format = Literal["geojson", "png"]

_MEDIA_TYPES: dict[Format, str] = {"geojson": "application/geo+json", "png": "image/png"}

_ACCEPTED: dict[str, Format] = {
    "application/geo+json": "geojson",
    "application/json": "geojson",
    "application/*": "geojson",
    "*/*": "geojson",
    "image/png": "png",
    "image/*": "png",
}
"""Format by media type in the header Accept."""


def _preferred(accept: str) -> Format:
    """Return the format of the largest weight in Accept (RFC 9110, 12.5.1), of equals the first."""
    best: Format = "geojson"
    least = 0.0
    for kind, _, parameters in (one.partition(";") for one in accept.lower().split(",")):
        given = re.search(r"(?:^|;)\s*q\s*=\s*([01](?:\.\d*)?)\s*(?:;|$)", parameters)
        weight = float(given[1]) if given else 1.0
        if kind.strip() in _ACCEPTED and weight > least:
            best, least = _ACCEPTED[kind.strip()], weight
    return best


_GEOJSON_START = b'{\n"type": "FeatureCollection",\n'
_MAX_STEM_BYTES = 120
"""Maximum length of the stem of a file name; a whole name may have 255 bytes."""

_CARD_FIELDS = {
    "name", "bands", "dtype", "gsd_m", "finest_gsd_m", "interpolated_gsd_m", "building_class",
    "licence", "attribution", "created", "versions",
}  # fmt: skip
"""Fields of a bundle's description that clients see as they are."""

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
        form = query.format or _preferred(",".join(request.headers.getlist("accept")))
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
                    packs = form == "geojson" and accepts_gzip(request)
                    if packs:
                        body = await run_in_threadpool(compressed, body)
            except TimeoutError:
                raise DeadlineError(
                    f"The request took longer than {seconds:g} s.",
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
            "Content-Encoding": "gzip" if packs else None,
            "Vary": "Accept, Accept-Encoding",
        }
        fields = {name: str(value) for name, value in headers.items() if value is not None}
        return Response(body, media_type=_MEDIA_TYPES[form], headers=fields)

    @router.get("/model")
    async def model() -> ModelCard:
        """Describe the model: bands, classes, resolution, threshold, metrics and origin."""
        spec, engine, rgb = bundle.spec, service.predictor.engine, bundle.spec.legend.rgb
        return ModelCard(
            sha256=bundle.sha256,
            engine=engine.name,
            precision=engine.precision,
            threshold=spec.threshold if spec.is_binary else None,
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
    return Figures.of({
        **vars(summary),
        "buildings": summary.buildings if counted else None,
        "classes": [vars(one) for one in summary.classes],
        "model": bundle.spec.name,
        "model_sha256": bundle.sha256,
    })  # fmt: skip


def _encode(prediction: Prediction, form: Format, figures: Figures) -> tuple[str, bytes]:
    """Return the file name and the bytes of a prediction; equal predictions give equal bytes.

    GeoJSON is that of `rooftrace predict`, with additional members.
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
        if crs is None or isinstance(error.__cause__, OSError):
            raise
        raise GeoreferenceError(
            f"{stem} cannot be written as GeoJSON: its position in {crs_text(crs)} has no "
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


_COUNTED_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """Prometheus metrics of one app.

    Args:
        service: Service whose figures are read at each request for metrics.
        jobs_by_state: Counter of jobs, if the server has jobs.
    """

    def __init__(self, service: Service, jobs_by_state: JobsByState | None = None) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rooftrace_http_requests", "Number of answered requests",
            ("method", "route", "status"), registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "rooftrace_http_request_seconds", "Seconds from the start of a request to the end of "
            "its response", ("route",), buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        ProcessCollector(registry=self.registry)
        self.registry.register(_ServiceCollector(service, jobs_by_state))

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count and time a request that was answered."""
        # The path template, because clients may ask for any number of URLs.
        route = getattr(scope.get("route"), "path", None) or "other"
        method = scope["method"] if scope["method"] in _COUNTED_METHODS else "other"
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


class _ServiceCollector(Collector):
    """Collector of the figures that the service keeps."""

    def __init__(self, service: Service, jobs_by_state: JobsByState | None) -> None:
        self._service = service
        self._jobs_by_state = jobs_by_state

    def describe(self) -> list[Metric]:
        # Without this method, registration would collect once to learn the names.
        return []

    def collect(self) -> Iterator[Metric]:
        service = self._service
        figures = service.figures()
        batches = figures.batches
        spec, engine = service.bundle.spec, service.predictor.engine
        info = GaugeMetricFamily(
            "rooftrace_model_info", "Loaded model",
            labels=("version", "model", "sha256", "engine", "precision"),
        )  # fmt: skip
        version = version_of("rooftrace") or "unknown"
        labels = version, spec.name, service.bundle.sha256, engine.name, engine.precision
        info.add_metric(labels, 1)
        yield info
        gauges: dict[str, tuple[str, float]] = {
            "rooftrace_ready": ("1 if the server accepts predictions, else 0", service.ready),
            "rooftrace_predictions_running": ("Predictions that run", figures.running),
            "rooftrace_predictions_waiting": ("Predictions that wait", figures.waiting),
        }
        for name, (documentation, value) in gauges.items():
            yield GaugeMetricFamily(name, documentation, value=value)
        counters: dict[str, tuple[str, float]] = {
            "rooftrace_predictions": ("Finished predictions", figures.answered),
            "rooftrace_predictions_failed": ("Failed predictions", figures.failed),
            "rooftrace_predictions_refused": (
                "Predictions refused because the queue was full", figures.refused),
            "rooftrace_engine_batches": ("Calls of the network", batches.batches),
            "rooftrace_engine_tiles": ("Tiles predicted, in batches", batches.tiles),
            "rooftrace_engine_pixels": ("Pixels of these tiles", batches.pixels),
            "rooftrace_engine_seconds": ("Seconds spent in the network", batches.seconds),
        }  # fmt: skip
        for name, (documentation, value) in counters.items():
            yield CounterMetricFamily(name, documentation, value=value)
        if self._jobs_by_state is not None:
            jobs = GaugeMetricFamily("rooftrace_jobs", "Jobs by state", labels=("state",))
            for state, count in sorted(self._jobs_by_state().items()):
                jobs.add_metric((state,), count)
            yield jobs


def health_router(service: Service, counted: Metrics) -> APIRouter:
    """Return the router of a service."""
    router = APIRouter(route_class=DescribedRoute, tags=["operation"])

    @router.get("/healthz")
    async def healthz() -> Health:
        """Check that the server is alive: it answers as long as the process runs."""
        processor = ProcessorRecord(**engine_processor(service.predictor.engine))
        version = version_of("rooftrace") or "unknown"
        return Health(status="alive", version=version, processor=processor)

    @router.get("/readyz", responses=problem_responses("not-ready"))
    async def readyz() -> Readiness:
        """Check that the server accepts predictions: the model and the decoders are loaded."""
        if not service.ready:
            raise ProblemError(
                "not-ready", "The model is loading, or the server is stopping.",
                headers={"Retry-After": "1"},
            )  # fmt: skip
        return Readiness(status="ready", model=service.bundle.spec.name)

    @router.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {
                "description": "Metrics in the text format of Prometheus",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
    )
    def metrics() -> Response:
        """Return metrics for Prometheus: requests, the queue, the network, jobs and memory."""
        return Response(counted.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router
