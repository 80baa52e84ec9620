"""Jobs at work, each in a process of its own: a crash, a cancel or a restart touches no other."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import rasterio

from rooftrace.core.errors import ExportError
from rooftrace.io.lock import locked
from rooftrace.service.jobs.admit import CHILD
from rooftrace.service.jobs.job import Job, options_to_json
from rooftrace.service.jobs.results import found_in, publish, without_paths
from rooftrace.service.jobs.store import JobStore

__all__ = ["JobRunner"]

_LOG = logging.getLogger(__name__)

_MOST_CRASHES = 2

_GRACE_S = 5.0

_EXPIRE_EVERY_S = 3600.0

_KEPT_DRIVERS = {
    "COG", "GPKG", "GTiff", "GeoJSON", "GeoJSONSeq", "JP2OpenJPEG", "JPEG", "MEM", "Memory", "PNG",
    "SQLite", "WEBP",
}  # fmt: skip
"""Of GDAL's: what uploads are, none of which names other files, and what results are written by."""

_LONGEST_LINE = 2**20


class JobRunner:
    """Some threads, each with the process of one job at a time.

    Args:
        store: the jobs.
        model: a bundle; None for the one that comes with rooftrace.
        workers: jobs that run at the same time.
        engine, precision: see `run_predict`.
        command: what is started for a job.
    """

    def __init__(
        self,
        store: JobStore,
        model: Path | None = None,
        workers: int = 1,
        engine: str | None = None,
        precision: str | None = None,
        *,
        command: Sequence[str] = CHILD,
    ) -> None:
        self.store = store
        self._order = {
            "task": "predict",
            "model": None if model is None else str(model.absolute()),
            "engine": engine,
            "precision": precision,
        }
        self._workers = workers
        self._command = tuple(command)
        self._changed = threading.Condition()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._held = ExitStack()

    def start(self) -> None:
        """Take up what an earlier server left, and begin.

        Raises:
            ExportError: another server works in the folder.
        """
        folder = self.store.folder
        with ExitStack() as held:
            try:
                held.enter_context(locked(folder / ".lock", f"The folder of jobs {folder}"))
            except ExportError as error:
                raise ExportError(
                    error.message, remedy="Stop that server, or name another folder for the jobs."
                ) from error
            self.store.recover()
            self._environment = _environment()
            held.callback(self.store.watch(self._wake))
            self._held = held.pop_all()
        self._stopping = False
        # None of them keeps a server alive that ends without a word; the processes see that, too.
        self._threads = [
            threading.Thread(target=self._work, name=f"job-{number}", daemon=True)
            for number in range(self._workers)
        ]
        self._threads.append(threading.Thread(target=self._expire, name="jobs-expire", daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End what runs; it is gone on with after the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            running = list(self._children.values())
        for child in running:
            _end(child)
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._held.close()

    def cancel(self, job_id: str) -> Job | None:
        """Let a job not go on; None where there is none.

        Raises:
            JobStateError: it has ended already.
        """
        job = self.store.cancel(job_id)
        if job is not None:
            self._give_up(job_id)
        return job

    def remove(self, job_id: str) -> bool:
        """Forget a job with all of its files, whatever its state; whether there was one."""
        removed = self.store.remove(job_id)
        if removed:
            self._give_up(job_id)
        return removed

    def _give_up(self, job_id: str) -> None:
        """End the process of a job; its files go with it."""
        with self._changed:
            child = self._children.get(job_id)
            if child is None:
                self._tidy(job_id)
        if child is not None:
            _end(child)

    def _tidy(self, job_id: str) -> None:
        """Remove the files of a job that is gone or will have no results."""
        job = self.store.get(job_id)
        if job is None:
            shutil.rmtree(self.store.folder_of(job_id), ignore_errors=True)
        elif job.state in ("failed", "cancelled"):
            self.store.empty(job_id)

    # In the threads.

    def _wake(self, job_id: str, job: Job | None) -> None:
        if job is not None and job.state == "queued":
            with self._changed:
                # Of all, since one of them waits for the end alone.
                self._changed.notify_all()

    def _expire(self) -> None:
        while True:
            try:
                self.store.expire()
            except Exception:
                _LOG.exception("old jobs could not be removed")
            with self._changed:
                if self._changed.wait_for(lambda: self._stopping, _EXPIRE_EVERY_S):
                    return

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._run(job)
            except Exception:
                # A disk that is full, say: of the list, too, so that nothing can be noted.
                _LOG.exception("job %s could not be run", job.id)
                with suppress(Exception):
                    self.store.fail(job.id, _crash(job, "it could not be started"))

    def _next(self) -> Job | None:
        """The next job; None when it is time to stop."""
        with self._changed:
            while not self._stopping:
                job = self.store.claim()
                if job is not None:
                    return job
                self._changed.wait()
        return None

    def _run(self, job: Job) -> None:
        child = self._begin(job)
        if child is None:
            return
        try:
            answer = self._listen(job, child)
        finally:
            child.kill()
            code = child.wait()
            assert child.stdin is not None
            assert child.stdout is not None
            with suppress(OSError):
                child.stdin.close()
            child.stdout.close()
            with self._changed:
                del self._children[job.id]
                stopped = self._stopping
        self._conclude(job, answer, code, stopped=stopped)
        with self._changed:
            self._tidy(job.id)

    def _begin(self, job: Job) -> subprocess.Popen[bytes] | None:
        """The process of a job; None where it is not wanted any more."""
        folder = self.store.folder_of(job.id)
        order = {
            **self._order,
            "folder": str(folder),
            "upload": job.upload,
            "options": options_to_json(job.options),
        }
        with self._changed:
            now = self.store.get(job.id)
            if now is None or now.state != "running":
                return None
            if self._stopping:
                self.store.requeue(job, crashed=False)
                return None
            with (folder / "log.txt").open("ab") as log:
                child = subprocess.Popen(  # noqa: S603  # ourselves
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=self._environment,
                    # So that Ctrl-C in the terminal of the server is the server's affair.
                    start_new_session=True,
                )
            self._children[job.id] = child
        assert child.stdin is not None
        with suppress(OSError):
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()
        return child

    def _listen(self, job: Job, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        """What the process answers in the end; nothing where it just ends."""
        assert child.stdout is not None
        while line := child.stdout.readline(_LONGEST_LINE):
            try:
                told = json.loads(line)
            except ValueError:
                continue
            if "progress" not in told:
                return dict(told)
            self.store.progress(job.id, *told["progress"])
        return {}

    def _conclude(self, job: Job, answer: dict[str, Any], code: int, *, stopped: bool) -> None:
        folder = self.store.folder_of(job.id)
        if answer:
            answer = json.loads(without_paths(json.dumps(answer), folder, job))
        if "figures" in answer:
            publish(folder, job)
            self.store.finish(job.id, answer["figures"], found_in(folder))
        elif "error" in answer:
            self.store.fail(job.id, answer["error"])
        elif stopped or code == -signal.SIGTERM:
            # Where a machine goes down, all processes are asked to end, and the server may be last.
            self.store.requeue(job, crashed=False)
        elif job.crashes + 1 < _MOST_CRASHES:
            self.store.requeue(job, crashed=True)
        else:
            self.store.fail(job.id, _crash(job, _reason(code)))


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and do not ask again."""
    with suppress(OSError):
        child.terminate()
    killer = threading.Timer(_GRACE_S, child.kill)
    killer.daemon = True
    killer.start()


def _environment() -> dict[str, str]:
    """That of the processes: formats that could name other files are unknown to them."""
    with rasterio.Env() as env:
        others = sorted(set(env.drivers()) - _KEPT_DRIVERS)
    return {**os.environ, "GDAL_SKIP": ",".join(others)}


def _reason(code: int) -> str:
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}, as where memory is not enough"
    return f"it ended with the code {code}"


def _crash(job: Job, reason: str) -> dict[str, str]:
    return {
        "type": "PredictError",
        "message": f"The process that predicted {job.name} failed {job.crashes + 1} times: "
        f"{reason}.",
        "remedy": "Send the scene in parts, or ask who keeps the server.",
    }
