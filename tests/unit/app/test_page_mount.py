"""The page in its application: what is served, and what is not."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from gradio import processing_utils
from gradio.utils import get_upload_folder
from page_images import LastOfThree, predictor_of
from starlette.testclient import TestClient

from rooftrace.app.page import mount_page, uploads
from rooftrace.app.page.uploads import folder_of_process, make_room
from rooftrace.core.errors import BusyError
from rooftrace.rest.problems import install_problems
from rooftrace.service.decode import Limits
from rooftrace.service.service import Service

# Gradio asks of pandas what that has given up.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*no_silent_downcasting"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]

FILE = {"meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    made = Service(predictor_of(), Limits(upload_bytes=100_000, waiting=7))
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    app = FastAPI()
    install_problems(app)
    with TestClient(mount_page(app, service)) as client:
        yield client


def config_of(client: TestClient) -> dict[str, Any]:
    return dict(client.get("/config").json())


def said(client: TestClient, elem_id: str, event: str, data: list[Any]) -> str:
    """All that the server says to a browser that sends `data` for an event."""
    config = config_of(client)
    (number,) = (
        one["id"] for one in config["components"] if one["props"].get("elem_id") == elem_id
    )
    which = next(
        one["id"]
        for one in config["dependencies"]
        if [number, event] in [[*target] for target in one["targets"]] and one["backend_fn"]
    )
    session = uuid.uuid4().hex[:10]
    body = {"data": data, "fn_index": which, "session_hash": session}
    joined = client.post("/gradio_api/queue/join", json=body)
    text = joined.text
    assert joined.status_code == 200, text
    with client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as events:
        for line in events.iter_lines():
            text += line
            if '"process_completed"' in line or '"close_stream"' in line:
                break
    return text


def test_nothing_is_recorded_and_no_calls_are_offered(client: TestClient) -> None:
    config = config_of(client)
    assert config["analytics_enabled"] is False
    assert not config.get("run_history")
    assert {one["api_visibility"] for one in config["dependencies"]} == {"private"}
    info = client.get("/gradio_api/info").json()
    assert (info["named_endpoints"], info["unnamed_endpoints"]) == ({}, {})


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        str(Path(__file__)),
        str(Path.cwd() / "pyproject.toml"),
        "pyproject.toml",
        "../../../../etc/passwd",
        "/proc/self/environ",
    ],
)
def test_files_of_the_server_stay_there(client: TestClient, path: str) -> None:
    for route in ("/gradio_api/file=", "/file=", "/static/../../", "/assets/../../../"):
        answer = client.get(route + path)
        assert answer.status_code >= 400, (route, path)
        assert "root:" not in answer.text


def test_an_upload_that_is_too_large_is_refused(client: TestClient, service: Service) -> None:
    for size, status in ((1000, 200), (service.limits.upload_bytes + 1, 413)):
        answer = client.post("/gradio_api/upload", files={"files": ("a.tif", b"x" * size)})
        assert answer.status_code == status


@pytest.mark.parametrize("where", [0, 1, 2, 3, 4])
def test_a_path_that_was_not_uploaded_is_not_read(
    client: TestClient, tmp_path: Path, where: int
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("hush hush")
    data: list[Any] = [None, "", "", "", 0.5]
    data[where] = {"path": str(secret), **FILE}
    before = {*Path(get_upload_folder()).rglob("*secret*")}
    text = said(client, "rt-again", "click", data)
    assert "hush" not in text
    assert "secret.txt is none" not in text
    assert {*Path(get_upload_folder()).rglob("*secret*")} == before


def test_an_address_is_not_fetched(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Any] = []

    async def fetch(*args: Any, **options: Any) -> str:
        fetched.append(args)
        (tmp_path / "a.tif").write_bytes(b"fetched")
        return str(tmp_path / "a.tif")

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    data = [{"path": "http://example.com/a.tif", **FILE}, "", "", "", 0.5]
    text = said(client, "rt-again", "click", data)
    assert '"success":false' in text.replace(" ", "")
    assert fetched == []


@pytest.mark.campaign
def test_an_upload_is_read(client: TestClient) -> None:
    (path,) = client.post("/gradio_api/upload", files={"files": ("a.tif", b"no image")}).json()
    text = said(client, "rt-again", "click", [{"path": path, **FILE}, "", "", "", 0.5])
    assert "a.tif has none of the supported image formats" in text
    assert 'role=\\"alert\\"' in text


def test_invalid_fields_are_reported(client: TestClient) -> None:
    (path,) = client.post("/gradio_api/upload", files={"files": ("a.tif", b"no image")}).json()
    text = said(client, "rt-again", "click", [{"path": path, **FILE}, "ten", "", "", 0.5])
    assert "Metres per pixel are" in text
    assert "Choose an image first" in said(client, "rt-again", "click", [None, "", "", "", 0.5])


@pytest.mark.campaign
def test_a_model_of_several_classes_has_no_threshold() -> None:
    made = Service(predictor_of(LastOfThree(), classes=("background", "building", "water")))
    try:
        with TestClient(mount_page(FastAPI(), made)) as client:
            props = [one["props"] for one in config_of(client)["components"]]
    finally:
        made.close()
    slider = next(one for one in props if one.get("elem_id") == "rt-threshold")
    assert slider["interactive"] is False
    assert "3 classes" in slider["info"]


@pytest.mark.campaign
def test_no_connection_leaves_the_machine(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        asked.append(address)
        raise OSError("no network here")

    def resolve(host: Any, *rest: Any, **more: Any) -> list[Any]:
        asked.append(host)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with TestClient(mount_page(FastAPI(), service)) as client:
        for path in ("/", "/config", "/theme.css", "/gradio_api/startup-events"):
            assert client.get(path).status_code == 200
        text = said(client, "rt-again", "click", [None, "", "", "", 0.5])
    assert "Choose an image first" in text
    assert asked == []


CLOSED = [
    ("POST", "/gradio_api/call/x"), ("POST", "/gradio_api/call/v2/x"), ("GET", "/x"),
    ("POST", "/gradio_api/run/x"),
    ("POST", "/gradio_api/api/x"), ("GET", "/gradio_api/call/x/y"), ("GET", "/monitoring"),
    ("POST", "/gradio_api/component_server"), ("POST", "/gradio_api/process_recording"),
    ("GET", "/gradio_api/deep_link?session_hash=x"), ("GET", "/gradio_api/vibe-code"),
    ("GET", "/gradio_api/proxy=http://example.com/"), ("POST", "/login"),
    ("GET", "/gradio_api/stream/x/y/z/playlist.m3u8"), ("GET", "/gradio_api/heartbeat/x/y"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_routes_that_the_page_does_not_use_are_closed(
    client: TestClient, method: str, path: str
) -> None:
    answer = client.request(method, path, json={"data": [], "fn_index": -1, "session_hash": "a"})
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


@pytest.mark.parametrize(
    "body",
    [
        {"data": [], "fn_index": -1, "session_hash": "a"},
        {"data": [], "fn_index": 10**6, "session_hash": "a"},
        {"data": [], "session_hash": "a"},
        {"data": [], "fn_index": 0},
        {"data": 1, "fn_index": 0, "session_hash": "a"},
        [],
    ],
)
def test_events_that_the_page_does_not_have_are_refused(
    client: TestClient, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        answer = client.post("/gradio_api/queue/join", json=body)
    assert (answer.status_code, "Traceback" in answer.text) == (400, False)
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("data", [[], [1], [1, 2, 3, 4, 5], [{}, {}, {}, {}], ["x", [], "y", None]])
def test_inputs_that_the_page_does_not_send_leave_no_traceback(
    client: TestClient, data: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    for number, one in enumerate(client.get("/config").json()["dependencies"]):
        if not one["backend_fn"]:
            continue
        session = f"session{number}"
        body = {"data": data, "fn_index": one["id"], "session_hash": session}
        assert client.post("/gradio_api/queue/join", json=body).status_code == 200
        with client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as events:
            for line in events.iter_lines():
                if '"process_completed"' in line or '"close_stream"' in line:
                    break
    assert "Traceback" not in capfd.readouterr().err


def put(path: Path, size: int, age_s: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_old_uploads_are_removed_and_others_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = put(tmp_path / "a" / "x.tif", 10, 4000), put(tmp_path / "b" / "x.tif", 10**6, 3000)
    make_room(tmp_path, 10**6, 2 * 10**6)
    assert [path.exists() for path in (old, new)] == [False, True]
    with pytest.raises(BusyError, match=r"1,000,000 bytes.* up to 1,000,001"):
        make_room(tmp_path, 10**6 + 1, 2 * 10**6)
    # Small files count more than their bytes.
    for number in range(20):
        put(tmp_path / str(number) / "x.tif", 1, 10)
    with pytest.raises(BusyError):
        make_room(tmp_path, 1, 2 * 10**6)
    monkeypatch.setattr(uploads.shutil, "disk_usage", lambda path: type("", (), {"free": 0}))
    with pytest.raises(HTTPException) as refused:
        make_room(tmp_path, 1, 10**9)
    assert refused.value.status_code == 507


def test_an_upload_beyond_the_quota_is_refused_with_a_time(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upload() -> Any:
        return client.post("/gradio_api/upload", files={"files": ("a.tif", b"x" * 1000)})

    assert upload().status_code == 200
    monkeypatch.setattr(uploads, "_MIN_FILE_BYTES", 10**9)
    answer = upload()
    assert (answer.status_code, answer.json()["type"]) == (429, "/problems/busy")
    assert int(answer.headers["retry-after"]) >= 1
    monkeypatch.undo()
    assert upload().status_code == 200


def test_the_folder_belongs_to_this_process_alone(client: TestClient) -> None:
    (path,) = client.post("/gradio_api/upload", files={"files": ("a.tif", b"x")}).json()
    assert folder_of_process() in Path(path).parents
    assert folder_of_process().stat().st_mode & 0o077 == 0
