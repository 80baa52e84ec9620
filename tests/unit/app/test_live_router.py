"""Live video over HTTP: its page, the cameras, and viewers of all kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av")
pytest.importorskip("fastapi")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from rest_service import app_with
from rooftrace.app import server as routing
from rooftrace.app.server import live_router
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.predict.predictor import Predictor
from rooftrace.service.live import CameraSource, LiveCamera
from video_files import town, write_video

PATIENCE_S = 120
STREAM = "/live/cameras/0/stream"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("live") / "flight.mp4"
    return write_video(path, map(town, range(12)), rate=100)


@pytest.fixture
def camera(clip: Path) -> Iterator[LiveCamera]:
    predictor = Predictor(tiny_bundle(), PointwiseEngine())
    made = LiveCamera(CameraSource("yard", str(clip)), predictor)
    yield made
    made.close(PATIENCE_S)


@pytest.fixture
def app(camera: LiveCamera) -> FastAPI:
    return app_with(live_router([camera]))


class Viewer:
    """A viewer at the end of a connection, who reads one message when asked."""

    def __init__(self) -> None:
        self.start: dict[str, Any] = {}
        self.held = 0
        self._place: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._gone = asyncio.Event()

    async def send(self, message: Any) -> None:
        """Receive a message as a server does, which waits while the viewer does not read."""
        if message["type"] == "http.response.start":
            self.start = message
            return
        self.held += 1
        await self._place.put(message.get("body", b""))
        self.held -= 1

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def read(self) -> bytes:
        return await asyncio.wait_for(self._place.get(), PATIENCE_S)

    async def picture(self) -> bytes:
        """Return the next picture; the first message is the first boundary."""
        while b"\xff\xd8" not in (part := await self.read()):
            pass
        return part

    def leave(self) -> None:
        self._gone.set()


@asynccontextmanager
async def viewing(app: FastAPI, **headers: str) -> AsyncIterator[Viewer]:
    viewer = Viewer()
    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": "GET", "path": STREAM, "raw_path": STREAM.encode(),
        "query_string": b"", "root_path": "", "scheme": "http", "server": ("localhost", 80),
        "client": ("127.0.0.1", 1), "asgi": {"version": "3.0", "spec_version": "2.3"},
        "headers": [(b"host", b"localhost"), *named],
    }  # fmt: skip
    task = asyncio.create_task(app(scope, viewer.receive, viewer.send))  # type: ignore[arg-type]
    try:
        yield viewer
    finally:
        viewer.leave()
        await asyncio.wait_for(task, PATIENCE_S)


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not fact():
            await asyncio.sleep(0.002)


def run(work: Awaitable[None]) -> None:
    async def wrapped() -> None:
        await work

    asyncio.run(wrapped())


def test_cameras_are_listed_without_their_sources(app: FastAPI, clip: Path) -> None:
    answer = TestClient(app).get("/live/cameras")
    [listed] = answer.json()["cameras"]
    assert (listed["name"], listed["state"]) == ("yard", "idle")
    assert str(clip) not in answer.text


def test_only_listed_cameras_are_shown_and_only_to_own_pages(
    app: FastAPI, camera: LiveCamera
) -> None:
    client = TestClient(app)
    assert client.get("/live/cameras/1/stream").json()["type"] == "/problems/not-found"
    assert client.get("/live/cameras/-1/stream").status_code == 404
    for site in ("cross-site", "same-site"):
        answer = client.get(STREAM, headers={"Sec-Fetch-Site": site})
        assert answer.json()["type"] == "/problems/foreign-origin"
    assert client.head(STREAM).status_code == 405
    assert camera.figures().state == "idle"


def test_a_viewer_that_does_not_read_holds_one_picture_and_delays_no_other(
    app: FastAPI, camera: LiveCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watch() -> None:
        async with viewing(app) as slow, viewing(app) as quick:
            await quick.picture()
            await until(lambda: slow.held == 1)
            for _ in range(5):
                await quick.picture()
            assert slow.held == 1
            # When it reads again, it gets what it held and then the newest picture.
            await slow.picture()
            await until(lambda: slow.held == 1)

    run(watch())
    monkeypatch.setattr(routing, "_STALLED_S", 0.01)

    async def stall() -> None:
        async with viewing(app):
            await until(lambda: camera.figures().state != "idle")
            await until(lambda: camera.figures().state == "idle")

    run(stall())


def test_viewers_leave_when_the_server_stops(app: FastAPI, camera: LiveCamera) -> None:
    async def watch() -> None:
        async with viewing(app) as viewer:
            await viewer.picture()
            camera.close()
            while await viewer.read():
                pass
        async with viewing(app) as late:
            assert b"stopping" in await late.read()

    run(watch())
