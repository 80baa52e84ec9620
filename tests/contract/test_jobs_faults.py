"""Uploads that end early, a folder that cannot be written: the server goes on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from jobs_server import PATIENCE_S, jobs_app, serving, wait_until, write_model, write_town
from rooftrace.service.decode import Limits

pytestmark = pytest.mark.campaign

RAW = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A model, and the bytes of an image."""
    folder = tmp_path_factory.mktemp("inputs")
    return write_model(folder), write_town(folder / "town.tif", 400).read_bytes()


@pytest.fixture
def server(inputs: tuple[Path, bytes], tmp_path: Path) -> Iterator[tuple[httpx.Client, FastAPI]]:
    """Serve jobs whose processes end at once, since only what comes before them is examined."""
    app = jobs_app(tmp_path / "jobs", inputs[0], Limits(), command=("/bin/false",))
    with serving(app) as url, httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        yield client, app


def has_uploads(app: FastAPI) -> bool:
    return any(path.is_dir() for path in app.state.store.folder.iterdir())


def send(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/v1/jobs", content=data, headers=RAW)


def check_works(client: httpx.Client, data: bytes) -> dict[str, Any]:
    """Check that the server takes a job and shows it."""
    answer = send(client, data)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert client.get(job["links"]["self"]).json()["id"] == job["id"]
    return job


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_that_ends_early_leaves_nothing(
    server: tuple[httpx.Client, FastAPI], inputs: tuple[Path, bytes], *, chunked: bool
) -> None:
    client, app = server
    data = inputs[1]
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(data)
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Type: image/tiff\r\n" + length
    body = (b"%x\r\n" % len(data) if chunked else b"") + data[: len(data) // 2]
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(head + b"\r\n\r\n" + body)
        wait_until(lambda: has_uploads(app), "the upload begins")
    wait_until(lambda: not has_uploads(app), "the upload is removed")
    assert client.get("/v1/jobs").json()["jobs"] == []
    check_works(client, data)
