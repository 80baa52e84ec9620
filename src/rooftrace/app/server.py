"""The whole server: API, jobs, Label Studio backend, map, live video and page on one port."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from rooftrace.app.live.router import live_router
from rooftrace.app.map.results import FolderCatalogue, ResultsEntry
from rooftrace.app.map.review import REVIEW_BYTES, clicks_router, review_router
from rooftrace.app.map.router import Basemap, map_router
from rooftrace.app.map.training import training_router
from rooftrace.app.page.page import MAX_FILES, mount_page
from rooftrace.rest.api import create_api
from rooftrace.rest.face import file_response, with_header
from rooftrace.rest.jobs import JobIntake, jobs_router
from rooftrace.rest.labelstudio import labelstudio_router
from rooftrace.rest.ogc import OGC_BODY_SHARE, ogc_router
from rooftrace.rest.security import FORM_BYTES, LOOPBACK, Security
from rooftrace.rest.versions import versions_router
from rooftrace.service.jobs.job import Job
from rooftrace.service.jobs.runner import JobRunner
from rooftrace.service.jobs.store import JobStore
from rooftrace.service.live import LiveCameras
from rooftrace.service.service import Service
from rooftrace.service.versions import ModelVersions, TrainingSettings
from rooftrace.testing.scene import demo_scene_path

_MAX_JOBS = 200
"""Maximum number of jobs in the list of the map; older jobs are found by their ids."""

_JOB_PREFIX = "job-"


_JOBS_PAGE = {
    "index.html": "text/html", "jobs.js": "text/javascript", "upload.js": "text/javascript",
    "jobs.css": "text/css",
}  # fmt: skip
_EXAMPLE = "example.tif"
"""Name of the demo scene among the files of the jobs page."""

_JOBS_POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'self'"


class ServerCatalogue:
    """Results on the map: the given folders, then finished predictions, newest first.

    Args:
        paths: Results folders.
        store: Store of jobs, if the server has jobs.

    Raises:
        ConfigError: One of the paths is a file.
    """

    def __init__(self, paths: Sequence[Path], store: JobStore | None) -> None:
        self._named = FolderCatalogue(paths)
        self._store = store

    def entries(self) -> Sequence[ResultsEntry]:
        """Return the current entries."""
        jobs = [] if self._store is None else self._store.newest(_MAX_JOBS)
        return [
            *self._named.entries(),
            *(_entry_of(job) for job in jobs if _has_map(job)),
        ]

    def entry(self, id: str) -> ResultsEntry | None:  # noqa: A002
        """Return the entry with an id, also of a job that is too old for the list."""
        job = self._job(id)
        return self._named.entry(id) or (None if job is None else _entry_of(job))

    def folder(self, id: str) -> Path | None:  # noqa: A002
        """Return the folder of an entry, or None if it does not exist."""
        # A given folder may have a name that begins as the ids of jobs do.
        named = self._named.folder(id)
        if named is not None or self._store is None:
            return named
        job = self._job(id)
        return None if job is None else self._store.results(job.id)

    def _job(self, id: str) -> Job | None:  # noqa: A002
        if self._store is None or not id.startswith(_JOB_PREFIX):
            return None
        job = self._store.get(id.removeprefix(_JOB_PREFIX))
        return job if job is not None and _has_map(job) else None


def _has_map(job: Job) -> bool:
    return job.state == "done" and job.training is None


def _entry_of(job: Job) -> ResultsEntry:
    return ResultsEntry(_JOB_PREFIX + job.id, f"{job.name}, {_day(job.created_s)}")


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def create_server(
    service: Service,
    runner: JobRunner | None = None,
    *,
    results: Sequence[Path] = (),
    basemap: Basemap | None = None,
    cameras: LiveCameras | None = None,
    api_key: str | None = None,
    label_studio: str | None = None,
    label_studio_token: str | None = None,
    training: TrainingSettings | None = None,
    local: bool = True,
) -> FastAPI:
    """Return the app of `rooftrace serve`. Its lifespan warms and closes the service.

    Args:
        service: Service that predicts.
        runner: Runner of jobs, which the caller starts and stops; None for a server without jobs.
        results: Folders that the map shows in addition to finished jobs.
        basemap: Tiles under the scenes of the map; None for none.
        cameras: Cameras of the page `/live`, which the caller closes; None for no camera.
        api_key: Key that every request needs; None for no key.
        label_studio: Address of the Label Studio server that uses this ML backend.
        label_studio_token: Access token of that server.
        training: Settings of trainings; None if the server does not train.
        local: Whether the server listens only on this machine and answers to no other name.

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
            "/gradio_api/upload": MAX_FILES * limits.upload_bytes + FORM_BYTES,
        },
        hosts=LOOPBACK if local else None,
    )
    store = None if runner is None else runner.store
    versions = ModelVersions(service, store, training)
    catalogue = ServerCatalogue(results, store)
    routers: list[APIRouter] = [
        labelstudio_router(service, url=label_studio, token=label_studio_token, versions=versions),
        review_router(catalogue),
        clicks_router(catalogue),
    ]
    if runner is not None:
        intake = JobIntake(runner, service.predictor, limits, lambda: versions.served_id)
        routers.append(jobs_router(intake))
        routers.append(ogc_router(intake))
        routers.append(versions_router(versions, runner.store, service.bundle.version))
        routers.append(training_router(catalogue, versions))
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
    trains = versions.settings is not None
    app.include_router(map_router(catalogue, basemap, trains=trains))
    app.include_router(live_router(cameras or LiveCameras((), service.predictor)))
    return mount_page(app, service)


def _jobs_page() -> APIRouter:
    """Return the router of `/jobs`, a page that calls the API like any other client.

    It uploads scenes, shows their progress and links to their results.
    """
    router = APIRouter(prefix="/jobs", include_in_schema=False)

    @router.get("")
    def page(request: Request) -> Response:
        return _asset(request, "index.html")

    @router.get(f"/static/{_EXAMPLE}")
    def example() -> Response:
        return FileResponse(demo_scene_path(), media_type="image/tiff")

    @router.get("/static/{name}")
    def static(request: Request, name: str) -> Response:
        if name not in _JOBS_PAGE:
            raise HTTPException(404, "The page has no such file.")
        return _asset(request, name)

    return router


def front_door(address: str) -> APIRouter:
    """Return the router of `/`, which leads to another address of the server."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def root() -> Response:
        # Relative, because a proxy may serve the server below a folder.
        return RedirectResponse(address)

    return router


def _asset(request: Request, name: str) -> Response:
    text = (files("rooftrace") / "app" / "jobs" / "static" / name).read_text(encoding="utf-8")
    return file_response(
        request, with_header(text, "jobs").encode(), f"{_JOBS_PAGE[name]}; charset=utf-8",
        {"Content-Security-Policy": _JOBS_POLICY},
    )  # fmt: skip
