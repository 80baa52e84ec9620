"""Whether the server is alive and ready, and what it does: /healthz, /readyz, /metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from fastapi import APIRouter
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
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rooftrace.core.versions import version_of
from rooftrace.rest.problems import ProblemError, problem_responses
from rooftrace.rest.schemas import Health, Readiness
from rooftrace.service.service import Service

__all__ = ["Instrumented", "Metrics", "health_router"]

JobsByState = Callable[[], Mapping[str, int]]

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """What Prometheus is told of one app.

    Args:
        service: its figures are read when they are asked for.
        jobs_by_state: how many jobs there are by state, if there are jobs.
    """

    def __init__(self, service: Service, jobs_by_state: JobsByState | None = None) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rooftrace_http_requests", "Requests that were answered.",
            ("method", "route", "status"), registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "rooftrace_http_request_seconds", "From the head of a request to the end of its "
            "answer.", ("route",), buckets=_BUCKETS, registry=self.registry,
        )  # fmt: skip
        ProcessCollector(registry=self.registry)
        self.registry.register(_OfService(service, jobs_by_state))

    def text(self) -> bytes:
        """All of it in Prometheus' format."""
        return generate_latest(self.registry)


class _OfService(Collector):
    """Figures that the service itself keeps."""

    def __init__(self, service: Service, jobs_by_state: JobsByState | None) -> None:
        self._service = service
        self._jobs_by_state = jobs_by_state

    def describe(self) -> list[Metric]:
        # Without it the registry would collect, to know the names, when this is registered.
        return []

    def collect(self) -> Iterator[Metric]:
        service = self._service
        figures, batches = service.figures(), service.figures().batches
        spec, engine = service.bundle.spec, service.predictor.engine
        info = GaugeMetricFamily(
            "rooftrace_model_info", "The model that is loaded.",
            labels=("version", "model", "sha256", "engine", "precision"),
        )  # fmt: skip
        version = version_of("rooftrace") or "unknown"
        told = version, spec.name, service.bundle.sha256, engine.name, engine.precision
        info.add_metric(told, 1)
        yield info
        gauges: dict[str, tuple[str, float]] = {
            "rooftrace_ready": ("Whether it takes requests.", service.ready),
            "rooftrace_predictions_running": ("That are worked on.", figures.running),
            "rooftrace_predictions_waiting": ("That wait for that.", figures.waiting),
        }
        for name, (documentation, value) in gauges.items():
            yield GaugeMetricFamily(name, documentation, value=value)
        counters: dict[str, tuple[str, float]] = {
            "rooftrace_predictions": ("That are done.", figures.answered),
            "rooftrace_predictions_failed": ("That ended in an error.", figures.failed),
            "rooftrace_predictions_refused": ("That the full queue turned away.", figures.refused),
            "rooftrace_engine_batches": ("Calls of the network.", batches.batches),
            "rooftrace_engine_tiles": ("That went through it, in batches.", batches.tiles),
            "rooftrace_engine_pixels": ("Of these tiles.", batches.pixels),
            "rooftrace_engine_seconds": ("That the network took.", batches.seconds),
        }
        for name, (documentation, value) in counters.items():
            yield CounterMetricFamily(name, documentation, value=value)
        if self._jobs_by_state is not None:
            jobs = GaugeMetricFamily("rooftrace_jobs", "By state.", labels=("state",))
            for state, count in sorted(self._jobs_by_state().items()):
                jobs.add_metric((state,), count)
            yield jobs


class Instrumented:
    """Counts and times the requests that pass.

    Args:
        app: what is measured.
        metrics: where to.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            # The template, not the address, of which there may be as many as there are clients.
            route = getattr(scope.get("route"), "path", None) or "other"
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def health_router(service: Service, metrics: Metrics) -> APIRouter:
    """The router of a service."""
    router = APIRouter(tags=["operation"])

    @router.get("/healthz", summary="Whether the server is alive", operation_id="healthz")
    async def healthz() -> Health:
        """Answers as long as the process does."""
        return Health(status="alive", version=version_of("rooftrace") or "unknown")

    @router.get(
        "/readyz",
        summary="Whether the server takes requests",
        operation_id="readyz",
        responses=problem_responses("not-ready"),
    )
    async def readyz() -> Readiness:
        """Ready once model and decoders are warm, and until it is being stopped."""
        if not service.ready:
            raise ProblemError(
                "not-ready", "The model is being loaded, or the server is being stopped.",
                headers={"Retry-After": "1"},
            )  # fmt: skip
        return Readiness(status="ready", model=service.bundle.spec.name)

    @router.get(
        "/metrics",
        summary="Figures for Prometheus",
        operation_id="metrics",
        response_class=Response,
        responses={
            200: {
                "description": "In the text format of Prometheus.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
    )
    def metrics_text() -> Response:
        """Requests by route and status, their seconds, the queue, the network, jobs, memory."""
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router
