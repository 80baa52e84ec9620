"""Attacks on the whole server."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi")

import httpx

from local_server import serving_app
from rooftrace.app.server import create_server
from rooftrace.engines.base import PointwiseEngine
from rooftrace.flows.doctor import tiny_bundle
from rooftrace.predict.predictor import Predictor
from rooftrace.service.decode import Limits
from rooftrace.service.job_runner import JobRunner
from rooftrace.service.job_store import JobStore
from rooftrace.service.service import Service
from tiny_models import write_tiny_bundle

pytestmark = pytest.mark.campaign

SECRET = "the-marker-of-a-file-that-nobody-may-read"
KEY = "the-key-that-nobody-may-read"
EVIL = "evil.example"
LIMITS = Limits(
    upload_bytes=2**20, pixels=1_000_000, job_upload_bytes=2**20, job_pixels=2_000_000, seconds=20.0
)


@dataclass(frozen=True)
class Served:
    """A running server, a secret file beside its results, and the folder of all its files."""

    url: str
    secret: Path
    folder: Path

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def raw(self, request: bytes) -> bytes:
        """Return the response to raw bytes, which may be a malformed request."""
        with socket.create_connection(self.address, timeout=60) as connection:
            connection.sendall(request)
            parts = []
            try:
                while part := connection.recv(65536):
                    parts.append(part)
            except ConnectionResetError:
                pass
        return b"".join(parts)

    def get(self, path: str, **headers: str) -> bytes:
        """Return the response to a GET of a path, without normalising the path."""
        lines = {"Host": httpx.URL(self.url).netloc.decode(), "Connection": "close"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return self.raw(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())


@contextmanager
def serving(folder: Path, api_key: str | None = None) -> Iterator[Served]:
    folder.mkdir(exist_ok=True)
    secret = folder / "secret.txt"
    secret.write_text(SECRET)
    bundle = tiny_bundle()
    model = folder / "tiny.rooftrace"
    write_tiny_bundle(model)
    service = Service(Predictor(bundle, PointwiseEngine()), LIMITS)
    shown = folder / "results"
    Predictor(bundle, PointwiseEngine()).predict(PIXELS.transpose(2, 0, 1)).save(shown)
    store = JobStore(folder / "jobs")
    runner = JobRunner(store, model, 1)
    runner.start()
    app = create_server(service, runner, results=[shown], api_key=api_key)
    try:
        with serving_app(app) as url:
            yield Served(url, secret, folder)
    finally:
        runner.stop()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve with an API key."""
    with serving(tmp_path_factory.mktemp("locked"), KEY) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=60, trust_env=False) as made:
        yield made


class Bait:
    """A port of this machine that the server must never connect to."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(0.2)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def bitten(self) -> bool:
        try:
            self.socket.accept()[0].close()
        except TimeoutError:
            return False
        return True


@pytest.fixture
def bait() -> Iterator[Bait]:
    made = Bait()
    with made.socket:
        yield made


PIXELS = np.full((64, 96, 3), 30, np.uint8)
PIXELS[8:32, 8:40] = 230


def png() -> bytes:
    return bytes(cv2.imencode(".png", PIXELS)[1])


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_it_works_for_who_means_well(client: httpx.Client) -> None:
    """Check that the server works; otherwise the other tests would prove nothing."""
    answer = client.post("/v1/predict", files={"file": ("a.png", png(), "image/png")})
    assert (answer.status_code, len(answer.json()["features"])) == (200, 1)
    for path in ("/", "/map"):
        assert client.get(path, follow_redirects=True).status_code == 200, path


UP = "../" * 12
PATHS = [
    "/{file}", "/assets/{up}{file}", "/map/static/{up}{file}", "/map/static/vendor/{up}{file}",
    "/map/folders/{up}{file}", "/map/folders/results/images/{up}{file}", "/page/x/0/{up}{file}",
    "/problems/{up}{file}", "/v1/jobs/{up}{file}", "/v1/jobs/x/results/{up}{file}",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_file_by_its_path(served: Served, path: str) -> None:
    for file in (served.secret, Path("/etc/passwd")):
        plain = path.format(file=str(file).lstrip("/"), up=UP)
        for written in (plain, plain.replace("../", "%2e%2e/")):
            answer = served.get(written)
            assert status_of(answer) < 500, written
            for leak in (SECRET.encode(), b"root:x:0", b"Traceback"):
                assert leak not in answer, written


CHANGES = [
    ("POST", "/v1/predict"), ("POST", "/v1/jobs"), ("POST", "/v1/jobs/x/cancel"),
    ("DELETE", "/v1/jobs/x"), ("POST", "/page/results"), ("POST", "/setup"), ("POST", "/predict"),
    ("POST", "/webhook"),
]  # fmt: skip


PAGES = ["/", "/map", "/map/folders", "/v1/docs", "/v1/model",
         "/openapi.json", "/metrics", "/health", "/healthz", "/v1/jobs"]  # fmt: skip


@pytest.mark.parametrize("path", PAGES)
def test_nothing_that_a_request_says_of_the_server_is_kept(served: Served, path: str) -> None:
    """A cache in front of the server would keep it for all clients."""
    answer = served.get(
        path, X_Forwarded_Host=EVIL, X_Forwarded_Proto="javascript", X_Forwarded_Prefix=f"//{EVIL}",
        Forwarded=f"host={EVIL}", X_Original_URL=f"//{EVIL}", X_Forwarded_Port="1",
    )  # fmt: skip
    assert EVIL.encode() not in answer
    assert b"javascript://" not in answer


NAMES = [
    'a"\r\nSet-Cookie: x=1\r\n\r\n<script>.png', "../../../../etc/passwd", "a\0b.png",
    "<img src=x onerror=alert(1)>.png", "/vsicurl/http://127.0.0.1:1/x.tif",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_an_upload_is_only_a_name(
    client: httpx.Client, served: Served, name: str
) -> None:
    before = sorted(path for path in served.folder.rglob("*") if "jobs" not in path.parts)
    answers = [
        client.post(path, params={"filename": name} | more, content=png(),
                    headers={"Content-Type": "image/png"})
        for path in ("/v1/predict", "/v1/jobs")
        for more in ({}, *([{"format": "png"}] if path == "/v1/predict" else []))
    ]  # fmt: skip
    for answer in answers:
        assert answer.status_code in (200, 202, 422), answer.text
        assert "set-cookie" not in answer.headers
        sent = answer.headers.get("content-disposition", "")
        assert not set(sent) & set("<>\\/\r\n\0"), sent
        assert "html" not in answer.headers["content-type"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    after = sorted(path for path in served.folder.rglob("*") if "jobs" not in path.parts)
    assert before == after
    for job in client.get("/v1/jobs").json()["jobs"]:
        client.delete(f"/v1/jobs/{job['id']}")


def uploads(secret: Path, bait: str) -> dict[str, bytes]:
    """Files that name other files and URLs."""
    vrt = (
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1">'
        "<SimpleSource><SourceFilename>{}</SourceFilename></SimpleSource></VRTRasterBand>"
        "</VRTDataset>"
    )
    return {
        "vrt of a file": vrt.format(secret).encode(),
        "vrt of an address": vrt.format(f"/vsicurl/{bait}/x.tif").encode(),
        "wms": f"<GDAL_WMS><Service name='WMS'><ServerUrl>{bait}</ServerUrl></Service></GDAL_WMS>"
        .encode(),
        "a path": f"/vsicurl/{bait}/x.tif".encode(),
        "a stac": json.dumps({"type": "FeatureCollection", "href": bait}).encode(),
    }  # fmt: skip


def test_an_upload_cannot_name_another_file(
    client: httpx.Client, served: Served, bait: Bait
) -> None:
    asked = [("/v1/predict", "a.vrt"), ("/v1/predict", f"/vsicurl/{bait.url}/x.tif"),
             ("/v1/jobs", "a.png")]  # fmt: skip
    for sent, data in uploads(served.secret, bait.url).items():
        for path, name in asked:
            answer = client.post(path, files={"file": (name, data, "image/tiff")})
            assert answer.status_code in (413, 422), (sent, path, answer.text)
            for leak in (SECRET, str(served.folder), "/tmp/"):
                assert leak not in answer.text, (sent, path)
    assert not bait.bitten()
    assert client.post("/v1/predict", content=png(),
                       headers={"Content-Type": "image/png"}).status_code == 200  # fmt: skip


def test_requests_that_never_end_block_no_others(served: Served, client: httpx.Client) -> None:
    """Neither heads that stop, nor bodies, nor answers that are not read."""
    host = httpx.URL(served.url).netloc
    head = b"POST %s HTTP/1.1\r\nHost: " + host + b"\r\nContent-Type: image/png\r\n"
    begins = [
        b"GET / HT", b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nX: ",
        head % b"/page/results" + b"Content-Length: 1000\r\n\r\nabc",
        head % b"/predict" + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
        head % b"/v1/predict" + b"Content-Length: 1000\r\n\r\nabc",
        b"GET /map HTTP/1.1\r\nHost: " + host + b"\r\n\r\n",
    ]  # fmt: skip
    connections = []
    try:
        for number in range(96):
            connection = socket.create_connection(served.address, timeout=60)
            connection.sendall(begins[number % len(begins)])
            connections.append(connection)
        for path in ("/healthz", "/", "/map", "/v1/model", "/health"):
            # The timeout ends the test if one of them is blocked.
            assert client.get(path, follow_redirects=True, timeout=60).status_code == 200
        # Of those who bring an image as many may be on their way as may wait.
        answer = client.post("/v1/predict", content=png(), headers={"Content-Type": "image/png"})
        assert answer.status_code in (200, 429)
    finally:
        for connection in connections:
            connection.close()
    deadline = time.monotonic() + 60
    while True:
        answer = client.post("/v1/predict", content=png(), headers={"Content-Type": "image/png"})
        if answer.status_code == 200:
            break
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)


NEEDING = ["/", "/map", "/map/folders", "/v1/docs", "/v1/model", "/v1/jobs", "/metrics",
           "/openapi.json", "/health", "/versions", "/problems/busy", "/face.css", "/nothing",
           "/page/x/table.csv"]  # fmt: skip
WAYS = ["{}", "{}/", "{}?/healthz", "/healthz/..{}", "/./{}"]


@pytest.mark.parametrize("path", NEEDING)
def test_nothing_without_the_key(locked: Served, path: str) -> None:
    for way in WAYS:
        for headers in (
            {}, {"Authorization": "Bearer "}, {"X_API_Key": KEY[:-1]}, {"Cookie": f"key={KEY}"},
        ):  # fmt: skip
            answer = locked.get(way.format(path), **headers)
            assert status_of(answer) in (400, 401), (way, headers, answer[:200])
    assert status_of(locked.get("/healthz")) == 200
    # And everything with it, by each of the ways that there are.
    if path not in ("/nothing", "/page/x/table.csv"):
        assert status_of(locked.get(path, Authorization=f"Bearer {KEY}")) == 200
        assert status_of(locked.get(path, X_API_Key=KEY)) == 200


def test_changes_need_the_key_too(locked: Served) -> None:
    with httpx.Client(base_url=locked.url, trust_env=False) as client:
        for method, path in CHANGES:
            answer = client.request(method, path, content=b"{}")
            assert answer.status_code == 401, path
            assert KEY not in answer.text
