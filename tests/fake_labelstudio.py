"""A server with answers by path, in place of Label Studio."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
from PIL import Image

from local_server import LocalServer, QuietHandler
from rooftrace.core.types import GeoGrid, Mask
from rooftrace.labels.labelstudio.write import Control, brush_results
from town import generate_scene

__all__ = ["PNG", "TOKEN", "Answer", "FakeServer", "export_of", "serve_project"]

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


def serve_project(server: FakeServer, number: int, seeds: Iterable[int]) -> None:
    """Let the server have a project with labelled images of 128 px, and two annotators.

    The label of buildings is `Haus`, and one region has a label that is no class of the model.
    """
    tasks = []
    for seed in seeds:
        scene = generate_scene(seed, shape_yx=(128, 128), gsd_m=0.3)
        name = f"/data/upload/{number}/0a1b2c3d-chip{seed:03}.png"
        png = io.BytesIO()
        Image.fromarray(scene.image.transpose(1, 2, 0)).save(png, "png")
        server.answers[name] = (200, png.getvalue(), {})
        mask = Mask(scene.mask(), np.ones((128, 128), np.bool_), GeoGrid((128, 128)))
        drawn = list(brush_results(mask, ("background", "Haus"), Control("what", "pic")))
        other = {
            "id": "r", "type": "rectanglelabels", "from_name": "box", "to_name": "pic",
            "original_width": 128, "original_height": 128, "image_rotation": 0,
            "value": {"x": 1, "y": 1, "width": 5, "height": 5, "rotation": 0,
                      "rectanglelabels": ["Road"]},
        }  # fmt: skip
        votes = [{"id": 1, "result": [*drawn, other], "completed_by": 1}]
        if not tasks:
            votes.append({"id": 2, "result": drawn, "completed_by": 2})
        tasks.append({"id": seed, "data": {"photo": name}, "annotations": votes})
    server.says(f"/api/projects/{number}", {"id": number, "label_config": PROJECT})
    server.says(f"/api/projects/{number}/export", tasks)


PROJECT = (
    '<View><Image name="pic" value="$photo"/><BrushLabels name="what" toName="pic" '
    'rooftrace_gsd_m="0.3"><Label value="Haus" predicted_values="building"/></BrushLabels>'
    '<RectangleLabels name="box" toName="pic"><Label value="Road"/></RectangleLabels></View>'
)
