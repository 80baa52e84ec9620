"""The server put together: API, jobs, Label Studio, map and page on one port."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, FastAPI

from rooftrace.app.catalogue import ServerCatalogue
from rooftrace.app.jobs.router import jobs_page
from rooftrace.app.map.router import map_router
from rooftrace.app.page.mount import mount_page
from rooftrace.rest.api import create_api
from rooftrace.rest.jobs import jobs_router
from rooftrace.rest.labelstudio import labelstudio_router
from rooftrace.rest.security import FORM_BYTES, LOOPBACK, Security
from rooftrace.service.jobs.runner import JobRunner
from rooftrace.service.service import Service

__all__ = ["create_server"]

_FILES_AT_ONCE = 16
"""Of the page, in one upload; each has the limit of an upload for itself."""


def create_server(
    service: Service,
    runner: JobRunner | None = None,
    *,
    results: Sequence[Path] = (),
    api_key: str | None = None,
    label_studio: str | None = None,
    label_studio_token: str | None = None,
    local: bool = True,
) -> FastAPI:
    """An ASGI application with all that `rooftrace serve` has. It warms and closes the service.

    Args:
        service: the model.
        runner: of jobs, started and stopped by the caller; None for a server without jobs.
        results: folders that the map shows, besides those of finished jobs.
        api_key: that every request has to bring.
        label_studio, label_studio_token: the Label Studio that this is an ML backend of.
        local: whether it listens on the own machine alone, and answers to no other name.

    Raises:
        ConfigError: an empty key, a file among the folders, an address that is none.
    """
    limits = service.limits
    security = Security(
        api_key=api_key,
        body_bytes=limits.upload_bytes + FORM_BYTES,
        body_bytes_of={
            "/v1/jobs": limits.job_upload_bytes + FORM_BYTES,
            "/gradio_api/upload": _FILES_AT_ONCE * limits.upload_bytes + FORM_BYTES,
        },
        hosts=LOOPBACK if local else None,
    )
    store = None if runner is None else runner.store
    routers: list[APIRouter] = [
        labelstudio_router(service, url=label_studio, token=label_studio_token)
    ]
    if runner is not None:
        routers.append(jobs_router(runner, service.predictor, limits))
    app = create_api(
        service,
        security=security,
        routers=routers,
        jobs_by_state=None
        if store is None
        else lambda: {str(k): n for k, n in store.counts().items()},
    )
    if runner is not None:
        app.include_router(jobs_page())
    app.include_router(map_router(ServerCatalogue(results, store)))
    return mount_page(app, service, video=find_spec("av") is not None)
