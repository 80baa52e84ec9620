"""The page `/live`, which shows the buildings of cameras as MJPEG."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from rooftrace.rest.pages import static_router
from rooftrace.rest.problems import ProblemError
from rooftrace.service.live import LiveCamera, LiveCameras

_LIVE_POLICY = (
    "default-src 'self'; img-src 'self' data:; connect-src 'self' data:; base-uri 'none'; "
    "frame-ancestors 'self'"
)

_STALLED_S = 20.0
"""Seconds after which a viewer that reads nothing is disconnected."""

_BOUNDARY = "rooftrace-frame"
_FOREIGN_SITES = ("cross-site", "same-site")
"""Values of Sec-Fetch-Site by which a browser says that a page of another site asks."""


def live_router(cameras: LiveCameras) -> APIRouter:
    """Return the routes of the cameras, which are numbered from 0 in their addresses.

    No part of a request becomes a source: only the cameras of the command line can be watched.
    """
    router = static_router("live", _LIVE_POLICY)

    @router.get("/cameras", include_in_schema=False)
    async def state() -> dict[str, Any]:
        return {
            "max_viewers": cameras.max_viewers,
            "cameras": [asdict(one.figures()) for one in cameras.cameras],
        }

    @router.get("/cameras/{number}/stream", include_in_schema=False)
    async def stream(number: int, request: Request) -> Response:
        if not 0 <= number < len(cameras.cameras):
            raise ProblemError(
                "not-found", "The camera does not exist.", remedy="See /live for all cameras."
            )
        if request.headers.get("sec-fetch-site") in _FOREIGN_SITES:
            # Such a page cannot see the picture, but it could switch the camera on.
            raise ProblemError("foreign-origin", "A page of another site asked for the camera.")
        return _CameraStream(cameras, cameras.cameras[number])

    return router


class _CameraStream(StreamingResponse):
    """The pictures of a camera, each as a part of `multipart/x-mixed-replace`.

    The next picture is taken when the connection has room for it, so a slow viewer gets fewer
    pictures and holds one in memory. The camera plays while the response is sent.
    """

    def __init__(self, cameras: LiveCameras, camera: LiveCamera) -> None:
        super().__init__(
            self._parts(),
            media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY}",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._cameras = cameras
        self._camera = camera
        self._new = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()

        def notify() -> None:
            loop.call_soon_threadsafe(self._new.set)

        with self._cameras.watch(self._camera, notify):
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
