"""Runner of jobs, and the check of uploads before they become jobs.

Each job runs in its own process, so a crash or a cancelled job does not affect other jobs.
Clients receive the result files without paths of the server.
"""

import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rasterio

from rooftrace.core.errors import ConfigError, ExportError
from rooftrace.core.system import apart_from_terminal
from rooftrace.io.files import locked, write_json
from rooftrace.io.nodata import nodata_to_json
from rooftrace.models.bundle import BUNDLED_MODELS
from rooftrace.predict.outputs import density_of
from rooftrace.predict.plan import SceneOptions, plan_scene, threshold_for
from rooftrace.predict.predictor import Predictor
from rooftrace.service.decode import Limits, decoded_image, read_header
from rooftrace.service.job_store import Job, JobFile, JobStore, crash_error
from rooftrace.service.review_store import REVIEW_SUFFIX, read_review
from rooftrace.service.service import RequestDefaults

T = TypeVar("T")

_RECORD = "run.json"
"""Record of the run. It has paths of this machine; clients receive a copy without them."""

_CHUNK_BYTES = 2**20

_COMPRESSED = (".tif", ".png")
"""Suffixes of files that are compressed already."""


def list_results(folder: Path) -> tuple[JobFile, ...]:
    """Return the files that clients may download: no links, and no hidden or incomplete files."""
    names = sorted(
        path.name
        for path in (folder / "results").iterdir()
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    )
    return tuple(JobFile(name, path_of(folder, name).stat().st_size) for name in names)


def without_paths(text: str, folder: Path, job: Job) -> str:
    """Replace paths of this machine in a text: the upload by its name, folders by a phrase."""
    for path in (str(folder), json.dumps(str(folder))[1:-1]):
        for place, replacement in ((f"{path}/{job.upload}", job.name), (f"{path}/results/", "")):
            text = text.replace(place, replacement)
        text = text.replace(path, "the job's folder")
    return text


def last_line(log: Path, job: Job) -> str:
    """Return the last line of the log of a job for its client, without folders of this machine."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
            lines = stream.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    line = _FOLDERS.sub("", without_paths(line, log.parent, job))
    return line[:_MAX_LOG_LINE].rstrip(".")


def publish_record(folder: Path, job: Job) -> None:
    """Write the copy of the run record that clients may download."""
    path = folder / "results" / _RECORD
    record = json.loads(without_paths(path.read_text(encoding="utf-8"), folder, job))
    record["bundle"]["file"] = Path(record["bundle"]["file"]).name
    write_json(folder / _RECORD, record)


def path_of(folder: Path, name: str) -> Path:
    """Return the path of a result file.

    Args:
        folder: Folder of the job.
        name: Name of one of the job's files, never a name from a request.
    """
    return folder / name if name == _RECORD else folder / "results" / name


def zipped(paths: Sequence[Path], made: Mapping[str, bytes] | None = None) -> Iterator[bytes]:
    """Return the bytes of a zip of result files and of `made` ones, built while it is read."""
    # Read before the response begins, so that an error is answered as one.
    reviews = {path: read_review(path) for path in paths if path.name.endswith(REVIEW_SUFFIX)}

    def chunks() -> Iterator[bytes]:
        out = _WrittenBytes()
        with zipfile.ZipFile(out, "w", allowZip64=True) as archive:
            for path in paths:
                entry = zipfile.ZipInfo.from_file(path, path.name, strict_timestamps=False)
                is_compressed = path.suffix in _COMPRESSED
                entry.compress_type = zipfile.ZIP_STORED if is_compressed else zipfile.ZIP_DEFLATED
                content = io.BytesIO(reviews[path]) if path in reviews else path.open("rb")
                with content as data, archive.open(entry, "w", force_zip64=True) as target:
                    while chunk := data.read(_CHUNK_BYTES):
                        target.write(chunk)
                        yield out.drain()
            for name, file in (made or {}).items():
                archive.writestr(name, file, zipfile.ZIP_DEFLATED)
                yield out.drain()
        yield out.drain()

    return chunks()


class _WrittenBytes(io.RawIOBase):
    """Write-only file whose content is removed while it is written."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._chunks.append(bytes(data))
        return len(self._chunks[-1])

    def drain(self) -> bytes:
        """Return and remove what was written since the last call."""
        data = b"".join(self._chunks)
        self._chunks.clear()
        return data


CHILD = (sys.executable, "-m", "rooftrace.service.job_child")

_MAX_CRASHES = 2
"""Number of crashes after which a job fails."""

_GRACE_S = 5.0
"""Time between SIGTERM and SIGKILL."""

_EXPIRE_EVERY_S = 3600.0
_POLL_S = 0.2
"""Seconds between two looks for a job that waits."""

_RETRY_S = 5.0
"""Interval at which a change of the list of jobs is tried again while the disk is full."""

_DRIVERS = {
    "COG", "GPKG", "GTiff", "GeoJSON", "GeoJSONSeq", "JP2OpenJPEG", "JPEG", "MEM", "Memory", "PNG",
    "SQLite", "WEBP",
}  # fmt: skip
"""GDAL drivers that job processes may use: formats of uploads and results. None of the upload
formats can refer to other files."""

_LOG_NAME = "log.txt"
"""File for the messages of a job's process, in the job's folder."""

_LOG_TAIL_BYTES, _MAX_LOG_LINE = 8192, 300
"""Bytes at the end of a log that are read, and characters of a line that a client sees."""

_FOLDERS = re.compile(r"(?:\b[A-Za-z]:)?[/\\](?:[^\s'\"/\\]+[/\\])+")
"""Folders of an absolute path, before its name."""

_MAX_LINE_BYTES = 2**20
"""Maximum length of a message from a job process."""

_LOG = logging.getLogger(__name__)


def admit(
    path: Path, name: str, options: SceneOptions, predictor: Predictor, limits: Limits
) -> tuple[Path, int]:
    """Check an upload's header against the limits and the model.

    A separate process reads the header. The file is renamed to have the suffix of its format.

    Args:
        path: Path of the upload.
        name: Name of the upload in messages.
        options: Options of the prediction.
        predictor: Predictor of the job.
        limits: Limits `job_pixels`, `decode_seconds` and `decode_bytes`.

    Returns:
        New path of the upload, and its number of pixels.

    Raises:
        DataError: The upload is damaged, or its format or data type is not supported.
        TooLargeError: The image has more pixels than the limit.
        ConfigError, BandMismatch, GsdMismatch: The image or the options do not fit the model, or
            the only output that is asked for cannot be made.
    """
    threshold_for(predictor.bundle.spec, options.threshold)
    header = read_header(path, name, limits)
    rows, cols = header["shape"]
    # An array of the size of the image that needs the memory of one pixel.
    pixels = np.broadcast_to(np.zeros((), header["dtype"]), (header["bands"], rows, cols))
    valid = np.broadcast_to(np.True_, (rows, cols))
    image = decoded_image(header, pixels, valid, name)
    plan = plan_scene(image, predictor.bundle.spec, options)
    if {*options.outputs} == {"density"} and (reason := density_of(plan)[1]):
        raise ConfigError(
            f"{name}: no density can be made: {reason}.", remedy="Or ask for polygons."
        )
    return path.rename(path.with_name(f"scene{header['ending']}")), rows * cols


class JobRunner:
    """Threads that each run one job at a time in a process.

    Args:
        model: Path of a bundle, or one of `BUNDLED_MODELS`; None for the default model.
        workers: Number of predictions that run at the same time.
        engine: Engine of `run_predict`.
        precision: Precision of `run_predict`.
        defaults: Input options for jobs that do not have their own.
        command: Command of the process of a job.
    """

    def __init__(
        self,
        store: JobStore,
        model: Path | None = None,
        workers: int = 1,
        engine: str | None = None,
        precision: str | None = None,
        *,
        defaults: RequestDefaults | None = None,
        command: Sequence[str] = CHILD,
    ) -> None:
        self.store = store
        self.defaults = defaults or RequestDefaults()
        is_file = model is not None and str(model) not in BUNDLED_MODELS
        self._order = {
            "model": model and str(model.absolute() if is_file else model),
            "engine": engine,
            "precision": precision,
            "nodata": nodata_to_json(self.defaults.nodata),
        }
        self._workers = workers
        self._command = tuple(command)
        self._changed = threading.Condition()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._expire_s = 0.0
        self._held = ExitStack()

    def start(self) -> None:
        """Recover the jobs of a previous server, and start.

        Raises:
            ExportError: Another server uses the folder.
        """
        folder = self.store.folder
        with ExitStack() as locks:
            try:
                locks.enter_context(locked(folder / ".lock", f"The folder of jobs {folder}"))
            except ExportError as error:
                raise ExportError(
                    error.message,
                    remedy="Stop that server, or name another folder: rooftrace serve --jobs PATH",
                ) from error
            self.store.recover()
            self._environment = _environment()
            self._held = locks.pop_all()
        self._stopping = False
        # Daemon threads do not keep a server alive that ends without a call of `stop`.
        self._threads = [
            threading.Thread(target=self._work, name=f"job-{number}", daemon=True)
            for number in range(self._workers)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the running jobs; they resume after the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            running = list(self._children.values())
        for child in running:
            _terminate(child)
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._held.close()

    def cancel(self, job_id: str) -> Job | None:
        """Cancel a job; return None if it does not exist.

        Raises:
            JobStateError: The job has already ended.
        """
        job = self.store.cancel(job_id)
        if job is not None:
            self._end_process(job_id)
        return job

    def remove(self, job_id: str, *, discard_review: bool = False) -> bool:
        """Delete a job in any state, with its files; return whether it existed.

        Raises:
            JobReviewedError: The job has a review.
        """
        removed = self.store.remove(job_id, discard_review=discard_review)
        if removed:
            self._end_process(job_id)
        return removed

    def _end_process(self, job_id: str) -> None:
        """End the process of a job, then remove the files that are no longer needed."""
        with self._changed:
            child = self._children.get(job_id)
            if child is None:
                self._clean_up(job_id)
        if child is not None:
            _terminate(child)

    def _clean_up(self, job_id: str) -> None:
        """Remove the files of a job that was deleted or will have no results."""
        job = self.store.get(job_id)
        if job is None:
            shutil.rmtree(self.store.folder_of(job_id), ignore_errors=True)
        elif job.state in ("failed", "cancelled"):
            self.store.empty(job_id)

    # The methods below run in the threads.

    def _work(self) -> None:
        while (job := self._insist(self._next)) is not None:
            try:
                self._run(job)
            except Exception:
                _LOG.exception("job %s could not be run", job.id)
                error = crash_error(job, "its process could not be started")
                self._insist(partial(self.store.fail, job.id, error))

    def _insist(self, change: Callable[[], T]) -> T | None:
        """Change the list of jobs, again and again while it cannot be written.

        Return None when the runner stops before. The next start then recovers the jobs.
        """
        while True:
            try:
                return change()
            except ExportError as error:
                _LOG.warning("the list of jobs waits for space: %s", error)
            with self._changed:
                if self._changed.wait_for(lambda: self._stopping, _RETRY_S):
                    return None

    def _next(self) -> Job | None:
        """Wait for the next job; return None when the runner stops."""
        while True:
            if time.monotonic() >= self._expire_s:
                self._expire_s = time.monotonic() + _EXPIRE_EVERY_S
                self.store.expire()
            with self._changed:
                if self._stopping:
                    return None
                job = self.store.claim()
                if job is not None:
                    return job
                self._changed.wait(_POLL_S)

    def _run(self, job: Job) -> None:
        child = self._start_process(job)
        if child is None:
            return
        try:
            answer = self._listen(job, child)
            if not answer:
                # A process closes its output a moment before it ends with a code of its own.
                with suppress(subprocess.TimeoutExpired):
                    child.wait(_GRACE_S)
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
        self._insist(partial(self._conclude, job, answer, code, stopped=stopped))
        with self._changed:
            self._clean_up(job.id)

    def _start_process(self, job: Job) -> subprocess.Popen[bytes] | None:
        """Start the process of a job; return None if the job was cancelled or the runner stops."""
        folder = self.store.folder_of(job.id)
        order: dict[str, Any] = {
            **self._order,
            "folder": str(folder),
            "upload": job.upload,
            "name": job.name,
            "options": job.options.model_dump(),
        }
        with self._changed:
            now = self.store.get(job.id)
            if now is None or now.state != "running":
                return None
            if self._stopping:
                self.store.requeue(job, crashed=False)
                return None
            with (folder / _LOG_NAME).open("ab") as log:
                child = subprocess.Popen(  # noqa: S603  # ourselves
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=self._environment,
                    **apart_from_terminal(),
                )
            self._children[job.id] = child
        assert child.stdin is not None
        with suppress(OSError):
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()
        return child

    def _listen(self, job: Job, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        """Store the progress of a process; return its answer, empty if it ends without one."""
        assert child.stdout is not None
        while line := child.stdout.readline(_MAX_LINE_BYTES):
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if "progress" not in message:
                return dict(message)
            with suppress(ExportError):  # the next message has the progress, too
                self.store.progress(job.id, *message["progress"])
        return {}

    def _conclude(self, job: Job, answer: dict[str, Any], code: int, *, stopped: bool) -> None:
        folder = self.store.folder_of(job.id)
        if answer:
            answer = json.loads(without_paths(json.dumps(answer), folder, job))
        if "figures" in answer:
            publish_record(folder, job)
            self.store.finish(job.id, answer["figures"], list_results(folder))
        elif "error" in answer:
            self.store.fail(job.id, answer["error"])
        elif stopped or code == -signal.SIGTERM:
            # When a machine shuts down, jobs may receive SIGTERM before the server does.
            self.store.requeue(job, crashed=False)
        elif job.crashes + 1 < _MAX_CRASHES:
            self.store.requeue(job, crashed=True)
        else:
            reason = f"it ended with the code {code}"
            if code < 0:
                ended_by = signal.Signals(-code).name
                reason = f"it was ended by {ended_by}, possibly for lack of memory"
            reason = f"its process failed {job.crashes + 1} times: {reason}"
            if line := last_line(folder / _LOG_NAME, job):
                reason += f". Its last message was: {line}"
            self.store.fail(job.id, crash_error(job, reason))


def _terminate(child: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to a process, and SIGKILL after a grace period."""
    with suppress(OSError):
        child.terminate()
    killer = threading.Timer(_GRACE_S, child.kill)
    killer.daemon = True
    killer.start()


def _environment() -> dict[str, str]:
    """Return the environment of job processes, with all other GDAL drivers disabled."""
    with rasterio.Env() as env:
        unused = sorted(set(env.drivers()) - _DRIVERS)
    return {**os.environ, "GDAL_SKIP": ",".join(unused)}
