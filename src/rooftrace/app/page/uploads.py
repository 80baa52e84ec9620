"""Limits on what Gradio accepts: its routes, and the space of the files dropped on the page.

Gradio has many routes that the page does not use, fails on requests that the page does not send,
and keeps any number of files for an hour.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from fastapi import HTTPException
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rooftrace.core.errors import BusyError, RooftraceError
from rooftrace.io.files import DISK_FULL
from rooftrace.rest.problems import PROBLEMS, ProblemError, respond
from rooftrace.rest.upload import UploadLimiter, disk_full

_USED = re.compile(
    r"/(config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|(assets|static|svelte)/.*"
    r"|gradio_api/(cancel|info|reset|startup-events|theme\.css|upload|upload_progress"
    r"|queue/(data|join)|heartbeat/[^/]+|file=.*))?"
)
"""Paths of Gradio that the page uses. Others write to disk, call addresses, or fail."""

_UPLOAD = "/gradio_api/upload"
_JOIN = "/gradio_api/queue/join"

_KEPT_S = 120.0
"""Seconds for which a file is not removed to make room, so that it can be predicted first."""

_MIN_FILE_BYTES = 2**16
"""Bytes that a file counts at least, which limits the number of small files."""

_LOG = logging.getLogger(__name__)


@cache
def folder_of_process() -> Path:
    """Return the folder of Gradio's files, which is removed when the process ends.

    Gradio reads its name from the environment, so a process has one. Gradio's own default is a
    folder that all programs of this machine share.
    """
    folder = Path(tempfile.mkdtemp(prefix="rooftrace-uploads-", dir=os.getenv("GRADIO_TEMP_DIR")))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class UploadFolder:
    """Limit of the space of uploaded files.

    Files of uploads that were cut off are removed after two minutes. Other files are removed when
    room is needed, the oldest first.

    Args:
        path: Folder of the files.
        max_bytes: Maximum size of all files in bytes.
        max_age_s: Age in seconds at which files are removed.
    """

    def __init__(self, path: Path, max_bytes: int, max_age_s: float) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._expected = 0

    async def reserve(self, nbytes: int) -> None:
        """Make room for an upload of `nbytes` bytes at most; call `release` at its end.

        Raises:
            BusyError: The files of other uploads take the space.
            HTTPException: The disk is full.
        """
        self._expected += nbytes
        try:
            await run_in_threadpool(self._make_room, self._expected)
        except BaseException:
            self._expected -= nbytes
            raise

    def release(self, nbytes: int) -> None:
        """End the reservation of an upload."""
        self._expected -= nbytes

    def _make_room(self, expected: int) -> None:
        now = time.time()
        files = sorted(self._files())
        held = sum(size for _, size, _ in files)
        for changed_s, size, path in files:
            age_s = now - changed_s
            # Gradio moves a complete file into a folder that is named after its content.
            is_cut_off = path.parent == self.path and age_s > _KEPT_S
            is_in_the_way = held + expected > self._max_bytes and age_s > _KEPT_S
            if is_cut_off or is_in_the_way or age_s > self._max_age_s:
                path.unlink(missing_ok=True)
                held -= size
        if held + expected > self._max_bytes:
            raise BusyError(
                f"The images that were dropped on the page take {held:,} bytes, and those on their "
                f"way up to {expected:,}; at most {self._max_bytes:,} are kept.",
                remedy="Retry in a minute.",
                retry_after_s=_KEPT_S / 2,
            )
        if expected > shutil.disk_usage(self.path).free:
            raise disk_full()

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Yield time of change, counted size and path of each file; remove empty folders."""
        for folder, folders, names in os.walk(self.path, topdown=False):
            for name in names:
                path = Path(folder, name)
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue
                yield stat.st_mtime, max(stat.st_size, _MIN_FILE_BYTES), path
            if not names and not folders and Path(folder) != self.path:
                # An upload that has just come keeps the folder.
                with suppress(OSError):
                    Path(folder).rmdir()


class UploadMiddleware:
    """Let only requests through to Gradio that the page sends, and limit its uploads.

    Args:
        app: Gradio's app.
        folder: Folder of the uploads.
        limiter: Limiter of the uploads in progress.
        max_bytes: Size of an upload that does not say its size.
    """

    def __init__(
        self, app: ASGIApp, folder: UploadFolder, limiter: UploadLimiter, max_bytes: int
    ) -> None:
        self._app = app
        self._folder = folder
        self._limiter = limiter
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        request = Request(scope)
        try:
            await self._answer(request, receive, send_and_note)
        except Exception as error:
            if started:
                # The connection ends; no client is left that could read an error.
                _LOG.warning("the answer to %r broke off: %r", scope["path"], error)
                return
            answer = await respond(request, _known(request, error))
            await answer(scope, receive, send)

    async def _answer(self, request: Request, receive: Receive, send: Send) -> None:
        path = request.url.path
        if not _USED.fullmatch(path):
            raise HTTPException(404)
        if path != _UPLOAD or request.method != "POST":
            await self._app(request.scope, receive, send)
            return
        length = request.headers.get("content-length", "")
        nbytes = int(length) if length.isdecimal() else self._max_bytes
        with self._limiter.place(request):
            await self._folder.reserve(nbytes)
            try:
                await self._app(request.scope, receive, send)
            finally:
                self._folder.release(nbytes)


def _known(request: Request, error: Exception) -> Exception:
    """Return the error to answer with."""
    if isinstance(error, RooftraceError | HTTPException | ProblemError):
        return error
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return disk_full()
    if isinstance(error, ClientDisconnect):
        return ProblemError("bad-request", "The upload broke off.")
    if request.url.path == _JOIN:
        # This route only looks up what the body names.
        return ProblemError("bad-request", "The request is not what the page sends.")
    _LOG.error("%s %r failed", request.method, request.url.path, exc_info=error)
    return ProblemError("server-error", PROBLEMS["server-error"].meaning)
