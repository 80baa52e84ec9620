"""The whole server on one port: API, jobs, map, and the pages `/` and `/live`.

The page at `/` shows results and jobs as cards, a place to drop images, and examples. It calls the
API like any other client. The page `/live` shows cameras as MJPEG. Label Studio calls the same
server for predictions.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from PIL import Image
from starlette.types import Message, Receive, Scope, Send

from rooftrace.app.map.results import ResultsCatalogue
from rooftrace.app.map.review import REVIEW_BYTES, clicks_router, review_router
from rooftrace.app.map.review_scene import reviewed_layers
from rooftrace.app.map.router import Basemap, map_router
from rooftrace.app.viewer import new_results, viewer_router
from rooftrace.core.types import Window
from rooftrace.io.files import demo_scene_path, written_bytes
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.picture import encoded
from rooftrace.io.raster import open_raster, write_raster
from rooftrace.rest.api import create_api
from rooftrace.rest.jobs import JobIntake, jobs_router
from rooftrace.rest.labelstudio import labelstudio_router
from rooftrace.rest.ogc import OGC_BODY_SHARE, ogc_router
from rooftrace.rest.pages import page_response, static_router
from rooftrace.rest.problems import ProblemError
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
        cameras: Cameras of the page `/live`, which the caller closes.
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
        routers.append(jobs_router(intake, reviewed_layers))
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
    app.include_router(viewer_router(new_results(), service))
    return app


_HOME_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; frame-ancestors 'self'"
)

EXAMPLES = {
    "town": Window(0, 0, 2048, 2048),
    "settlement": Window(900, 660, 510, 680),
    "streets": Window(1130, 100, 510, 680),
    "warehouses": Window(440, 1210, 510, 680),
}
"""Parts of the demo scene by name: the whole, and three that are predicted at once."""


def home_router() -> APIRouter:
    """Return the routes of the page and of its examples."""
    router = APIRouter(include_in_schema=False)

    # Relative URLs only, because a proxy may serve the server below a folder.
    @router.get("/")
    def root(request: Request) -> Response:
        return page_response(request, "home", _HOME_POLICY)

    @router.get("/jobs")
    def jobs() -> Response:
        return RedirectResponse("./")

    @router.get("/home/examples/{name}.{kind}")
    def example(name: str, kind: str) -> Response:
        if name not in EXAMPLES or kind not in ("tif", "webp"):
            raise ProblemError("not-found", f"The examples are {', '.join(EXAMPLES)}.")
        data = _example(name)[kind]
        return Response(data, media_type="image/tiff" if kind == "tif" else "image/webp")

    router.include_router(static_router("home", _HOME_POLICY))
    return router


@cache
def _example(name: str) -> dict[str, bytes]:
    """Return a part of the demo scene as GeoTIFF and as a picture."""
    raster = open_raster(demo_scene_path()).read(EXAMPLES[name])
    picture = Image.fromarray(raster.data.transpose(1, 2, 0))
    source = ArraySource(raster.data, raster.grid, raster.valid, name)
    tif = written_bytes(f"{name}.tif", lambda path: write_raster(path.parent, name, source))
    return {"tif": tif, "webp": encoded(picture, "WEBP", quality=55)}


_LIVE_POLICY = (
    "default-src 'self'; img-src 'self' data:; connect-src 'self' data:; base-uri 'none'; "
    "frame-ancestors 'self'"
)

_STALLED_S = 20.0
"""Seconds after which a viewer that reads nothing is disconnected."""

_BOUNDARY = "rooftrace-frame"
_FOREIGN_SITES = ("cross-site", "same-site")
"""Values of Sec-Fetch-Site by which a browser says that a page of another site asks."""


def live_router(cameras: Sequence[LiveCamera]) -> APIRouter:
    """Return the routes of the cameras, which are numbered from 0 in their addresses.

    No part of a request becomes a source: only the cameras of the command line can be watched.
    """
    router = static_router("live", _LIVE_POLICY)

    @router.get("/cameras", include_in_schema=False)
    async def state() -> dict[str, Any]:
        return {"cameras": [asdict(one.figures()) for one in cameras]}

    @router.get("/cameras/{number}/stream", include_in_schema=False)
    async def stream(number: int, request: Request) -> Response:
        if not 0 <= number < len(cameras):
            raise ProblemError(
                "not-found", "The camera does not exist.", remedy="See /live for all cameras."
            )
        if request.headers.get("sec-fetch-site") in _FOREIGN_SITES:
            # Such a page cannot see the picture, but it could switch the camera on.
            raise ProblemError("foreign-origin", "A page of another site asked for the camera.")
        return _CameraStream(cameras[number])

    return router


class _CameraStream(StreamingResponse):
    """The pictures of a camera, each as a part of `multipart/x-mixed-replace`.

    The next picture is taken when the connection has room for it, so a slow viewer gets fewer
    pictures and holds one in memory. The camera plays while the response is sent.
    """

    def __init__(self, camera: LiveCamera) -> None:
        super().__init__(
            self._parts(),
            media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY}",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._camera = camera
        self._new = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()

        def notify() -> None:
            loop.call_soon_threadsafe(self._new.set)

        with self._camera.watch(notify):
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(_STALLED_S):
                await send(message)

        with suppress(TimeoutError):
            await super().stream_response(send_in_time)

    async def _parts(self) -> AsyncIterator[bytes]:
        camera, sent = self._camera, None
        yield f"--{_BOUNDARY}\r\n".encode()
        while not camera.closed:
            frame = camera.frame
            if frame is None or frame is sent:
                await self._new.wait()
                self._new.clear()
                continue
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(frame)}\r\n\r\n"
            # The next boundary at once, because browsers show a picture when they know its end.
            yield head.encode() + frame + f"\r\n--{_BOUNDARY}\r\n".encode()
            sent = frame
