"""A server with answers by path, in place of Label Studio."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from local_server import LocalServer, QuietHandler

TOKEN = "s3cret-t0ken"

Answer = tuple[int, bytes, dict[str, str]]


class FakeServer(LocalServer):
    """Server that answers by path and records requests and bodies. A test sets `answers`."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.answers: dict[str, Answer | Callable[[BaseHTTPRequestHandler], Answer]] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.bodies: list[bytes] = []

    def says(self, path: str, value: object) -> None:
        self.answers[path] = (200, json.dumps(value).encode(), {})


class _Handler(QuietHandler):
    server: FakeServer
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append((self.command, self.path, self.headers["Authorization"]))
        self.server.bodies.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        answer = self.server.answers.get(path, (404, b'{"detail": "Not found."}', {}))
        status, body, headers = answer(self) if callable(answer) else answer
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415478da6368f8ff1f0004fd02fe4aa7d7620000000049454e44ae426082"
)


def export_of(*references: object) -> list[dict[str, Any]]:
    return [
        {"id": number, "data": {"image": reference}, "annotations": []}
        for number, reference in enumerate(references)
    ]
