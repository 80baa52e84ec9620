"""Jobs and their store: a folder for each job, with its state as `job.json`.

A job predicts one large scene in the background. The store survives any end of the server.
"""

import logging
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter

from rooftrace.core.errors import BusyError, ExportError, PredictError, RooftraceError
from rooftrace.io.files import export_error, exporting, write_atomically
from rooftrace.predict.plan import SceneOptions
from rooftrace.service.review_store import REVIEW_SUFFIX

STATE = "job.json"
"""File with the state of a job in its folder."""

_DAY_S = 86_400.0

_RETRY_AFTER_S = 60.0
"""Seconds after which a client may retry when the queue is full; a job takes minutes."""

_MAX_ATTEMPTS = 5
"""Maximum number of starts of a job; a job that needs more probably makes the server end."""

_ID_BYTES = 16

_LOG = logging.getLogger(__name__)


JobState = Literal["queued", "running", "done", "failed", "cancelled"]

STATES: tuple[JobState, ...] = get_args(JobState)


class JobStateError(RooftraceError):
    """The state of a job does not allow the operation."""


class JobReviewedError(JobStateError):
    """The job has a review, which would be deleted with it."""


@dataclass(frozen=True)
class JobFile:
    """A result file of a job."""

    name: str
    size: int


@dataclass(frozen=True)
class Job:
    """A job in its current state; each change makes a new object.

    Times are seconds since 1970, or None if they have not happened yet.

    Args:
        number: Position in the order of creation.
        id: Random id that cannot be guessed; the only value of a job that is used in paths.
        name: File name of the image from the client, only for display.
        state: State: queued, running, done, failed or cancelled.
        options: Options of the prediction.
        upload: Name of the file of the image in the folder of the job.
        created_s: Time of creation.
        pixels: Number of pixels of the image.
        started_s: Time of the last start.
        finished_s: Time of the end.
        pixels_done: Number of predicted pixels.
        buildings: Number of buildings found so far.
        attempts: Number of starts, without those that ended because the server was stopped.
        crashes: Number of times that the process ended without an answer.
        error: Result of `RooftraceError.to_json`, if the job failed.
        figures: Figures of the image from `rooftrace predict --json`, if the job is done.
        files: Result files, if the job is done; the review of a person is the last of them.
    """

    number: int
    id: str
    name: str
    state: JobState
    options: SceneOptions
    upload: str
    created_s: float
    pixels: int = 1
    started_s: float | None = None
    finished_s: float | None = None
    pixels_done: int = 0
    buildings: int = 0
    attempts: int = 0
    crashes: int = 0
    error: dict[str, str] | None = None
    figures: dict[str, Any] | None = None
    files: tuple[JobFile, ...] = ()

    @property
    def ended(self) -> bool:
        """Return whether the job is done, failed or cancelled."""
        return self.state not in ("queued", "running")

    @property
    def reviewed(self) -> bool:
        """Return whether a person has reviewed the buildings; such a job does not expire."""
        return any(file.name.endswith(REVIEW_SUFFIX) for file in self.files)


JOB_JSON = TypeAdapter(Job)
"""Reader and writer of the file of a job."""

OPTIONS_JSON = TypeAdapter(SceneOptions)
"""Reader of the options in the order of a job's process."""


def crash_error(job: Job, reason: str) -> dict[str, str]:
    """Return the error of a job that ended several times without an answer."""
    return PredictError(
        f"The prediction of {job.name} failed: {reason}.",
        remedy="Send parts, or ask the operator of the server.",
    ).to_json()


class JobStore:
    """Folder of jobs: a folder for each job, with its id as the name.

    All threads of one process may use it; `JobRunner` locks it against other processes. Where a
    folder cannot be written, such as on a full disk, methods that change a job raise ExportError
    and change nothing.

    Args:
        folder: Folder of the jobs; it is created if it is missing.
        jobs_waiting: Maximum number of waiting jobs; further jobs get BusyError.
        keep_days: Number of days after which an ended job and its files are removed.

    Raises:
        ExportError: The folder cannot be written.
    """

    def __init__(self, folder: Path, *, jobs_waiting: int = 100, keep_days: float = 7.0) -> None:
        self.folder = folder.absolute()
        self.keep_days = keep_days
        self._jobs_waiting = jobs_waiting
        self._lock = threading.RLock()
        self._reserved: set[str] = set()
        self._jobs: dict[str, Job] = {}
        self._number = 0
        try:
            with exporting(self.folder):
                # Only this user may read the uploaded images.
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except ExportError as error:
            raise ExportError(
                error.message,
                remedy="Name a folder with write permission and free space: "
                "rooftrace serve --jobs PATH",
            ) from error
        self._load()

    def _load(self) -> list[Path]:
        """Read the states of all jobs, and return the folders that have none."""
        jobs, unlisted = [], []
        for folder in self.folder.iterdir():
            if len(folder.name) != 2 * _ID_BYTES or not folder.is_dir():
                continue
            try:
                jobs.append(JOB_JSON.validate_json((folder / STATE).read_bytes()))
            except FileNotFoundError:
                unlisted.append(folder)
            except (OSError, ValueError) as error:
                _LOG.error("%s is left out of the jobs: %s", folder / STATE, error)
        jobs.sort(key=lambda job: job.number)
        self._jobs = {job.id: job for job in jobs}
        self._number = max((job.number for job in jobs), default=0)
        return unlisted

    # Creation of jobs.

    def reserve(self) -> str:
        """Create the folder for the upload of a new job, and return the id of the job.

        Call `add` or `discard` next.

        Raises:
            BusyError: Too many jobs are waiting.
            ExportError: The folder cannot be created.
        """
        job_id = secrets.token_hex(_ID_BYTES)
        with self._lock:
            waiting = self.counts()["queued"] + len(self._reserved)
            if waiting >= self._jobs_waiting:
                raise BusyError(
                    f"{waiting} jobs are waiting already.",
                    remedy="Send the request again when some of the jobs are done.",
                    retry_after_s=_RETRY_AFTER_S,
                )
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

    def add(self, job_id: str, name: str, upload: str, pixels: int, options: SceneOptions) -> Job:
        """Queue a reserved job whose upload is complete.

        Args:
            job_id: Id from `reserve`.
            name: File name of the image, for display.
            upload: Name of the image file in the folder of the job.
            pixels: Number of pixels of the image.
            options: Options of the prediction.
        """
        with self._lock:
            self._number += 1
            job = Job(
                self._number, job_id, name, "queued", options, upload, time.time(), max(pixels, 1)
            )
            self._save(job)
            self._reserved.discard(job_id)
        return job

    # Queries.

    def folder_of(self, job_id: str) -> Path:
        """Return the folder of a job. The id must come from this store, as it is part of a path."""
        return self.folder / job_id

    def results(self, job_id: str) -> Path:
        """Return the folder of the results of a job."""
        return self.folder_of(job_id) / "results"

    def get(self, job_id: str) -> Job | None:
        """Return a job, with the reviews that people have made since its end; None if missing."""
        job = self._jobs.get(job_id)
        if job is None or job.state != "done":
            return job
        reviews = []
        for path in sorted(self.results(job.id).glob(f"*{REVIEW_SUFFIX}")):
            # The job may be removed in the meantime.
            with suppress(FileNotFoundError):
                reviews.append(JobFile(path.name, path.stat().st_size))
        return replace(job, files=(*job.files, *reviews))

    def newest(self, limit: int, before: int | None = None) -> list[Job]:
        """Return jobs, newest first.

        Args:
            limit: Maximum number of jobs.
            before: Number of a job; only older jobs are returned.
        """
        with self._lock:
            ids = [
                job.id
                for job in reversed(self._jobs.values())
                if before is None or job.number < before
            ]
        jobs = (self.get(job_id) for job_id in ids[:limit])
        return [job for job in jobs if job is not None]

    def counts(self) -> dict[JobState, int]:
        """Return the number of jobs in each state."""
        with self._lock:
            counts = Counter(job.state for job in self._jobs.values())
        return {state: counts[state] for state in STATES}

    # Changes of state.

    def claim(self) -> Job | None:
        """Mark the job that has waited longest as running; return None if no job waits."""
        with self._lock:
            job = next((job for job in self._jobs.values() if job.state == "queued"), None)
            if job is None:
                return None
            return self._change(
                job.id, "queued",
                state="running", started_s=time.time(), pixels_done=0, buildings=0,
                attempts=job.attempts + 1,
            )  # fmt: skip

    def progress(self, job_id: str, pixels_done: int, pixels: int, buildings: int) -> None:
        """Store the progress of a running prediction."""
        self._change(job_id, "running", pixels_done=pixels_done, pixels=pixels, buildings=buildings)

    def finish(self, job_id: str, figures: dict[str, Any], files: Sequence[JobFile]) -> None:
        """Mark a job as done if it still runs."""
        self._change(
            job_id, "running",
            state="done", finished_s=time.time(), figures=figures, files=tuple(files),
            buildings=figures.get("buildings") or 0, pixels_done=figures.get("pixels", 0),
            pixels=figures.get("pixels", 0),
        )  # fmt: skip

    def fail(self, job_id: str, error: dict[str, str]) -> None:
        """Mark a job as failed if it still runs."""
        self._change(job_id, "running", state="failed", finished_s=time.time(), error=error)

    def requeue(self, job: Job, *, crashed: bool) -> None:
        """Queue a running job again, before all jobs that came after it.

        Args:
            job: Job in its current state.
            crashed: Whether its process crashed, as opposed to the server being stopped.
        """
        counted = {"crashes": job.crashes + 1} if crashed else {"attempts": job.attempts - 1}
        self._change(job.id, "running", state="queued", **counted)

    def cancel(self, job_id: str) -> Job | None:
        """Mark a job as cancelled; return None if it does not exist. The runner ends its process.

        Raises:
            JobStateError: The job has already ended.
        """
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None:
                return None
            if job.ended:
                raise JobStateError(
                    f"The job {job_id} is already {job.state}.",
                    remedy="Only a job that waits or runs can be cancelled.",
                )
            return self._change(job_id, job.state, state="cancelled", finished_s=time.time())

    def remove(self, job_id: str, *, discard_review: bool = False) -> bool:
        """Remove a job from the list; return whether it existed. The runner removes its files.

        Args:
            discard_review: Whether the job may have a review, which is then deleted, too.

        Raises:
            JobReviewedError: The job has a review.
        """
        with self._lock:
            job = self.get(job_id)
            if job is None:
                return False
            if job.reviewed and not discard_review:
                raise JobReviewedError(
                    f"{job.name} has a review, which would be deleted with the job {job_id}.",
                    remedy="Export what was accepted first. Then delete the job with "
                    "discard_review=true.",
                )
            path = self.folder_of(job_id) / STATE
            with exporting(path):
                path.unlink(missing_ok=True)
            del self._jobs[job_id]
        return True

    def _change(self, job_id: str, state: JobState, /, **values: Any) -> Job | None:
        """Change a job that is in `state`, and return it; return None for other jobs."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.state != state:
                return None
            return self._save(replace(job, **values))

    def _save(self, job: Job) -> Job:
        """Write a job to its folder; a new state survives a loss of power."""
        before = self._jobs.get(job.id)
        sync = before is None or before.state != job.state
        write_atomically(self.folder_of(job.id) / STATE, JOB_JSON.dump_json(job), sync=sync)
        self._jobs[job.id] = job
        return job

    # Recovery and removal.

    def recover(self) -> None:
        """Queue the jobs that ran when the server ended, and remove files that belong to no job.

        No other process may use the folder.
        """
        for folder in self._load():
            shutil.rmtree(folder, ignore_errors=True)
        for job in list(self._jobs.values()):
            if job.state == "running" and job.attempts < _MAX_ATTEMPTS:
                self._change(job.id, "running", state="queued")
            elif job.state == "running":
                times = f"the server ended {job.attempts} times meanwhile"
                self.fail(job.id, crash_error(job, times))
            if self._jobs[job.id].state in ("failed", "cancelled"):
                self.empty(job.id)

    def expire(self) -> None:
        """Remove the jobs that ended `keep_days` ago or earlier, with their files.

        Jobs with a review are kept, because it is the work of a person.
        """
        latest_s = time.time() - self.keep_days * _DAY_S
        for job in list(self._jobs.values()):
            if job.finished_s is None or job.finished_s >= latest_s:
                continue
            with suppress(JobReviewedError):
                if job.ended and self.remove(job.id):
                    shutil.rmtree(self.folder_of(job.id), ignore_errors=True)

    def empty(self, job_id: str) -> None:
        """Remove the files of a job that will have no results."""
        with suppress(OSError):
            for path in self.folder_of(job_id).iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != STATE:
                    path.unlink()
