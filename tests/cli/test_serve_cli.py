"""`rooftrace serve` as a real process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from command_line import call
from command_line import command as as_person
from rooftrace.cli import serve as command

PATIENCE_S = 60


@contextmanager
def started(*options: Any, **environment: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """Start a real server, and yield its process and its JSON output when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rooftrace", "serve", "--port", "0", "--json", *map(str, options)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        info = json.loads(line)
        until = time.monotonic() + PATIENCE_S
        while httpx.get(f"{info['url']}/readyz", timeout=60).status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        yield process, info
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def picture() -> bytes:
    image = np.full((128, 160, 3), 20, np.uint8)
    image[20:60, 30:90] = 230
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.mark.campaign
def test_all_faces_on_one_port_and_jobs_that_outlive_it(bundle: Path, tmp_path: Path) -> None:
    jobs, results = tmp_path / "jobs", tmp_path / "results"
    # The browser of `--open` writes the URL into a file.
    browser = tmp_path / "browser.py"
    browser.write_text(f"import sys\nopen({str(browser)!r} + '.url', 'w').write(sys.argv[1])")
    results.mkdir()
    options = ["-m", bundle, "--jobs", jobs, "--results", results]
    opened = f"{sys.executable} {browser} %s"
    with started(*options, "--open", BROWSER=opened) as (process, info):
        url = info["url"]
        assert (tmp_path / "browser.py.url").read_text() == url
        assert info["model"] == "brightness"
        assert info["pid"] == process.pid
        for path in ("/", "/map", "/v1/docs", "/healthz", "/metrics", "/health", "/v1/model"):
            answer = httpx.get(url + path, timeout=60, follow_redirects=True)
            assert answer.status_code == 200, path
        files = {"file": ("../town.png", picture())}
        answer = httpx.post(f"{url}/v1/predict", files=files, timeout=60)
        assert answer.json()["figures"]["buildings"] == 1
        job = httpx.post(f"{url}/v1/jobs", files=files, timeout=60).json()
        assert job["name"] == "town.png"
        until = time.monotonic() + PATIENCE_S
        while job["state"] in ("queued", "running"):
            assert time.monotonic() < until
            time.sleep(0.1)
            job = httpx.get(url + job["links"]["self"], timeout=60).json()
        assert job["state"] == "done", job["error"]
        # Another server must not use the same folder.
        second = subprocess.run(
            [sys.executable, "-m", "rooftrace", "serve", "--port", "0", *map(str, options)],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert second.returncode == 5
        assert "Traceback" not in second.stderr
        assert "another folder" in second.stderr
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert "Traceback" not in said
    with started(*options) as (_, info):
        again = httpx.get(info["url"] + job["links"]["self"], timeout=60).json()
        assert again["state"] == "done"
        folders = httpx.get(f"{info['url']}/map/folders", timeout=60).json()
        assert [folder["title"].partition(",")[0] for folder in folders] == ["results", "town.png"]


@pytest.mark.campaign
def test_a_key_is_asked_for_everywhere(bundle: Path, tmp_path: Path) -> None:
    options = ["-m", bundle, "--jobs", tmp_path / "jobs"]
    with started(*options, ROOFTRACE_API_KEY="s3cret") as (_, info):
        url = info["url"]
        for path in ("/", "/map", "/map/folders", "/v1/model", "/v1/jobs", "/metrics", "/setup",
                     "/live", "/live/cameras", "/live/cameras/0/stream",
                     "/page/x/0/fill.png"):  # fmt: skip
            assert httpx.get(url + path, timeout=60).status_code == 401, path
        assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200
        for path in ("/", "/map", "/v1/model"):
            answer = httpx.get(
                url + path, auth=("anybody", "s3cret"), timeout=60, follow_redirects=True
            )
            assert answer.status_code == 200, path


@pytest.mark.campaign
def test_a_camera_is_shown_and_does_not_hold_up_the_end(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from video_files import town, write_video

    clip = write_video(tmp_path / "flight.mp4", map(town, range(12)))
    options = ["-m", bundle, "--jobs", tmp_path / "jobs", "--camera", f"yard={clip}"]
    with started(*options) as (process, info):
        assert info["live"] == f"{info['url']}/live"
        with httpx.stream("GET", f"{info['url']}/live/cameras/0/stream", timeout=60) as answer:
            parts = answer.iter_raw()
            assert any(b"\xff\xd8" in part for part in parts)
            process.send_signal(signal.SIGTERM)
            # The stream ends as a stream and is not cut off.
            for _ in parts:
                pass
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        assert said == ""


def test_a_camera_that_cannot_be_is_reported(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, answer = call("serve", "-m", bundle, "--port", "0", "--camera", tmp_path / "no.mp4")
    assert code == 3
    assert "no.mp4 does not exist" in answer["error"]["message"]
    assert "rtsp://HOST/PATH" in answer["error"]["remedy"]
    monkeypatch.setitem(sys.modules, "av", None)
    code, answer = call("serve", "-m", bundle, "--port", "0", "--camera", "camera:1")
    assert code == 6
    assert "rooftrace[video]" in answer["error"]["remedy"]


@pytest.mark.parametrize("name", ["there", "nothere"])
def test_a_results_folder_that_is_missing_is_noted(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(command, "_run", lambda *_: None)
    (tmp_path / "there").mkdir()
    words = ("-m", bundle, "--port", "0", "--jobs", tmp_path / "jobs", "--results", tmp_path / name)
    code, _, text = as_person("serve", *words)
    assert code == 0
    noted = f"there is no folder {tmp_path / name} yet" in " ".join(text.split())
    assert noted == (name == "nothere")


# A server in a process of its own, because signals of the test's process end the tests. A client
# sends one request, which the code in the middle answers.
ASKED = """
import signal, threading
from contextlib import suppress

import httpx
from fastapi import FastAPI, Request

from rooftrace.cli import serve as command

app = FastAPI()

@app.get("/")
async def answer(request: Request):
    {code}

def ask(port):
    with suppress(httpx.HTTPError):  # the server may close the connection without an answer
        headers = {{"X-Forwarded-For": "203.0.113.7"}}
        httpx.get(f"http://127.0.0.1:{{port}}", headers=headers, timeout=60)

with command._listen("127.0.0.1", 0) as listening:
    client = threading.Thread(target=ask, args=(listening.getsockname()[1],))
    client.start()
    with suppress(KeyboardInterrupt):
        command._run(app, listening, [])
    client.join()
print("ended")
"""


@pytest.mark.campaign
def test_a_client_cannot_choose_its_address_and_ctrl_c_prints_no_traceback() -> None:
    code = "print(request.client.host); signal.raise_signal(signal.SIGINT)"
    done = subprocess.run(
        [sys.executable, "-c", ASKED.format(code=code)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout == "127.0.0.1\nended\n", done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_in_use_is_reported(bundle: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, answer = call("serve", "-m", bundle, "--port", port)
    assert code == 2
    assert f"port {port}" in answer["error"]["message"]
    assert "--port" in answer["error"]["remedy"]


def test_other_machines_get_an_address_of_all_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "office")
    assert command._address_for_others("0.0.0.0", 8000) == "http://office:8000"
    assert command._address_for_others("127.0.0.1", 8000) == ""


def test_a_missing_package_is_reported(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "uvicorn" else name)
    code, answer = call("serve", "-m", bundle, "--port", "0")
    assert code == 6
    assert "rooftrace[serve]" in answer["error"]["remedy"]
