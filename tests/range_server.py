"""A web server for one file that can misbehave on request."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from local_server import LocalServer, QuietHandler, running


class RangeServer(LocalServer):
    """Serves `content` under any path, in ranges.

    Args:
        content: the file.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(_Handler)
        self.content = content
        self.failing: list[int] = []
        """Statuses of the next answers; 0 breaks off in the middle, -1 sends nothing in time."""
        self.status: int | None = None
        """Status of all answers; None for correct answers."""
        self.knows_ranges = True
        self.asked: list[tuple[int, int]] = []
        self.sent_bytes = 0

    @property
    def url(self) -> str:
        return f"{super().url}/folder/scene%20one.tif?key=secret"


class _Handler(QuietHandler):
    server: RangeServer

    def do_GET(self) -> None:
        served = self.server
        status = served.status or (served.failing.pop(0) if served.failing else 206)
        start, stop = self._range()
        served.asked.append((start, stop))
        if status == -1:
            time.sleep(0.6)
            status = 503
        if status not in (0, 206):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = served.content[start:stop]
        if served.knows_ranges:
            self.send_response(206)
            size = len(served.content)
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{size}")
        else:
            body = served.content
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status == 0:
            body = body[: len(body) // 2]
            self.close_connection = True
        served.sent_bytes += len(body)
        self.wfile.write(body)

    def _range(self) -> tuple[int, int]:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert found is not None
        return int(found[1]), min(int(found[2]) + 1, len(self.server.content))


@contextmanager
def serving(content: bytes) -> Iterator[RangeServer]:
    """A server in a thread of its own, for as long as the block lasts."""
    with running(RangeServer(content)) as server:
        yield server
