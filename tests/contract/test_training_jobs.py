"""Label Studio starts a training in `rooftrace serve`: killed, resumed, taken, and taken back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("torch")
pytest.importorskip("fastapi")
pytest.importorskip("gradio")

from fake_labelstudio import TOKEN, FakeServer, serve_project
from jobs_server import PATIENCE_S, wait_until
from local_server import running

if TYPE_CHECKING:
    from tests.conftest import TinyRun

pytestmark = pytest.mark.campaign

PROJECT = 3
KEY = "a-key-for-the-backend"

CHILD = """
from rooftrace.train import finetune
finetune._EPOCH_S = 1.0
from rooftrace.service.jobs import child
child.main()
"""
"""A child with short epochs."""

SERVER = f"""
import sys
from rooftrace.service.jobs.runner import JobRunner
JobRunner.__init__.__kwdefaults__["command"] = (sys.executable, "-c", {CHILD!r})
from rooftrace.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def labelstudio() -> Iterator[FakeServer]:
    with running(FakeServer()) as server:
        serve_project(server, PROJECT, range(40, 48))
        yield server


def job_children(pid: int) -> list[int]:
    """Return the ids of the processes that the threads of a server have started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(one) for task in tasks for one in (task / "children").read_text().split()]


def is_running(pid: int) -> bool:
    """Return whether a process is that of a training."""
    try:
        return "_EPOCH_S" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


class Served:
    """A running `rooftrace serve`, as Label Studio and a person call it."""

    def __init__(self, folder: Path, model: Path, labels: str) -> None:
        command = [
            sys.executable, "-c", SERVER, "serve", "-m", str(model), "--port", "0", "--json",
            "--jobs", str(folder / "jobs"), "--label-studio", labels, "--train-minutes", "0.3",
            "--nodata", "255,0,255",
        ]  # fmt: skip
        secrets = {"LABEL_STUDIO_API_KEY": TOKEN, "ROOFTRACE_API_KEY": KEY}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env=os.environ | secrets, text=True
        )
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]

    def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return httpx.request(
            method, self.url + path, json=body, auth=("any", KEY), timeout=PATIENCE_S
        )

    def get(self, path: str) -> Any:
        return self.call("GET", path).raise_for_status().json()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def serve(
    labelstudio: FakeServer, tiny_run: TinyRun, tmp_path: Path
) -> Iterator[Callable[[], Served]]:
    started: list[Served] = []

    def begin() -> Served:
        started.append(Served(tmp_path, tiny_run.bundle, labelstudio.url))
        return started[-1]

    yield begin
    for one in started:
        one.end()


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc")
def test_from_the_button_to_the_new_version_and_back(
    serve: Callable[[], Served], labelstudio: FakeServer, tmp_path: Path
) -> None:
    event = {"action": "START_TRAINING", "project": {"id": PROJECT, "title": "Zanzibar <b>"}}
    first = serve()
    assert httpx.post(f"{first.url}/webhook", json=event).status_code == 401
    own = first.get("/versions")["versions"]
    answer = first.call("POST", "/webhook", event).raise_for_status().json()
    job = f"/v1/jobs/{answer['job']}"
    folder = tmp_path / "jobs" / "jobs" / answer["job"]

    def has_an_epoch() -> bool:
        now = first.get(job)
        assert now["state"] in ("queued", "running"), now["error"]
        return bool(now["progress"]["epochs_done"] >= 1)

    wait_until(has_an_epoch, "an epoch")
    now = first.get(job)
    assert (now["kind"], now["name"]) == ("finetune", "project 3, Zanzibar <b>")
    assert 0 < now["progress"]["share"] < 1
    config = json.loads((folder / "run" / "config.json").read_text(encoding="utf-8"))
    assert config["data"]["train"][0]["nodata"] == [255, 0, 255]
    # A machine that shuts down sends SIGTERM, which is no crash.
    (child,) = (one for one in job_children(first.process.pid) if is_running(one))
    os.kill(child, signal.SIGTERM)
    wait_until(lambda: not is_running(child), "the process ends")
    wait_until(
        lambda: any(map(is_running, job_children(first.process.pid))), "the training resumes"
    )
    # A second click starts no second training.
    assert first.call("POST", "/webhook", event).json()["job"] == answer["job"]
    asked = len(labelstudio.asked)
    split = (folder / "run" / "split.json").read_bytes()
    first.end()

    second = serve()
    wait_until(lambda: second.get(job)["state"] not in ("queued", "running"), "the training ends")
    done = second.get(job)
    assert done["state"] == "done", done["error"]
    assert done["attempts"] == 2
    # The training was resumed with the labels and the split that it had.
    assert len(labelstudio.asked) == asked
    figures = done["figures"]
    assert figures["verdict"] in ("better", "no different", "worse")
    assert figures["epochs"] >= 2
    names = [one["name"] for one in second.get(f"{job}/results")["files"]]
    assert names == ["model.rooftrace", "report.html", "split.json", "verdict.json"]
    assert second.call("GET", f"{job}/results/split.json").content == split
    assert not (folder / "run").exists()
    assert not (folder / "labels").exists()
    assert str(tmp_path) not in second.call("GET", f"{job}/results/verdict.json").text

    # It is proposed; a person takes it, and a restart keeps it.
    assert second.get("/versions")["versions"] == own
    page = second.call("POST", f"{job}/take").raise_for_status().json()
    assert [(one["version"], one["in_use"]) for one in page["versions"]] == [
        (figures["version"], True), (own[0], False)
    ]  # fmt: skip
    assert second.get("/versions")["versions"] == [figures["version"]]
    assert second.call("DELETE", job).status_code == 409
    second.end()
    third = serve()
    assert third.get("/versions")["versions"] == [figures["version"]]
    assert third.call("POST", "/v1/versions/back").json()["versions"][-1]["in_use"]
    assert third.get("/versions")["versions"] == own
    assert third.call("POST", "/v1/versions/back").status_code == 409
    assert third.call("DELETE", job).status_code == 204


def test_too_few_labels_are_an_error_that_names_the_project(
    serve: Callable[[], Served], labelstudio: FakeServer
) -> None:
    serve_project(labelstudio, 5, range(2))
    served = serve()
    job = served.call("POST", "/v1/trainings", {"project": 5}).raise_for_status().json()
    wait_until(lambda: served.get(job["links"]["self"])["state"] == "failed", "the error")
    error = served.get(job["links"]["self"])["error"]
    assert error["message"].startswith(f"Project 5 of {labelstudio.url} has 2 tasks with an annot")
    gone = served.call("POST", "/v1/trainings", {"project": 6}).raise_for_status().json()
    wait_until(lambda: served.get(gone["links"]["self"])["state"] == "failed", "the error")
    assert "has no /api/projects/6" in served.get(gone["links"]["self"])["error"]["message"]
    assert served.call("POST", "/v1/trainings", {"project": 0}).status_code == 422
    assert served.call("POST", f"/v1/jobs/{gone['id']}/take").status_code == 409
