"""The REST side put together."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route, Router

from rooftrace.core.errors import RooftraceError
from rooftrace.core.versions import version_of
from rooftrace.rest.description import describe, pages_router
from rooftrace.rest.health import Instrumented, Metrics, health_router
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
    """An app that answers by a service.

    What is added afterwards, as a page at `/`, takes the addresses that are left.

    Args:
        service: closed by `lifespan`.
        security: default no key, any host, and bodies as large as the service's limits allow.
        routers: of further operations; they are protected and described as the others.
        jobs_by_state: for /metrics.
        lifespan: default `serving`.
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
    # Outside of it, so that what is refused is counted, too.
    app.add_middleware(Instrumented, metrics=metrics)
    for router in (
        predict_router(service), health_router(service, metrics), *routers, pages_router(app),
    ):  # fmt: skip
        app.include_router(router)
    describe(app, secured=security.api_key is not None)
    _close(app)
    return app


def serving(service: Service) -> Lifespan:
    """Warms a service in the background, so that /healthz answers meanwhile; closes it at the end.

    Args:
        service: not used any more after that.
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
        _LOG.error("the model does not run, and the server will not become ready: %s", error)


def _close(app: FastAPI) -> None:
    """Have a wrong method or address beneath the API's prefixes refused here.

    A page that is mounted at `/` would take them for its own, since it matches them fully.
    """
    # Routes that match but for the method answer 405, and say which they take.
    own = Router(routes=list(app.router.routes))
    for prefix in API_PREFIXES:
        for path in (prefix, f"{prefix}/{{rest:path}}"):
            app.router.routes.append(Route(path, own, methods=_METHODS, include_in_schema=False))
