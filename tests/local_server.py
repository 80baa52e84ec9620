"""A web server of this machine, in a thread, whose answers a handler gives."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar


class QuietHandler(BaseHTTPRequestHandler):
    """Handler that prints no line for a request, and keeps connections open."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silence."""


class LocalServer(ThreadingHTTPServer):
    """A server on a free port.

    Args:
        handler: Class that answers the requests.
    """

    daemon_threads = True
    scheme = "http"

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, *_: object) -> None:
        """Nothing: who asks may hang up."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"


PATIENCE_S = 300.0
"""Time after which a test fails; generous, because it must not depend on the machine's load."""


def wait_until(condition: Callable[[], Any], what: str = "a condition") -> Any:
    """Poll until a condition holds and return its value; fail after `PATIENCE_S`."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"waited in vain: {what}"
        time.sleep(0.005)
    return value


Server = TypeVar("Server", bound=LocalServer)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Run a server in a thread of its own, for as long as the block lasts."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving_app(app: Any) -> Iterator[str]:
    """Serve an ASGI application in a thread of its own on a free port, and yield its URL."""
    import uvicorn

    config = uvicorn.Config(
        app, port=0, log_level="warning", ws="none", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server stopped while it started"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
