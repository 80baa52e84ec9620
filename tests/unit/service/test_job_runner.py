"""Running jobs: each has a process that may crash, hang or be ended without affecting others."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local_server import wait_until
from rooftrace.core.errors import ExportError
from rooftrace.predict.plan import SceneOptions
from rooftrace.service import job_runner as runner_module
from rooftrace.service.job_runner import JobRunner
from rooftrace.service.job_store import STATE, Job, JobStateError, JobStore

# Does what its upload says, without a network.
CHILD = """
import json, os, signal, sys, time
from pathlib import Path

order = json.loads(sys.stdin.readline())
folder = Path(order["folder"])
log = os.open(folder.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(what):
    os.write(log, f"{what} {folder.name} {os.getpid()}\\n".encode())
def say(**message):
    print(json.dumps(message), flush=True)
task = (folder / order["upload"]).read_text()
note("begin")
if task == "crash" or (task == "crash once" and not (folder / "crashed").exists()):
    (folder / "crashed").touch()
    os.kill(os.getpid(), signal.SIGSEGV)
if task == "leave":
    # As at the end of a process with a traceback.
    sys.stderr.write(f"Traceback\\nMemoryError: /opt/lib/a.so, {folder}/{order['upload']}\\n\\n")
    sys.stderr.flush()
    os.close(1)
    time.sleep(0.3)
    os._exit(3)
if task == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
say(progress=[32, 64, 1])
while task == "meet" and (folder.parent / "log").read_text().count("begin") < 2:
    time.sleep(0.01)
if task in ("hang", "stubborn"):
    (folder / "results").mkdir(exist_ok=True)
    time.sleep(60)
if task == "error":
    where = folder / order["upload"]
    say(error={"type": "DataError", "message": f"{where} is torn.", "remedy": "Mend it."})
    sys.exit()
time.sleep(0.05)
(folder / "results").mkdir(exist_ok=True)
(folder / "results" / "scene_mask.tif").write_text("mask")
(folder / "results" / ".hidden").write_text("")
record = {"bundle": {"file": "/srv/models/a.rooftrace"}, "inputs": [str(folder / order["upload"])]}
(folder / "results" / "run.json").write_text(json.dumps(record))
note("end")
say(figures={"pixels": 64, "buildings": 2, "input": str(folder / order["upload"])})
"""

Start = Callable[..., JobRunner]


@pytest.fixture
def start(store: JobStore, tmp_path: Path) -> Iterator[Start]:
    program = tmp_path / "child.py"
    program.write_text(CHILD)
    started: list[JobRunner] = []

    def begin(workers: int = 1, model: Path | None = None) -> JobRunner:
        command = (sys.executable, "-S", str(program))
        runner = JobRunner(store, model, workers, command=command)
        runner.start()
        started.append(runner)
        return runner

    yield begin
    for runner in started:
        runner.stop()


def add(store: JobStore, task: str) -> str:
    job_id = store.reserve()
    (store.folder_of(job_id) / "scene.tif").write_text(task)
    return store.add(job_id, "town.tif", "scene.tif", 64, SceneOptions()).id


def left_of(store: JobStore, job_id: str) -> list[str]:
    return [path.name for path in store.folder_of(job_id).iterdir()]


def until(store: JobStore, job_id: str, is_so: Callable[[Job], bool]) -> Job:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = store.get(job_id)
        assert job is not None
        if is_so(job):
            return job
        time.sleep(0.01)
    raise AssertionError(f"still {job}")


def ended(store: JobStore, job_id: str) -> Job:
    return until(store, job_id, lambda job: job.ended)


def half_done(store: JobStore, job_id: str) -> Job:
    return until(store, job_id, lambda job: job.pixels_done == 32)


def log(store: JobStore) -> list[list[str]]:
    return [line.split() for line in (store.folder / "log").read_text().splitlines()]


def is_gone(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.campaign
def test_ten_jobs_two_workers_none_twice(store: JobStore, start: Start) -> None:
    # The first two wait for each other, so both run at once on a busy machine, too.
    jobs = [add(store, "meet" if number < 2 else "work") for number in range(10)]
    start(workers=2)
    done = [ended(store, job_id) for job_id in jobs]
    assert {job.state for job in done} == {"done"}
    begun = [job_id for what, job_id, _ in log(store) if what == "begin"]
    assert sorted(begun) == sorted(jobs)
    started = [job.started_s for job in done]
    assert started == sorted(started)  # type: ignore[type-var]
    running = most = 0
    for what, _, _ in log(store):
        running += 1 if what == "begin" else -1
        most = max(most, running)
    assert most == 2


def test_what_crashes_twice_fails_and_no_other(store: JobStore, start: Start) -> None:
    jobs = [add(store, task) for task in ("crash", "leave", "crash once", "work")]
    start(workers=2)
    crashed, left, once, work = (ended(store, job_id) for job_id in jobs)
    assert (crashed.state, crashed.attempts) == ("failed", 2)
    assert crashed.error is not None
    assert "failed 2 times: it was ended by SIGSEGV" in crashed.error["message"]
    assert left.error is not None
    assert left.error["message"].endswith(
        "it ended with the code 3. Its last message was: MemoryError: a.so, town.tif."
    )
    assert (once.state, once.attempts, once.crashes) == ("done", 2, 1)
    assert (work.state, work.attempts) == ("done", 1)


def test_cancelled_while_it_runs(
    store: JobStore, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "_GRACE_S", 0.2)
    runner = start(workers=2)
    for task in ("hang", "stubborn"):
        job = half_done(store, add(store, task))
        cancelled = runner.cancel(job.id)
        assert cancelled is not None
        assert cancelled.state == "cancelled"
        wait_until(lambda: is_gone(log(store)[-1][2]))
        wait_until(lambda job=job: left_of(store, job.id) == [STATE])  # type: ignore[misc]
        with pytest.raises(JobStateError):
            runner.cancel(job.id)
    # The workers are free again.
    assert ended(store, add(store, "work")).state == "done"
    assert runner.cancel("nothing") is None


@pytest.mark.parametrize("task", ["hang", "work"])
def test_removed_with_all_files(store: JobStore, start: Start, task: str) -> None:
    runner = start()
    job_id = add(store, task)
    if task == "hang":
        half_done(store, job_id)
    else:
        ended(store, job_id)
    assert runner.remove(job_id)
    assert not runner.remove(job_id)
    assert store.get(job_id) is None
    wait_until(lambda: not store.folder_of(job_id).exists())
    wait_until(lambda: is_gone(log(store)[0][2]))


def test_a_stop_is_not_counted_as_a_crash(store: JobStore, start: Start) -> None:
    runner = start()
    job_id = add(store, "hang")
    half_done(store, job_id)
    waiting = add(store, "work")
    runner.stop()
    assert is_gone(log(store)[0][2])
    job = store.get(job_id)
    assert job is not None
    assert (job.state, job.attempts, job.crashes) == ("queued", 0, 0)
    (store.folder_of(job_id) / "scene.tif").write_text("work")
    start()
    assert ended(store, job_id).state == "done"
    assert ended(store, waiting).state == "done"


def test_one_server_a_folder(store: JobStore, start: Start) -> None:
    start()
    with pytest.raises(ExportError, match="is being written to by process") as caught:
        JobRunner(store).start()
    assert "Stop that server" in caught.value.remedy
    assert "rooftrace serve --jobs" in caught.value.remedy
