"""A web server for a folder, with range requests, TLS, and answers that a test prescribes."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from local_server import LocalServer, QuietHandler, running


class Answer(NamedTuple):
    """Response of the server for an address."""

    body: bytes
    status: int = 200
    kind: str = "application/json"
    wait_s: float = 0.0
    location: str = ""


class FolderServer(LocalServer):
    """Serves the files of a folder.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(_Handler)
        self.folder = folder
        self.answers: dict[str, Answer | Callable[[dict[str, list[str]]], Answer]] = {}
        """Answers by path; a function receives the query."""
        self.keys: dict[str, str] = {}
        """Keys `sig` that paths with a beginning require, by the beginning."""
        self.asked: list[str] = []
        self.signed: list[str] = []
        """Header Authorization of each request; "" for none."""


class _Handler(QuietHandler):
    server: FolderServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.signed.append(self.headers.get("Authorization", ""))
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        prescribed = self.server.answers.get(path)
        if prescribed is not None:
            answer = prescribed if isinstance(prescribed, Answer) else prescribed(query)
            time.sleep(answer.wait_s)
            self._send(answer.status, answer.body, answer.kind, location=answer.location)
            return
        needed = next(
            (key for begin, key in self.server.keys.items() if path.startswith(begin)), ""
        )
        file = self.server.folder / path.lstrip("/")
        if needed and query.get("sig") != [needed]:
            self._send(403, b"no key", "text/plain")
        elif not file.is_file():
            self._send(404, b'{"detail": "not found"}', "application/json")
        else:
            self._send_file(file.read_bytes(), file.suffix)

    def _send_file(self, content: bytes, suffix: str) -> None:
        kind = "application/json" if suffix == ".json" else "image/tiff"
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            self._send(200, content, kind)
            return
        start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(content))
        self._send(206, content[start:stop], kind, f"bytes {start}-{stop - 1}/{len(content)}")

    def _send(
        self, status: int, body: bytes, kind: str, part: str = "", location: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if part:
            self.send_header("Content-Range", part)
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving_folder(folder: Path, tls: ssl.SSLContext | None = None) -> Iterator[FolderServer]:
    """A server in a thread of its own, for as long as the block lasts."""
    server = FolderServer(folder)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.scheme = "https"
    with running(server):
        yield server
