"""The REST API as one FastAPI app."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route, Router

from rooftrace.core.errors import RooftraceError
from rooftrace.core.machine import version_of
from rooftrace.rest.description import describe, pages_router
from rooftrace.rest.health import Metrics, MetricsMiddleware, health_router
from rooftrace.rest.predict import predict_router
from rooftrace.rest.problems import install_problems
from rooftrace.rest.security import API_PREFIXES, FORM_BYTES, Security, install_security
from rooftrace.service.service import Service

__all__ = ["create_api", "serving"]

_LOG = logging.getLogger(__name__)

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_api(
    service: Service,
    *,
    security: Security | None = None,
    routers: Sequence[APIRouter] = (),
    jobs_by_state: Callable[[], Mapping[str, int]] | None = None,
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """Return the app of a service.

    Routes that are added later, such as a page at `/`, get the remaining addresses.

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
    install_security(app, security)
    # Outside of the security middleware, so that refused requests are counted.
    app.add_middleware(MetricsMiddleware, metrics=metrics)
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
    """Refuse wrong methods and addresses below the API's prefixes in this app.

    Otherwise a page that is mounted at `/` would answer them, because it matches every address.
    """
    # A route that matches except for the method answers 405 with the allowed methods.
    own = Router(routes=list(app.router.routes))
    for prefix in API_PREFIXES:
        for path in (prefix, f"{prefix}/{{rest:path}}"):
            app.router.routes.append(Route(path, own, methods=_METHODS, include_in_schema=False))
