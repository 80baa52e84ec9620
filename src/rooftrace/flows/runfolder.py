"""The folder of a prediction while it runs: locked, and with what a killed run had finished."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import IO, Any

from rooftrace.flows.inputs import Job
from rooftrace.io.area import AreaSource
from rooftrace.io.atomic import export_error
from rooftrace.io.lock import locked
from rooftrace.io.remote import RemoteRaster
from rooftrace.predict.parts import PartStore

__all__ = ["MADE", "RunFolder", "is_shared", "parts_of", "stamp", "work_of"]

_WORK = ".rooftrace"

MADE = "made."
"""How folders in it begin in which workers of a cluster write results."""

_RUN_ID = "run"

_LEFT_OVER = re.compile(
    r"\.(.+_(mask|buildings|polygons|preview|density)(\..+)?|run)\.(\d+\.part(\..+)?|[a-z0-9_]{8})"
)
"""What a run that was killed had not yet given its name: `io.atomic.replacing`, `io.vector`. Of
results alone: whatever else the person hides in the folder is not touched."""


def work_of(out: Path) -> Path:
    """The hidden folder of a run inside of its results'."""
    return out / _WORK


def parts_of(out: Path, job: Job) -> Path:
    """Where the finished blocks of an image are kept."""
    return work_of(out) / f"{job.name}.parts"


def is_shared(out: Path, run_id: str) -> bool:
    """Whether the folder of a run is seen from here, which may be another machine.

    Args:
        out: for results.
        run_id: of the run; another machine may have a folder of that name, too.
    """
    try:
        return (work_of(out) / _RUN_ID).read_text() == run_id
    except OSError:
        return False


class RunFolder:
    """A results folder that one run writes to.

    What is finished of an image, and which images are, survives the process in a hidden folder
    inside. A run with the same model and options goes on from there; one with others begins anew.

    Args:
        out: made where it is missing.
        made_with: all that results depend on, besides the images; plain data.

    Raises:
        ExportError: another run writes there, or nobody can.
    """

    def __init__(self, out: Path, made_with: Mapping[str, Any]) -> None:
        self._out = out
        self._work = work_of(out)
        self._made_with = dict(made_with)
        self._open = ExitStack()
        # Where the line of an image is: of many thousand images the lines would not fit.
        self._known: dict[str, int] = {}
        self._file: IO[bytes] | None = None
        # One thread looks up what is finished while another one adds to it.
        self._lock = Lock()
        self.run_id = uuid.uuid4().hex
        """Of this run; see `is_shared`."""

        self.replaced = False
        """Whether what an earlier run had begun was of no use."""

    def __enter__(self) -> RunFolder:
        with self._open:
            self._open.enter_context(locked(self._out / f"{_WORK}.lock", str(self._out)))
            try:
                self._sweep()
                self._work.mkdir(exist_ok=True)
                self._drop_made()
                (self._work / _RUN_ID).write_text(self.run_id)
                self._take_up()
            except OSError as error:
                raise export_error(self._out, error) from error
            self._open = self._open.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        if not self._known and not any(self._work.glob("*.parts/*.part")):
            self.discard()
        self._drop_made()
        self._open.close()

    def finished(self, job: Job) -> dict[str, Any] | None:
        """What was recorded of an image that an earlier run finished; None where it is to be done.

        An image that has changed since, or whose results are gone, is to be done again.
        """
        if job.name not in self._known:
            return None
        known = self._line(job.name)
        if known["stamp"] != stamp(job) or not all(Path(file).exists() for file in known["files"]):
            return None
        record: dict[str, Any] = known["record"]
        return record

    def record(self, job: Job) -> dict[str, Any]:
        """What was recorded of an image that is finished."""
        record: dict[str, Any] = self._line(job.name)["record"]
        return record

    def _line(self, name: str) -> dict[str, Any]:
        assert self._file is not None
        with self._lock:
            self._file.seek(self._known[name])
            line: dict[str, Any] = json.loads(self._file.readline())
        return line

    def add(self, job: Job, files: list[str], record: Mapping[str, Any]) -> None:
        """Note an image that is finished; its parts are given up.

        Raises:
            ExportError: it cannot be noted.
        """
        line = {"name": job.name, "stamp": stamp(job), "files": files, "record": dict(record)}
        assert self._file is not None
        try:
            with self._lock:
                self._known[job.name] = self._file.seek(0, 2)
                self._file.write(json.dumps(line).encode() + b"\n")
                self._file.flush()
        except OSError as error:
            raise export_error(self._work, error) from error
        folder = self._folder(job)
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)

    def parts(self, job: Job, grid: Mapping[str, Any]) -> PartStore:
        """Where the finished blocks of an image are kept.

        Args:
            grid: of the image and its plan; parts of another are of no use.
        """
        made_with = {**self._made_with, "image": stamp(job), "grid": grid}
        store = PartStore(self._folder(job), made_with)
        self.replaced |= store.replaced
        return store

    @property
    def spool(self) -> Path:
        """A folder for what does not fit into memory."""
        return self._work

    def discard(self) -> None:
        """Remove what was kept, when there is nothing left to go on with."""
        if self._file is not None:
            self._file.close()
        shutil.rmtree(self._work, ignore_errors=True)

    @property
    def made_with(self) -> Mapping[str, Any]:
        """All that results depend on, besides the images."""
        return self._made_with

    def _folder(self, job: Job) -> Path:
        return parts_of(self._out, job)

    def _drop_made(self) -> None:
        """Remove what workers were lost with, or made after others had; nobody makes more."""
        with suppress(OSError):
            (self._work / _RUN_ID).unlink()
        for path in self._work.glob(f"{MADE}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove the half-written files of a run that was killed: nobody else writes here now."""
        for path in self._out.iterdir():
            if _LEFT_OVER.fullmatch(path.name):
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _take_up(self) -> None:
        path = self._work / "journal.jsonl"
        head = json.dumps(self._made_with, sort_keys=True).encode() + b"\n"
        begun = path.exists()
        self._file = path.open("r+b" if begun else "w+b")
        if begun and self._file.readline() == head:
            end = len(head)
            for line in self._file:
                # A line that was cut off is written over.
                if not line.endswith(b"\n"):
                    break
                self._known[json.loads(line)["name"]] = end
                end += len(line)
            self._file.seek(end)
            self._file.truncate()
            return
        self.replaced = begun
        self._file.seek(0)
        self._file.truncate()
        self._file.write(head)
        self._file.flush()


def stamp(job: Job) -> str:
    """What changes when an image does; of an address, what its server says of the file."""
    if job.url:
        image = job.source.source if isinstance(job.source, AreaSource) else job.source
        return f"{job.url} {image.version if isinstance(image, RemoteRaster) else ''}"
    path = job.path
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    told = hashlib.sha256(str(path.resolve()).encode())
    for file in files:
        if file.exists():
            status = file.stat()
            told.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return told.hexdigest()
