"""Results in object storage: written to a local folder, and uploaded when they are complete."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rooftrace.core.errors import RooftraceError
from rooftrace.core.system import user_folder
from rooftrace.flows.predict.inputs import SceneInput
from rooftrace.flows.predict.run_folder import Results, with_paths
from rooftrace.io.files import export_error, write_json
from rooftrace.io.remote import ObjectAddress, import_store, upload
from rooftrace.predict.plan import RESULT_FILES

_UPLOADS = 2
"""Number of files that are uploaded at the same time."""

_LAST = ("run.json", "manifest.json")
"""Files that are uploaded last: where they exist, all files that they name exist too."""

_SENT = ".sent.jsonl"
"""File that lists the uploaded files with their versions."""


def work_folder(url: str) -> Path:
    """Return the local folder in which results are written before they are uploaded.

    It is the same for each run with this URL, so that the same command resumes a stopped run.

    Args:
        url: `s3://bucket/prefix`.
    """
    return user_folder("cache") / "runs" / hashlib.sha256(url.encode()).hexdigest()[:16]


class Delivery(Results):
    """Local folder of results that are uploaded to object storage. Use it in a `with` block.

    The files of an image are uploaded when it is finished, while other images are computed;
    `run.json` and the manifest are uploaded last. Uploaded files are recorded, so that a resumed
    run does not upload them again. The folder is removed when all files are uploaded.

    Args:
        url: `s3://bucket/prefix`.
        work: Local folder; default: `work_folder`.

    Raises:
        DataError: The URL is not one of object storage.
        MissingExtraError: The extra `s3` is not installed.
    """

    is_remote = True

    def __init__(self, url: str, work: Path | None = None) -> None:
        import_store()
        self.address = ObjectAddress.parse(url)
        super().__init__(work or work_folder(url))
        self._pool = ThreadPoolExecutor(_UPLOADS, "send")
        self._sending: list[Future[None]] = []
        self._sent: dict[str, str] = {}
        self._failure: RooftraceError | None = None

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            notes = self.folder / _SENT
            for line in notes.read_bytes().decode().splitlines() if notes.exists() else ():
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
        try:
            # If some images failed, the results of the others are uploaded.
            if error is None or isinstance(error, RooftraceError):
                self._finish()
        except RooftraceError as failure:
            if not isinstance(error, RooftraceError):
                raise
            # A note would be in the traceback alone, which no command shows.
            error.message = f"{error.message} {failure}"
        finally:
            self._pool.shutdown(cancel_futures=True)
        if error is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def on_done(self, scene: SceneInput, record: Mapping[str, Any]) -> None:
        """Upload the files of an image, in another thread."""
        for kind, endings in RESULT_FILES.items():
            made = record["output"][kind]
            for ending in endings if made else ():
                path = Path(made).with_name(f"{scene.name}{ending}")
                if path.exists():
                    self._sending.append(self._pool.submit(self._send, path))

    def shown(self, value: Any) -> Any:
        """Return plain data in which local paths are replaced by their URLs."""
        return with_paths(value, self.folder, lambda file: str(self.address / file))

    def _finish(self) -> None:
        """Upload what is left.

        Raises:
            ExportError: A file could not be uploaded, or the folder cannot be read.
        """
        for future in self._sending:
            future.result()
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        hidden = {path for path in paths if "/." in f"/{path.relative_to(self.folder).as_posix()}"}
        left = [path for path in paths if path not in hidden]
        for path in left:
            if path.name not in _LAST:
                self._sending.append(self._pool.submit(self._send, path))
        self._pool.shutdown(wait=True)
        for name in _LAST:
            for path in (one for one in left if one.name == name):
                write_json(path, self.shown(json.loads(path.read_bytes())))
                self._send(path)
        if self._failure is not None:
            raise self._failure

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
