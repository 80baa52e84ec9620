"""Results that go to object storage: written here, sent as they are whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from rooftrace.core.errors import RooftraceError
from rooftrace.flows.inputs import Job
from rooftrace.io.atomic import export_error, write_atomically
from rooftrace.io.objects import ObjectAddress, import_store, upload

__all__ = ["Delivery", "work_folder"]

_AT_ONCE = 2
_LAST = ("run.json", "manifest.json")
"""Who sees these finds all that they name."""

_KINDS = r"_(mask|buildings|polygons|preview|density)\.[a-z]+"
_SENT = ".sent.jsonl"


def work_folder(address: str) -> Path:
    """Where results of an address are written before they are sent: the same one each time, so that
    the same command goes on with a run that was stopped.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "rooftrace" / "runs" / hashlib.sha256(address.encode()).hexdigest()[:16]


class Delivery:
    """A folder of results, and where they go. To be entered.

    Files of an image are sent when it is done, while others are computed; `run.json` and the
    manifest last. What was sent is noted, and not sent again by a run that goes on. The folder is
    removed when all is there.

    Args:
        address: `s3://bucket/prefix`.
        work: the folder; default `work_folder`.

    Raises:
        DataError: it is no address.
        MissingExtraError: the extra `s3` is not installed.
    """

    def __init__(self, address: str, work: Path | None = None) -> None:
        import_store()
        self.address = ObjectAddress.parse(address)
        self.folder = work or work_folder(address)
        self._pool = ThreadPoolExecutor(_AT_ONCE, "send")
        self._sending: list[Future[None]] = []
        self._sent: dict[str, str] = {}
        self._failure: RooftraceError | None = None

    def __enter__(self) -> Delivery:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            notes = self.folder / _SENT
            for line in notes.read_text().splitlines() if notes.exists() else ():
                self._sent |= json.loads(line) if line.endswith("}") else {}
        except (OSError, ValueError) as error:
            raise export_error(self.folder, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, RooftraceError):
            # Of a run in which some images failed, what the others gave.
            self._finish(complete=error is None)
        else:
            self._pool.shutdown(cancel_futures=True)

    def done(self, job: Job, record: Mapping[str, Any]) -> None:
        """Send the files of an image; in another thread."""
        name = re.compile(re.escape(job.name) + _KINDS)
        output = record["output"]
        known = next(
            (Path(output[kind]) for kind in ("mask", "polygons", "preview") if output[kind]), None
        )
        if known is not None:
            for path in sorted(known.parent.iterdir()):
                if name.fullmatch(path.name):
                    self._sending.append(self._pool.submit(self._send, path))

    def shown(self, told: Any) -> Any:
        """What is told of files here, as of where they went; plain data."""
        if isinstance(told, str):
            here = f"{self.folder}{os.sep}"
            return str(self.address / told.removeprefix(here)) if told.startswith(here) else told
        if isinstance(told, Mapping):
            return {key: self.shown(value) for key, value in told.items()}
        if isinstance(told, list | tuple):
            return [self.shown(value) for value in told]
        return told

    def _finish(self, *, complete: bool) -> None:
        for future in self._sending:
            future.result()
        left = [path for path in sorted(self.folder.rglob("*")) if self._is_result(path)]
        for path in left:
            if path.name not in _LAST:
                self._sending.append(self._pool.submit(self._send, path))
        self._pool.shutdown(wait=True)
        for name in _LAST:
            for path in (one for one in left if one.name == name):
                told = self.shown(json.loads(path.read_bytes()))
                write_atomically(path, (json.dumps(told, indent=1) + "\n").encode())
                self._send(path)
        if self._failure is not None:
            raise self._failure
        if complete:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _is_result(self, path: Path) -> bool:
        inside = path.relative_to(self.folder)
        return path.is_file() and not any(part.startswith(".") for part in inside.parts)

    def _send(self, path: Path) -> None:
        if self._failure is not None:
            return
        name = path.relative_to(self.folder).as_posix()
        try:
            status = path.stat()
            version = f"{status.st_size} {status.st_mtime_ns}"
            if self._sent.get(name) == version:
                return
            upload(path, self.address / name)
            self._sent[name] = version
            with (self.folder / _SENT).open("a") as notes:
                notes.write(json.dumps({name: version}) + "\n")
        except OSError as error:
            self._failure = export_error(path, error)
        except RooftraceError as error:
            self._failure = error
