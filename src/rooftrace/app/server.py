"""The whole server: API, jobs, map, live video and page on one port."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastapi import APIRouter, FastAPI

from rooftrace.app.demo import mount_page
from rooftrace.app.map.results import ResultsCatalogue
from rooftrace.app.map.review import REVIEW_BYTES, clicks_router, review_router
from rooftrace.app.map.router import Basemap, map_router
from rooftrace.app.pages import home_router, live_router
from rooftrace.rest.api import create_api
from rooftrace.rest.jobs import JobIntake, jobs_router
from rooftrace.rest.ogc import OGC_BODY_SHARE, ogc_router
from rooftrace.rest.security import FORM_BYTES, LOOPBACK, Security
from rooftrace.service.job_runner import JobRunner
from rooftrace.service.live import LiveCamera
from rooftrace.service.service import Service


def create_server(
    service: Service,
    runner: JobRunner | None = None,
    *,
    results: Sequence[Path] = (),
    basemaps: Sequence[Basemap] = (),
    cameras: Sequence[LiveCamera] = (),
    api_key: str | None = None,
    local: bool = True,
    allow_origins: Sequence[str] = (),
) -> FastAPI:
    """Return the app of `rooftrace serve`. Its lifespan warms and closes the service.

    Args:
        service: Service that predicts.
        runner: Runner of jobs, which the caller starts and stops; None for a server without jobs.
        results: Folders that the map shows in addition to finished jobs.
        basemaps: Tiles under the scenes of the map, of which a person chooses.
        cameras: Cameras of the page `/live`, which the caller closes.
        api_key: Key that every request needs; None for no key.
        local: Whether the server listens only on this machine and answers to no other name.
        allow_origins: Origins of other sites whose pages may call the server.

    Raises:
        ConfigError: The key is empty, or a results folder is a file.
    """
    limits = service.limits
    security = Security(
        api_key=api_key,
        body_bytes=limits.upload_bytes + FORM_BYTES,
        body_bytes_of={
            "/v1/results": REVIEW_BYTES,
            "/ogc/processes": int(limits.upload_bytes * OGC_BODY_SHARE) + FORM_BYTES,
            "/v1/jobs": limits.job_upload_bytes + FORM_BYTES,
        },
        hosts=LOOPBACK if local else None,
        origins=allow_origins,
    )
    store = None if runner is None else runner.store
    catalogue = ResultsCatalogue(results, store)
    routers: list[APIRouter] = [
        review_router(catalogue),
        clicks_router(catalogue),
        map_router(catalogue, basemaps),
    ]
    if runner is not None:
        intake = JobIntake(runner, service.predictor, limits)
        routers.append(jobs_router(intake))
        routers.append(ogc_router(intake))
    app = create_api(
        service,
        security=security,
        routers=routers,
        jobs_by_state=None
        if store is None
        else lambda: {str(k): n for k, n in store.counts().items()},
    )
    app.state.live = bool(cameras)
    app.include_router(home_router())
    app.include_router(live_router(cameras))
    return mount_page(app, service)
