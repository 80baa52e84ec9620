"""Jobs on disk: they are there after the server has gone, however it went."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rooftrace.core.errors import BusyError
from rooftrace.io.atomic import export_error
from rooftrace.predict.options import SceneOptions
from rooftrace.service.jobs.database import job_of, open_list, writing
from rooftrace.service.jobs.job import (
    STATES,
    Job,
    JobFile,
    JobState,
    JobStateError,
    options_to_json,
)

__all__ = ["JobStore"]

_DAY_S = 86_400.0

_RETRY_AFTER_S = 60.0
"""A job takes minutes: sooner it is not worth asking again."""

_MOST_ATTEMPTS = 5
"""How often a job is begun: beyond that it is likely what takes the server down."""

Watcher = Callable[[str, Job | None], None]
"""Called with the id of a job that has changed and the job, None where it was removed; in the
thread that changed it."""


class JobStore:
    """A folder of jobs: `jobs.sqlite`, and a folder for each job called by its id.

    All threads may use it; one process at a time does, see `JobRunner`.

    Args:
        folder: made where it is missing.
        jobs_waiting: that may wait; one more is told to come again.
        keep_days: after which what has ended is removed, with its files.

    Raises:
        ExportError: the folder cannot be written to.
        ConfigError: it was written by a later version.
    """

    def __init__(self, folder: Path, *, jobs_waiting: int = 100, keep_days: float = 7.0) -> None:
        self.folder = folder.absolute()
        self.keep_days = keep_days
        self._jobs_waiting = jobs_waiting
        self._lock = threading.RLock()
        self._watchers: list[Watcher] = []
        self._reserved: set[str] = set()
        path = self.folder / "jobs.sqlite"
        try:
            # The images of others: nobody else on this machine is to look at them.
            self._jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise export_error(path, error) from error
        self._base = open_list(path)

    @property
    def _jobs(self) -> Path:
        return self.folder / "jobs"

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            self._base.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """All that is done inside, or nothing of it."""
        with self._lock, writing(self._base):
            yield

    # Who wants to know.

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher` whenever a job changes; what is returned ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def _tell(self, job_id: str) -> Job | None:
        job = self.get(job_id)
        for watcher in tuple(self._watchers):
            watcher(job_id, job)
        return job

    # New jobs.

    def reserve(self) -> str:
        """The id of a job to come, whose folder is there for its upload.

        It ends with `add` or with `discard`.

        Raises:
            BusyError: as many jobs wait already as may.
            ExportError: the folder cannot be made.
        """
        job_id = secrets.token_hex(16)
        with self._lock:
            self._check_room()
            self._reserved.add(job_id)
        try:
            self.folder_of(job_id).mkdir(mode=0o700)
        except OSError as error:
            self._reserved.discard(job_id)
            raise export_error(self.folder_of(job_id), error) from error
        return job_id

    def discard(self, job_id: str) -> None:
        """Remove what was reserved, with what it had of an upload; nothing where it was added."""
        with self._lock:
            if job_id not in self._reserved:
                return
            self._reserved.remove(job_id)
        shutil.rmtree(self.folder_of(job_id), ignore_errors=True)

    def add(self, job_id: str, name: str, upload: str, pixels: int, options: SceneOptions) -> Job:
        """Queue what was reserved, when its upload is there.

        Args:
            job_id: from `reserve`.
            name: what the image is called, to be shown.
            upload: the name of its file in the folder of the job.
            pixels: of the image.
            options: what was chosen.
        """
        size = (self.folder_of(job_id) / upload).stat().st_size
        with self._writing():
            self._base.execute(
                "INSERT INTO jobs (id, name, state, options, upload, upload_bytes, created_s, "
                "pixels) VALUES (?, ?, 'queued', ?, ?, ?, ?, ?)",
                (job_id, name, options_to_json(options), upload, size, time.time(), pixels),
            )
            self._reserved.discard(job_id)
        job = self._tell(job_id)
        assert job is not None
        return job

    def _check_room(self) -> None:
        waiting = self.counts()["queued"] + len(self._reserved)
        if waiting >= self._jobs_waiting:
            raise BusyError(
                f"{waiting} jobs are waiting already.",
                remedy="Send it again when some of them are done.",
                retry_after_s=_RETRY_AFTER_S,
            )

    # What there is.

    def folder_of(self, job_id: str) -> Path:
        """Of all files of a job. The id has to be one of ours: it becomes part of a path."""
        return self._jobs / job_id

    def results(self, job_id: str) -> Path:
        """Of the files that a job made."""
        return self.folder_of(job_id) / "results"

    def get(self, job_id: str) -> Job | None:
        """A job; None where there is none of that id."""
        with self._lock:
            row = self._base.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else job_of(row)

    def newest(self, limit: int, before: int | None = None) -> list[Job]:
        """Jobs, the newest first.

        Args:
            limit: how many at most.
            before: only those that came before the job of this number.
        """
        latest = 2**62 if before is None else before
        with self._lock:
            rows = self._base.execute(
                "SELECT * FROM jobs WHERE number < ? ORDER BY number DESC LIMIT ?", (latest, limit)
            ).fetchall()
        return [job_of(row) for row in rows]

    def counts(self) -> dict[JobState, int]:
        """How many jobs there are in each state."""
        with self._lock:
            rows = self._base.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state").fetchall()
        return {**dict.fromkeys(STATES, 0), **{row[0]: row[1] for row in rows}}

    # How they go.

    def claim(self) -> Job | None:
        """The job that has waited longest, which runs now; None where none waits."""
        with self._writing():
            row = self._base.execute(
                "SELECT id FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            self._change(
                row["id"], "queued",
                state="running", started_s=time.time(), pixels_done=0, buildings=0,
            )  # fmt: skip
            self._base.execute("UPDATE jobs SET attempts = attempts + 1 WHERE id = ?", (row["id"],))
        return self._tell(row["id"])

    def progress(self, job_id: str, pixels_done: int, pixels: int, buildings: int) -> None:
        """Note how far a running job is."""
        told = {"pixels_done": pixels_done, "pixels": pixels, "buildings": buildings}
        self._set(job_id, "running", **told)

    def finish(self, job_id: str, figures: dict[str, Any], files: Sequence[JobFile]) -> bool:
        """Note that a running job is done; whether it was still running."""
        listed = json.dumps([asdict(file) for file in files])
        return self._set(
            job_id, "running",
            state="done", finished_s=time.time(), figures=json.dumps(figures), files=listed,
            buildings=figures.get("buildings") or 0, pixels_done=figures["pixels"],
            pixels=figures["pixels"],
        )  # fmt: skip

    def fail(self, job_id: str, error: dict[str, str]) -> bool:
        """Note why a running job failed; whether it was still running."""
        told = {"state": "failed", "finished_s": time.time(), "error": json.dumps(error)}
        return self._set(job_id, "running", **told)

    def requeue(self, job: Job, *, crashed: bool) -> bool:
        """Let a running job begin again, before those that came after it.

        Args:
            crashed: whether its process is to blame, and not that the server was stopped.
        """
        counted = {"crashes": job.crashes + 1} if crashed else {"attempts": job.attempts - 1}
        return self._set(job.id, "running", state="queued", **counted)

    def cancel(self, job_id: str) -> Job | None:
        """Let a job not go on; None where there is none. Its process is the runner's affair.

        Raises:
            JobStateError: it has ended already.
        """
        with self._writing():
            job = self.get(job_id)
            if job is None:
                return None
            if job.ended:
                raise JobStateError(
                    f"The job {job_id} is {job.state} already.",
                    remedy="Only a job that waits or runs can be cancelled.",
                )
            self._change(job_id, job.state, state="cancelled", finished_s=time.time())
        return self._tell(job_id)

    def remove(self, job_id: str) -> bool:
        """Strike a job off the list; whether it was there. Its files are the runner's affair."""
        with self._writing():
            cursor = self._base.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        if cursor.rowcount:
            self._tell(job_id)
        return bool(cursor.rowcount)

    def _set(self, job_id: str, state: JobState, /, **values: Any) -> bool:
        with self._writing():
            changed = self._change(job_id, state, **values)
        if changed:
            self._tell(job_id)
        return changed

    def _change(self, job_id: str, state: JobState, /, **values: Any) -> bool:
        """Change a job that is in `state`; whether it was."""
        # The names of columns are written in this file alone.
        columns = "".join(f"{column} = ?, " for column in values)
        cursor = self._base.execute(
            f"UPDATE jobs SET {columns}revision = revision + 1 WHERE id = ? AND state = ?",  # noqa: S608
            (*values.values(), job_id, state),
        )
        return bool(cursor.rowcount)

    # What is left by others, and what is old.

    def recover(self) -> None:
        """Queue again what ran when the server ended, and remove files that belong to no job.

        Nobody else may be at work in the folder.
        """
        with self._lock:
            rows = self._base.execute("SELECT * FROM jobs WHERE state = 'running'").fetchall()
        for job in map(job_of, rows):
            if job.attempts < _MOST_ATTEMPTS:
                self._set(job.id, "running", state="queued")
                continue
            error = {
                "type": "PredictError",
                "message": f"The server ended {job.attempts} times while it predicted {job.name}.",
                "remedy": "Send the scene in parts, or ask who keeps the server.",
            }
            self.fail(job.id, error)
        for folder in self._jobs.iterdir():
            kept = self.get(folder.name)
            if kept is None:
                shutil.rmtree(folder, ignore_errors=True)
            elif kept.state in ("failed", "cancelled"):
                self.empty(kept.id)

    def expire(self) -> int:
        """Remove what ended `keep_days` ago or earlier; how many jobs that were."""
        with self._lock:
            rows = self._base.execute(
                "SELECT id FROM jobs WHERE finished_s < ? AND state NOT IN ('queued', 'running')",
                (time.time() - self.keep_days * _DAY_S,),
            ).fetchall()
        gone = [row["id"] for row in rows if self.remove(row["id"])]
        for job_id in gone:
            shutil.rmtree(self.folder_of(job_id), ignore_errors=True)
        return len(gone)

    def empty(self, job_id: str) -> None:
        """Remove the files of a job that will have no results."""
        with suppress(OSError):
            for path in self.folder_of(job_id).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
