"""A job survives the end of the server."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import jobs_server
from jobs_server import JobGate
from local_server import PATIENCE_S, wait_until
from rooftrace.flows.predict.inputs import find_inputs
from rooftrace.flows.predict.run import run_predict
from rooftrace.predict import plan as scene_module
from rooftrace.predict.model_set import read_models
from rooftrace.predict.plan import SceneOptions

pytestmark = pytest.mark.campaign


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return jobs_server.write_model(tmp_path)


@pytest.fixture
def town(tmp_path: Path) -> Path:
    return jobs_server.write_town(tmp_path / "scene.tif", 800)


@pytest.fixture
def start(tmp_path: Path, model: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Return a function that starts a server process and waits until it answers."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, jobs_server.__file__, tmp_path / "jobs", model, str(PORT)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        processes.append(process)

        def answers() -> bool:
            assert process.poll() is None
            try:
                httpx.get(f"{URL}/v1/jobs", timeout=PATIENCE_S)
            except httpx.TransportError:
                return False
            return True

        wait_until(answers, "the server starts")
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
    """Return the ids of the processes of jobs, from all threads of the server."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(one) for task in tasks for one in (task / "children").read_text().split()]
    # The other one is Python's own, which belongs to its processes that decode.
    return [
        one
        for one in children
        if "resource_tracker" not in Path(f"/proc/{one}/cmdline").read_text()
    ]


def get(path: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(URL + path, timeout=PATIENCE_S).json()
    return answer


def share(path: str) -> float:
    return float(get(path)["progress"]["share"])


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc")
def test_kill_9_of_the_server_in_the_midst_of_a_job(
    start: Callable[[], subprocess.Popen[bytes]], town: Path, model: Path, tmp_path: Path
) -> None:
    first = start()
    with httpx.Client(base_url=URL, timeout=PATIENCE_S) as client:
        with town.open("rb") as file:
            job = client.post("/v1/jobs", files={"file": file}).headers["Location"]
        waiting = client.post(
            "/v1/jobs", content=town.read_bytes(), params={"filename": "second.tif"},
            headers={"Content-Type": "image/tiff"},
        ).headers["Location"]  # fmt: skip
    folders = [tmp_path / "jobs" / one.rpartition("/")[2] for one in (job, waiting)]
    gate, waiting_gate = map(JobGate, folders)
    gate.step_until(lambda: share(job) > 0.3, "a third of the first job")
    assert get(job)["state"] == "running"
    (orphan,) = job_children(first.pid)
    first.kill()
    first.wait()
    # The process of the job ends because its server has ended.
    wait_until(lambda: not Path(f"/proc/{orphan}").exists(), "the process of the job ends")
    results = folders[0] / "results"
    assert not (results / "scene_mask.tif").exists()
    gate.open()
    second = start()
    listed = [one["links"]["self"] for one in get("/v1/jobs")["jobs"]]
    assert listed == [waiting, job]
    wait_until(lambda: get(job)["state"] not in ("queued", "running"), "the first job ends")
    done = get(job)
    assert (done["state"], done["attempts"]) == ("done", 2)
    record = json.loads((results / "run.json").read_text())
    # The run was resumed, not started again.
    assert 0 < record["resumed_blocks"] <= 16
    # The results equal those of a run without interruption, with the small blocks of the child.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_module, "TILE_PX", 256)
        patch.setattr(scene_module, "BLOCK_PX", 300)
        run_predict(find_inputs([town]), read_models(model), tmp_path / "alone", SceneOptions())
    for path in (tmp_path / "alone").iterdir():
        if path.name != "run.json":
            assert (results / path.name).read_bytes() == path.read_bytes(), path.name
    # On SIGTERM the server ends the running job and keeps it.
    waiting_gate.step_until(lambda: share(waiting) > 0, "progress of the second job")
    (running,) = job_children(second.pid)
    second.terminate()
    assert second.wait(PATIENCE_S) in (0, -15)
    assert not Path(f"/proc/{running}").exists()
    start()
    kept = get(waiting)
    assert kept["state"] in ("queued", "running")
    assert kept["attempts"] <= 1
