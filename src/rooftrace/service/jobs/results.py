"""The files that a job made, as they may be handed out."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rooftrace.io.atomic import write_atomically
from rooftrace.service.jobs.job import Job, JobFile

__all__ = ["found_in", "path_of", "publish", "without_paths", "zipped"]

_RECORD = "run.json"
"""It names folders of this machine. What is handed out is a copy without them."""

_CHUNK = 2**20

_PACKED = (".tif", ".png")
"""Endings of what is compressed already."""


def found_in(folder: Path) -> tuple[JobFile, ...]:
    """The files of a job that are handed out: no link, nothing hidden, and none that is not whole.

    Args:
        folder: of the job, with the copy of its record.
    """
    names = sorted(
        path.name
        for path in (folder / "results").iterdir()
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    )
    return tuple(JobFile(name, path_of(folder, name).stat().st_size) for name in names)


def without_paths(text: str, folder: Path, job: Job) -> str:
    """A text about a job as others may read it: the image by its name, no folder of this machine.

    Args:
        text: a sentence, or JSON.
        folder: of the job.
        job: that it is about.
    """
    for path in (str(folder), json.dumps(str(folder))[1:-1]):
        for place, shown in ((f"{path}/{job.upload}", job.name), (f"{path}/results/", "")):
            text = text.replace(place, shown)
        text = text.replace(path, "the job's folder")
    return text


def publish(folder: Path, job: Job) -> None:
    """Make the copy of a run's record that may be handed out.

    Args:
        folder: of the job.
        job: that it is of.
    """
    path = folder / "results" / _RECORD
    record = json.loads(without_paths(path.read_text(encoding="utf-8"), folder, job))
    record["bundle"]["file"] = Path(record["bundle"]["file"]).name
    write_atomically(folder / _RECORD, (json.dumps(record, indent=1) + "\n").encode())


def path_of(folder: Path, name: str) -> Path:
    """Of a file that is handed out.

    Args:
        folder: of the job.
        name: of one of its files; not from a request.
    """
    return folder / name if name == _RECORD else folder / "results" / name


def zipped(folder: Path, files: Sequence[JobFile]) -> Iterator[bytes]:
    """A zip of results, made as it is read.

    Args:
        folder: of the job.
        files: that go into it.
    """
    out = _Outlet()
    with zipfile.ZipFile(out, "w", allowZip64=True) as archive:
        for file in files:
            path = path_of(folder, file.name)
            entry = zipfile.ZipInfo.from_file(path, file.name, strict_timestamps=False)
            packed = path.suffix in _PACKED
            entry.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            with path.open("rb") as data, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := data.read(_CHUNK):
                    target.write(chunk)
                    yield out.taken()
    yield out.taken()


class _Outlet(io.RawIOBase):
    """Where a zip is written to that is not kept: what was written is taken from here."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        self._written += view
        return view.nbytes

    def taken(self) -> bytes:
        """What was written since the last time."""
        taken = bytes(self._written)
        self._written.clear()
        return taken
