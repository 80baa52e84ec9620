"""Jobs and their store: a list in SQLite and a folder for each job.

A job predicts one large scene, or fine-tunes the model on the labels of a project, in the
background. The store survives any end of the server.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from rooftrace.core.errors import BusyError, ConfigError, ExportError
from rooftrace.io.files import export_error
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.jobs.job import (
    STATES,
    Job,
    JobFile,
    JobReviewedError,
    JobState,
    JobStateError,
    TrainingOptions,
    TrainingProgress,
    crash_error,
    options_from_json,
    options_to_json,
)
from rooftrace.service.review.store import REVIEW_SUFFIX

T = TypeVar("T")


_SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    options TEXT NOT NULL,
    upload TEXT NOT NULL,
    upload_bytes INTEGER NOT NULL,
    created_s REAL NOT NULL,
    started_s REAL,
    finished_s REAL,
    pixels_done INTEGER NOT NULL DEFAULT 0,
    pixels INTEGER NOT NULL,
    buildings INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL DEFAULT 1,
    error TEXT,
    figures TEXT,
    files TEXT NOT NULL DEFAULT '[]'
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, number);
"""

_TRAININGS = """
ALTER TABLE jobs ADD COLUMN training TEXT;
ALTER TABLE jobs ADD COLUMN progress TEXT;
ALTER TABLE jobs ADD COLUMN taken_s REAL;
"""
"""Change of a list of version 1 to version 2."""

_PORTABLE = """
ALTER TABLE jobs ADD COLUMN portable INTEGER NOT NULL DEFAULT 0;
"""
"""Change of a list of version 2 to version 3."""

_CHANGES = (_SCHEMA, _TRAININGS, _PORTABLE)
"""Changes that lead from each version to the next, from version 0, which is an empty list."""

_VERSION = len(_CHANGES)


def _open_list(path: Path) -> sqlite3.Connection:
    """Open the list of jobs, and create it if it is missing. The caller needs a lock to use it.

    Raises:
        ExportError: The file cannot be written, is not a list of jobs, or is damaged.
        ConfigError: Another version has written the file.
    """
    try:
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    except sqlite3.Error as error:
        raise export_error(path, error) from error
    database.row_factory = sqlite3.Row
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA busy_timeout = 10000")
        # A job that was accepted survives a loss of power.
        database.execute("PRAGMA synchronous = FULL")
        (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(str(found).split()))
        with _transaction(database):
            version = int(database.execute("PRAGMA user_version").fetchone()[0])
            if version < _VERSION:
                for statement in "".join(_CHANGES[version:]).split(";\n"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {_VERSION}")
    except sqlite3.Error as error:
        database.close()
        raise _list_error(path, error) from error
    if version > _VERSION:
        database.close()
        raise ConfigError(
            f"{path} has version {version}; expected {_VERSION}.",
            remedy="Use another folder for the jobs, or the version of rooftrace that wrote it.",
        )
    return database


def _list_error(path: Path, error: sqlite3.Error) -> ExportError:
    """Return the error for a list of jobs that cannot be written or read."""
    if isinstance(error, sqlite3.OperationalError):
        return export_error(path, error)
    return ExportError(
        f"{path} cannot be used as the list of jobs: {error}.",
        remedy=_DAMAGED_REMEDY,
    )


_DAMAGED_REMEDY = (
    "Use another folder for the jobs. Or stop the server, copy the results and reviews that are "
    "needed, remove that file, and start the server again; it then removes the files of jobs that "
    "are not listed."
)


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Commit all changes made inside, or none of them."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        # After some errors, such as a full disk, SQLite has already rolled back.
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _job_of(row: sqlite3.Row) -> Job:
    values = dict(row)
    try:
        return Job(**{
            **values,
            "options": options_from_json(values["options"]),
            "error": None if values["error"] is None else json.loads(values["error"]),
            "figures": None if values["figures"] is None else json.loads(values["figures"]),
            "files": tuple(JobFile(**one) for one in json.loads(values["files"])),
            "training": _parsed(TrainingOptions, values["training"]),
            "progress": _parsed(TrainingProgress, values["progress"]),
            "portable": bool(values["portable"]),
        })  # fmt: skip
    except (ValueError, TypeError, KeyError) as error:
        raise ExportError(
            f"The job {values['id']} in the list of jobs is damaged: {error}.",
            remedy=_DAMAGED_REMEDY,
        ) from error


def _parsed(kind: type[T], text: str | None) -> T | None:
    return None if text is None else kind(**json.loads(text))


_DAY_S = 86_400.0

_RETRY_AFTER_S = 60.0
"""Time after which a client may retry when the queue is full; a job takes minutes."""

_MAX_ATTEMPTS = 5
"""Maximum number of starts of a job; a job that needs more probably makes the server end."""

LABELS = "labels"
"""Name of the folder of labels in the folder of a training."""

TASKS = "tasks.json"
"""Name of the file of labels in that folder."""

Prepare = Callable[[Path], None]

Watcher = Callable[[str, Job | None], None]
"""Callback with the id of a changed job and the job, or None if it was removed. The thread that
changed the job calls it."""


class JobStore:
    """Folder of jobs: `jobs.sqlite`, and a folder for each job with its id as the name.

    All threads of one process may use it; `JobRunner` locks it against other processes. Where the
    list cannot be written, such as on a full disk, methods that change it raise ExportError and
    change nothing. All methods raise ExportError where the list is damaged.

    Args:
        folder: Folder of the jobs; it is created if it is missing.
        jobs_waiting: Maximum number of waiting jobs; further jobs get BusyError.
        keep_days: Number of days after which an ended job and its files are removed.

    Raises:
        ExportError: The folder cannot be written, or its list is damaged.
        ConfigError: Another version has written the folder.
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
            # Only this user may read the uploaded images.
            self._jobs.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise export_error(path, error) from error
        self._database = _open_list(path)

    @property
    def _jobs(self) -> Path:
        return self.folder / "jobs"

    def close(self) -> None:
        """Close the list of jobs."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self._translated(), _transaction(self._database):
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise ExportError for a list that cannot be written or read, or is damaged."""
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise  # a defect of the program
        except sqlite3.Error as error:
            raise _list_error(self.folder / "jobs.sqlite", error) from error

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock, self._translated():
            return self._database.execute(query, values).fetchall()

    def _jobs_of(self, query: str, *values: object) -> list[Job]:
        """Return the jobs of a query, with the reviews that people have made since their end."""
        return [self._with_review(_job_of(row)) for row in self._rows(query, *values)]

    def _with_review(self, job: Job) -> Job:
        if job.state != "done" or job.training is not None:
            return job
        reviews = []
        for path in sorted(self.results(job.id).glob(f"*{REVIEW_SUFFIX}")):
            # The job may be removed in the meantime.
            with suppress(FileNotFoundError):
                reviews.append(JobFile(path.name, path.stat().st_size))
        return replace(job, files=(*job.files, *reviews))

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher` whenever a job changes, until the returned function is called."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def _notify(self, job_id: str) -> Job | None:
        job = self.get(job_id)
        for watcher in tuple(self._watchers):
            watcher(job_id, job)
        return job

    # Creation of jobs.

    def reserve(self) -> str:
        """Create the folder for the upload of a new job, and return the id of the job.

        Call `add` or `discard` next.

        Raises:
            BusyError: Too many jobs are waiting.
            ExportError: The folder cannot be created.
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
        """Remove a reserved job and its upload; do nothing if the job was added."""
        with self._lock:
            if job_id not in self._reserved:
                return
            self._reserved.remove(job_id)
        shutil.rmtree(self.folder_of(job_id), ignore_errors=True)

    def add(
        self, job_id: str, name: str, upload: str, pixels: int, options: SceneOptions, *,
        portable: bool = False,
    ) -> Job:  # fmt: skip
        """Queue a reserved job whose upload is complete.

        Args:
            job_id: Id from `reserve`.
            name: File name of the image, for display.
            upload: Name of the image file in the folder of the job.
            pixels: Number of pixels of the image.
            options: Options of the prediction.
            portable: See `Job`.
        """
        path = self.folder_of(job_id) / upload
        try:
            size = path.stat().st_size
        except OSError as error:
            raise export_error(path, error) from error
        with self._transaction():
            self._database.execute(
                "INSERT INTO jobs (id, name, state, options, upload, upload_bytes, created_s, "
                "pixels, portable) VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?)",
                (job_id, name, options_to_json(options), upload, size, time.time(), pixels,
                 portable),
            )  # fmt: skip
            self._reserved.discard(job_id)
        job = self._notify(job_id)
        assert job is not None
        return job

    def add_training(
        self, name: str, options: SceneOptions, training: TrainingOptions, prepare: Prepare
    ) -> Job:
        """Queue a training, unless one on the same data waits or runs; return it in any case.

        Args:
            name: Name of the project or of the results, for display.
            options: Options with which images are read.
            training: Options of the training.
            prepare: Function that writes the files that the training needs to the folder of the
                job.

        Raises:
            BusyError: Too many jobs are waiting.
            ExportError: The files cannot be written.
        """
        # Another request for the same training waits here, and then finds this one.
        with self._lock:
            for job in self._jobs_of(
                "SELECT * FROM jobs WHERE training IS NOT NULL AND state IN ('queued', 'running')"
            ):
                if training.has_data_of(job.training):
                    return job
            job_id = self.reserve()
            try:
                prepare(self.folder_of(job_id))
                with self._transaction():
                    self._database.execute(
                        "INSERT INTO jobs (id, name, state, options, upload, upload_bytes, "
                        "created_s, pixels, training) VALUES (?, ?, 'queued', ?, ?, 0, ?, 0, ?)",
                        (job_id, name, options_to_json(options), f"{LABELS}/{TASKS}", time.time(),
                         json.dumps(asdict(training))),
                    )  # fmt: skip
                    self._reserved.discard(job_id)
            except BaseException:
                self.discard(job_id)
                raise
        added = self._notify(job_id)
        assert added is not None
        return added

    def _check_room(self) -> None:
        waiting = self.counts()["queued"] + len(self._reserved)
        if waiting >= self._jobs_waiting:
            raise BusyError(
                f"{waiting} jobs are waiting already.",
                remedy="Send the request again when some of the jobs are done.",
                retry_after_s=_RETRY_AFTER_S,
            )

    # Queries.

    def folder_of(self, job_id: str) -> Path:
        """Return the folder of a job. The id must come from this store, as it is part of a path."""
        return self._jobs / job_id

    def results(self, job_id: str) -> Path:
        """Return the folder of the results of a job."""
        return self.folder_of(job_id) / "results"

    def get(self, job_id: str) -> Job | None:
        """Return a job, or None if it does not exist."""
        jobs = self._jobs_of("SELECT * FROM jobs WHERE id = ?", job_id)
        return jobs[0] if jobs else None

    def newest(self, limit: int, before: int | None = None) -> list[Job]:
        """Return jobs, newest first.

        Args:
            limit: Maximum number of jobs.
            before: Number of a job; only older jobs are returned.
        """
        latest = 2**62 if before is None else before
        return self._jobs_of(
            "SELECT * FROM jobs WHERE number < ? ORDER BY number DESC LIMIT ?", latest, limit
        )

    def trainings(self) -> list[Job]:
        """Return the trainings that are done, newest first; each has a version of the model."""
        return self._jobs_of(
            "SELECT * FROM jobs WHERE training IS NOT NULL AND state = 'done' ORDER BY number DESC"
        )

    def counts(self) -> dict[JobState, int]:
        """Return the number of jobs in each state."""
        rows = self._rows("SELECT state, COUNT(*) FROM jobs GROUP BY state")
        return {**dict.fromkeys(STATES, 0), **{row[0]: row[1] for row in rows}}

    # Changes of state.

    def claim(self, *, training: bool = False) -> Job | None:
        """Mark the job that has waited longest as running; return None if no job waits.

        Args:
            training: Whether a training is wanted; otherwise a prediction.
        """
        with self._transaction():
            row = self._database.execute(
                "SELECT id FROM jobs WHERE state = 'queued' AND (training IS NOT NULL) = ? "
                "ORDER BY number LIMIT 1",
                (training,),
            ).fetchone()
            if row is None:
                return None
            self._change(
                row["id"], "queued",
                state="running", started_s=time.time(), pixels_done=0, buildings=0,
            )  # fmt: skip
            self._database.execute(
                "UPDATE jobs SET attempts = attempts + 1 WHERE id = ?", (row["id"],)
            )
        return self._notify(row["id"])

    def progress(self, job_id: str, pixels_done: int, pixels: int, buildings: int) -> None:
        """Store the progress of a running prediction."""
        self._set(job_id, "running", pixels_done=pixels_done, pixels=pixels, buildings=buildings)

    def training_progress(self, job_id: str, progress: TrainingProgress) -> None:
        """Store the progress of a running training."""
        self._set(job_id, "running", progress=json.dumps(asdict(progress)))

    def finish(self, job_id: str, figures: dict[str, Any], files: Sequence[JobFile]) -> None:
        """Mark a job as done if it still runs."""
        listed = json.dumps([asdict(file) for file in files])
        self._set(
            job_id, "running",
            state="done", finished_s=time.time(), figures=json.dumps(figures), files=listed,
            buildings=figures.get("buildings") or 0, pixels_done=figures.get("pixels", 0),
            pixels=figures.get("pixels", 0),
        )  # fmt: skip

    def set_taken(self, job_id: str, *, taken: bool) -> None:
        """Record that the version of a training that is done is in use, or that it no longer is.

        The watchers are not notified, because the training itself has not changed.
        """
        with self._transaction():
            self._change(job_id, "done", taken_s=time.time() if taken else None)

    def fail(self, job_id: str, error: dict[str, str]) -> None:
        """Mark a job as failed if it still runs."""
        self._set(
            job_id, "running", state="failed", finished_s=time.time(), error=json.dumps(error)
        )

    def requeue(self, job: Job, *, crashed: bool) -> None:
        """Queue a running job again, before all jobs that came after it.

        Args:
            job: Job in its current state.
            crashed: Whether its process crashed, as opposed to the server being stopped.
        """
        counted = {"crashes": job.crashes + 1} if crashed else {"attempts": job.attempts - 1}
        self._set(job.id, "running", state="queued", **counted)

    def cancel(self, job_id: str) -> Job | None:
        """Mark a job as cancelled; return None if it does not exist. The runner ends its process.

        Raises:
            JobStateError: The job has already ended.
        """
        with self._transaction():
            job = self.get(job_id)
            if job is None:
                return None
            if job.ended:
                raise JobStateError(
                    f"The job {job_id} is already {job.state}.",
                    remedy="Only a job that waits or runs can be cancelled.",
                )
            self._change(job_id, job.state, state="cancelled", finished_s=time.time())
        return self._notify(job_id)

    def remove(self, job_id: str, *, discard_review: bool = False) -> bool:
        """Remove a job from the list; return whether it existed. The runner removes its files.

        Args:
            job_id: Id of the job.
            discard_review: Whether the job may have a review, which is then deleted, too.

        Raises:
            JobReviewedError: The job has a review.
            JobStateError: It is the training whose version is in use.
        """
        with self._transaction():
            row = self._database.execute(
                "SELECT id FROM jobs WHERE taken_s IS NOT NULL ORDER BY taken_s DESC LIMIT 1"
            ).fetchone()
            if row is not None and row["id"] == job_id:
                raise JobStateError(
                    f"The version of the training {job_id} is in use.",
                    remedy="Go back to the version before it, or take another one, and then delete "
                    "it.",
                )
            job = self.get(job_id)
            if job is not None and job.reviewed and not discard_review:
                raise JobReviewedError(
                    f"{job.name} has a review, which would be deleted with the job {job_id}.",
                    remedy="Export what was accepted first. Then delete the job with "
                    "discard_review=true.",
                )
            cursor = self._database.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        if cursor.rowcount:
            self._notify(job_id)
        return bool(cursor.rowcount)

    def _set(self, job_id: str, state: JobState, /, **values: Any) -> None:
        """Change a job that is in `state`, and notify the watchers."""
        with self._transaction():
            changed = self._change(job_id, state, **values)
        if changed:
            self._notify(job_id)

    def _change(self, job_id: str, state: JobState, /, **values: Any) -> bool:
        """Change a job that is in `state`; return whether it was."""
        # The column names come only from this file.
        columns = "".join(f"{column} = ?, " for column in values)
        cursor = self._database.execute(
            f"UPDATE jobs SET {columns}revision = revision + 1 "  # noqa: S608  # nosec B608
            "WHERE id = ? AND state = ?",
            (*values.values(), job_id, state),
        )
        return bool(cursor.rowcount)

    # Recovery and removal.

    def recover(self) -> None:
        """Queue the jobs that ran when the server ended, and remove files that belong to no job.

        No other process may use the folder.
        """
        for job in self._jobs_of("SELECT * FROM jobs WHERE state = 'running'"):
            if job.attempts < _MAX_ATTEMPTS:
                self._set(job.id, "running", state="queued")
                continue
            self.fail(job.id, crash_error(job, f"the server ended {job.attempts} times meanwhile"))
        for folder in self._jobs.iterdir():
            kept = self.get(folder.name)
            if kept is None:
                shutil.rmtree(folder, ignore_errors=True)
            elif kept.state in ("failed", "cancelled"):
                self.empty(kept.id)

    def expire(self) -> None:
        """Remove the jobs that ended `keep_days` ago or earlier, with their files.

        Trainings that are done are kept, because they have the versions of the model, and so are
        jobs with a review, because it is the work of a person.
        """
        rows = self._rows(
            "SELECT id FROM jobs WHERE finished_s < ? AND state NOT IN ('queued', 'running') "
            "AND (training IS NULL OR state <> 'done')",
            time.time() - self.keep_days * _DAY_S,
        )
        for row in rows:
            try:
                removed = self.remove(row["id"])
            except JobReviewedError:
                continue
            if removed:
                shutil.rmtree(self.folder_of(row["id"]), ignore_errors=True)

    def empty(self, job_id: str) -> None:
        """Remove the files of a job that will have no results."""
        with suppress(OSError):
            for path in self.folder_of(job_id).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
