"""The whole server: API, jobs, Label Studio backend, map, live video and page on one port."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import FileResponse, RedirectResponse

from rooftrace.app.assets import static_router
from rooftrace.app.live.router import live_router
from rooftrace.app.map.clicks import clicks_router
from rooftrace.app.map.results import ResultsCatalogue
from rooftrace.app.map.review import REVIEW_BYTES, review_router
from rooftrace.app.map.router import Basemap, map_router
from rooftrace.app.page.page import mount_page
from rooftrace.io.files import demo_scene_path
from rooftrace.rest.api import create_api
from rooftrace.rest.jobs import JobIntake, jobs_router
from rooftrace.rest.labelstudio import labelstudio_router
from rooftrace.rest.ogc import OGC_BODY_SHARE, ogc_router
from rooftrace.rest.security import FORM_BYTES, LOOPBACK, Security
from rooftrace.service.jobs.runner import JobRunner
from rooftrace.service.live import LiveCameras
from rooftrace.service.service import Service

_EXAMPLE = "example.tif"
"""Name of the demo scene among the files of the jobs page."""

_JOBS_POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'self'"


def create_server(
    service: Service,
    runner: JobRunner | None = None,
    *,
    results: Sequence[Path] = (),
    basemaps: Sequence[Basemap] = (),
    cameras: LiveCameras | None = None,
    api_key: str | None = None,
    label_studio: str | None = None,
    label_studio_token: str | None = None,
    local: bool = True,
    allow_origins: Sequence[str] = (),
) -> FastAPI:
    """Return the app of `rooftrace serve`. Its lifespan warms and closes the service.

    Args:
        service: Service that predicts.
        runner: Runner of jobs, which the caller starts and stops; None for a server without jobs.
        results: Folders that the map shows in addition to finished jobs.
        basemaps: Tiles under the scenes of the map, of which a person chooses.
        cameras: Cameras of the page `/live`, which the caller closes; None for no camera.
        api_key: Key that every request needs; None for no key.
        label_studio: Address of the Label Studio server that uses this ML backend.
        label_studio_token: Access token of that server.
        local: Whether the server listens only on this machine and answers to no other name.
        allow_origins: Origins of other sites whose pages may call the server.

    Raises:
        ConfigError: The key is empty, a results folder is a file, or the address is malformed.
    """
    limits = service.limits
    security = Security(
        api_key=api_key,
        body_bytes=limits.upload_bytes + FORM_BYTES,
        body_bytes_of={
            "/v1/results": REVIEW_BYTES,
            "/ogc/processes": int(limits.upload_bytes * OGC_BODY_SHARE) + FORM_BYTES,
            "/v1/jobs": limits.job_upload_bytes + FORM_BYTES,
            "/gradio_api/upload": limits.upload_bytes + FORM_BYTES,
        },
        hosts=LOOPBACK if local else None,
        origins=allow_origins,
    )
    store = None if runner is None else runner.store
    catalogue = ResultsCatalogue(results, store)
    routers: list[APIRouter] = [
        labelstudio_router(service, url=label_studio, token=label_studio_token),
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
    if runner is not None:
        app.include_router(_jobs_page())
    app.include_router(front_door("demo" if runner is None else "jobs"))
    app.include_router(live_router(cameras or LiveCameras((), service.predictor)))
    return mount_page(app, service)


def _jobs_page() -> APIRouter:
    """Return the router of `/jobs`, a page that calls the API like any other client.

    It uploads scenes, shows their progress and links to their results.
    """
    router = APIRouter(include_in_schema=False)

    @router.get(f"/jobs/static/{_EXAMPLE}")
    def example() -> Response:
        return FileResponse(demo_scene_path(), media_type="image/tiff")

    router.include_router(static_router("jobs", _JOBS_POLICY))
    return router


def front_door(path: str) -> APIRouter:
    """Return the router of `/`, which leads to another page of the server."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def root() -> Response:
        # Relative, because a proxy may serve the server below a folder.
        return RedirectResponse(path)

    return router
