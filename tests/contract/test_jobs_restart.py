"""The server dies in the midst of a job, and the job does not notice."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jobs_server
import pytest

from rooftrace.flows.predict import run_predict
from rooftrace.predict import scene as scene_module
from rooftrace.predict.options import SceneOptions

TILE_S = "0.16"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return jobs_server.write_model(tmp_path)


@pytest.fixture
def town(tmp_path: Path) -> Path:
    return jobs_server.write_town(tmp_path / "scene.tif", 800)


@pytest.fixture
def start(tmp_path: Path, model: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a server process at `url`, and waits until it answers."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, jobs_server.__file__, tmp_path / "jobs", model, str(PORT), TILE_S]
        )
        processes.append(process)
        deadline = time.monotonic() + 40
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            try:
                httpx.get(f"{URL}/v1/jobs")
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            return process

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PORT = _free_port()
URL = f"http://127.0.0.1:{PORT}"


def job_children(pid: int) -> list[int]:
    """The processes of jobs, whichever thread of the server has started them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(one) for task in tasks for one in (task / "children").read_text().split()]


def wait_for(url: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job: dict[str, Any] = httpx.get(url).json()
        if is_so(job):
            return job
        time.sleep(0.02)
    raise AssertionError(f"still {job}")


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc")
def test_kill_9_of_the_server_in_the_midst_of_a_job(
    start: Callable[[], subprocess.Popen[bytes]], town: Path, model: Path, tmp_path: Path
) -> None:
    first = start()
    with town.open("rb") as file:
        url = URL + httpx.post(f"{URL}/v1/jobs", files={"file": file}).headers["Location"]
    waiting = httpx.post(
        f"{URL}/v1/jobs", content=town.read_bytes(), params={"filename": "second.tif"},
        headers={"Content-Type": "image/tiff"},
    ).json()["id"]  # fmt: skip
    half = wait_for(url, lambda job: job["progress"]["share"] > 0.3)
    assert half["state"] == "running"
    (orphan,) = job_children(first.pid)
    first.kill()
    first.wait()
    # The orphan has nobody to answer to, and ends.
    deadline = time.monotonic() + 20
    while Path(f"/proc/{orphan}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    results = tmp_path / "jobs" / "jobs" / half["id"] / "results"
    assert not (results / "scene_mask.tif").exists()
    second = start()
    listed = [job["id"] for job in httpx.get(f"{URL}/v1/jobs").json()["jobs"]]
    assert listed == [waiting, half["id"]]
    done = wait_for(url, lambda job: job["state"] not in ("queued", "running"))
    assert (done["state"], done["attempts"]) == ("done", 2)
    record = json.loads((results / "run.json").read_text())
    # It was gone on with, not begun anew; a machine that has other things to do may kill it late.
    assert 0 < record["resumed_blocks"] <= 16
    # As one that was left alone: the small blocks are those of the child.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_module, "TILE_PX", 256)
        patch.setattr(scene_module, "BLOCK_PX", 300)
        run_predict([town], model, tmp_path / "alone", SceneOptions())
    for path in (tmp_path / "alone").iterdir():
        if path.name != "run.json":
            assert (results / path.name).read_bytes() == path.read_bytes(), path.name
    # Asked to end, it ends what runs, and forgets nothing.
    wait_for(f"{URL}/v1/jobs/{waiting}", lambda job: job["progress"]["share"] > 0)
    (running,) = job_children(second.pid)
    second.terminate()
    assert second.wait(20) in (0, -15)
    assert not Path(f"/proc/{running}").exists()
    start()
    job = httpx.get(f"{URL}/v1/jobs/{waiting}").json()
    assert job["state"] in ("queued", "running")
    assert job["attempts"] <= 1
