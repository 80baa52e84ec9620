"""Requests that Gradio accepts, and the space of files that are dropped on the page."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from page_images import predictor_of
from starlette.testclient import TestClient

from rooftrace.app.page import mount_page
from rooftrace.app.page import uploads as module
from rooftrace.app.page.uploads import UploadFolder, folder_of_process
from rooftrace.core.errors import BusyError
from rooftrace.rest.problems import install_problems
from rooftrace.service.decode import Limits
from rooftrace.service.service import Service

# Gradio uses options that pandas has deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*no_silent_downcasting"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    service = Service(predictor_of(), Limits(upload_bytes=100_000))
    app = FastAPI()
    install_problems(app)
    with TestClient(mount_page(app, service)) as client:
        yield client
    service.close()


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


def reserve(folder: UploadFolder, nbytes: int) -> None:
    asyncio.run(folder.reserve(nbytes))


def test_files_are_removed_by_their_age(tmp_path: Path) -> None:
    old, new = put(tmp_path / "a" / "x.tif", 10, 4000), put(tmp_path / "b" / "x.tif", 10, 3000)
    cut_off, arriving = put(tmp_path / "tmp1", 10, 200), put(tmp_path / "tmp2", 10, 10)
    reserve(UploadFolder(tmp_path, 10**9, max_age_s=3600), 1)
    found = [path.exists() for path in (old, new, cut_off, arriving)]
    assert found == [False, True, False, True]
    # The folder of a removed file goes with the next upload.
    reserve(UploadFolder(tmp_path, 10**9, max_age_s=3600), 1)
    assert not old.parent.exists()


def test_the_oldest_files_make_room(tmp_path: Path) -> None:
    files = [put(tmp_path / str(age) / "x.tif", 10**6, age) for age in (900, 800, 700)]
    reserve(UploadFolder(tmp_path, 3 * 10**6, max_age_s=3600), 10**6)
    assert [path.exists() for path in files] == [False, True, True]


def test_files_that_are_still_needed_are_kept_and_the_upload_waits(tmp_path: Path) -> None:
    kept = put(tmp_path / "a" / "x.tif", 2 * 10**6, 10)
    folder = UploadFolder(tmp_path, 3 * 10**6, max_age_s=3600)
    reserve(folder, 10**6)
    with pytest.raises(BusyError, match=r"2,000,000 bytes.* up to 1,000,001") as refused:
        reserve(folder, 1)
    assert refused.value.retry_after_s >= 1
    assert kept.exists()
    folder.release(10**6)
    reserve(folder, 10**6)


def test_small_files_count_more_than_their_bytes(tmp_path: Path) -> None:
    for number in range(20):
        put(tmp_path / str(number) / "x.tif", 1, 10)
    with pytest.raises(BusyError):
        reserve(UploadFolder(tmp_path, 10**6, max_age_s=3600), 1)


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = (10, 10, 0)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("", (), {"free": usage[2]}))
    with pytest.raises(HTTPException) as refused:
        reserve(UploadFolder(tmp_path, 10**9, max_age_s=3600), 1)
    assert refused.value.status_code == 507


def test_an_upload_beyond_the_quota_is_refused_with_a_time(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upload() -> Any:
        return client.post("/gradio_api/upload", files={"files": ("a.tif", b"x" * 1000)})

    assert upload().status_code == 200
    monkeypatch.setattr(module, "_MIN_FILE_BYTES", 10**9)
    answer = upload()
    assert (answer.status_code, answer.json()["type"]) == (429, "/problems/busy")
    assert int(answer.headers["retry-after"]) >= 1
    monkeypatch.undo()
    assert upload().status_code == 200


def test_a_disk_that_fills_up_is_reported(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gradio.route_utils

    def full(*given: Any, **more: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gradio.route_utils, "NamedTemporaryFile", full)
    answer = client.post("/gradio_api/upload", files={"files": ("a.tif", b"x")})
    assert (answer.status_code, "Traceback" in answer.text) == (507, False)


def test_the_folder_belongs_to_this_process_alone(client: TestClient) -> None:
    (path,) = client.post("/gradio_api/upload", files={"files": ("a.tif", b"x")}).json()
    assert folder_of_process() in Path(path).parents
    assert folder_of_process().stat().st_mode & 0o077 == 0
