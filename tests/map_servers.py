"""Real servers of map tiles on this machine: TiTiler, and a plain server that can misbehave.

TiTiler serves a GeoTIFF as XYZ, WMTS and WMS; it runs under uvicorn in a thread. `TileServer`
serves files by their path, or answers of its own.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from local_server import LocalServer, QuietHandler, running

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


class TileServer(LocalServer):
    """A server whose answers a function chooses.

    Args:
        answer: Function from the path of a request, with its query, to the answer.
    """

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        super().__init__(_Handler)
        self.answer = answer
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.running = 0
        self.most_running = 0
        self.lock = threading.Lock()


class _Handler(QuietHandler):
    server: TileServer

    def do_GET(self) -> None:
        served = self.server
        with served.lock:
            served.paths.append(self.path)
            served.headers.append(dict(self.headers))
            served.times.append(time.monotonic())
            served.running += 1
            served.most_running = max(served.most_running, served.running)
        try:
            status, headers, body = served.answer(self.path)
        finally:
            with served.lock:
                served.running -= 1
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 204:
            self.wfile.write(body)


@contextmanager
def serving(answer: Callable[[str], Answer]) -> Iterator[TileServer]:
    """A server in a thread of its own, for as long as the block lasts."""
    with running(TileServer(answer)) as server:
        yield server


class TiTiler:
    """Addresses of one GeoTIFF on a TiTiler.

    Args:
        base: Address of the server.
        image: GeoTIFF.
    """

    def __init__(self, base: str, image: Path) -> None:
        self.base = base
        self.image = quote(str(image), safe="")

    @property
    def xyz(self) -> str:
        return f"{self.base}/tiles/WebMercatorQuad/{{z}}/{{x}}/{{y}}.png?url={self.image}"

    @property
    def wmts(self) -> str:
        return f"{self.base}/WMTSCapabilities.xml?url={self.image}"

    @property
    def wms(self) -> str:
        return f"{self.base}/wms?SERVICE=WMS&REQUEST=GetCapabilities&layers={self.image}"


@contextmanager
def titiler() -> Iterator[str]:
    """A TiTiler in a process of its own, for as long as the block lasts; yields its address."""
    # In this process its warnings about images would be errors of a test.
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(Path(__file__))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def run_titiler() -> None:
    """Serve until the process is ended; the port is the first line on stdout."""
    import uvicorn
    from fastapi import FastAPI
    from titiler.core.errors import DEFAULT_STATUS_CODES, add_exception_handlers
    from titiler.core.factory import TilerFactory
    from titiler.extensions.wms import wmsExtension
    from titiler.extensions.wmts import wmtsExtension

    app = FastAPI()
    extensions = [wmsExtension(supported_crs=["EPSG:3857"]), wmtsExtension()]
    app.include_router(TilerFactory(extensions=extensions).router)
    add_exception_handlers(app, DEFAULT_STATUS_CODES)
    # Bound before it is announced: connections wait until the server has started.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sys.stdout.write(f"{listening.getsockname()[1]}\n")
        sys.stdout.flush()
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        server.run(sockets=[listening])


if __name__ == "__main__":
    run_titiler()
