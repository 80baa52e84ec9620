"""The REST API as one FastAPI app, and the health, readiness and metrics of its server."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, FastAPI
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
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Scope

from rooftrace.core.errors import RooftraceError
from rooftrace.core.system import version_of
from rooftrace.engines.base import instruction_set_of, this_processor
from rooftrace.rest.description import DescribedRoute, describe, pages_router, problem_responses
from rooftrace.rest.predict import predict_router
from rooftrace.rest.problems import ProblemError, install_problems
from rooftrace.rest.schemas import Health, ProcessorRecord, Readiness
from rooftrace.rest.security import API_PREFIXES, FORM_BYTES, Security, install_security
from rooftrace.service.service import Service

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
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """Return the app of a service.

    Routes that are added later, such as a page at `/`, get the remaining URLs.

    Args:
        service: Service that predicts; `lifespan` closes it.
        security: Protection; by default no key, any host, and the service's upload limit.
        routers: Routers of further operations, with the same protection and description.
        jobs_by_state: Counter of jobs, for /metrics.
        lifespan: Lifespan of the app; by default `serving`.
    """
    security = security or Security(body_bytes=service.limits.upload_bytes + FORM_BYTES)
    app = FastAPI(
        title="rooftrace",
        version=version_of("rooftrace") or "0",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan or serving(service),
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
        figures, batches = service.figures(), service.figures().batches
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
        processor = ProcessorRecord(
            name=this_processor().name,
            instruction_set=instruction_set_of(service.predictor.engine),
        )
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
