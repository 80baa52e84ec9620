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
"""Paths of Gradio that the page uses. Others write to disk, call URLs, or fail."""

_UPLOAD = "/gradio_api/upload"
_JOIN = "/gradio_api/queue/join"

MAX_AGE_S = 3600
"""Age in seconds at which uploads are removed."""

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


def make_room(folder: Path, nbytes: int, max_bytes: int) -> None:
    """Remove old uploads, also those that were cut off, and check the room for another upload.

    Args:
        folder: Folder of all uploads.
        nbytes: Size of the uploads that are expected.
        max_bytes: Maximum size of all uploads.

    Raises:
        BusyError: The files of other uploads take the space.
        HTTPException: The disk is full.
    """
    held = 0
    for path in folder.rglob("*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if path.is_dir():
            continue
        if time.time() - stat.st_mtime > MAX_AGE_S:
            path.unlink(missing_ok=True)
        else:
            held += max(stat.st_size, _MIN_FILE_BYTES)
    if held + nbytes > max_bytes:
        raise BusyError(
            f"The images that were dropped on the page take {held:,} bytes, and those being "
            f"uploaded up to {nbytes:,}; at most {max_bytes:,} are kept.",
            remedy="Retry in some minutes.",
            retry_after_s=60,
        )
    if nbytes > shutil.disk_usage(folder).free:
        raise disk_full()


class UploadMiddleware:
    """Let only requests through to Gradio that the page sends, and limit its uploads.

    Args:
        app: Gradio's app.
        folder: Folder of the uploads.
        limiter: Limiter of the uploads in progress.
        upload_bytes: Size of an upload that does not state its size.
        max_bytes: Maximum size of all uploads.
    """

    def __init__(
        self, app: ASGIApp, folder: Path, limiter: UploadLimiter, upload_bytes: int, max_bytes: int
    ) -> None:
        self._app = app
        self._folder = folder
        self._limiter = limiter
        self._upload_bytes, self._max_bytes = upload_bytes, max_bytes
        self._expected = 0

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
            await self._respond(request, receive, send_and_note)
        except Exception as error:
            if started:
                # The connection ends; no client is left that could read an error.
                _LOG.warning("the response to %r broke off: %r", scope["path"], error)
                return
            response = await respond(request, _problem(request, error))
            await response(scope, receive, send)

    async def _respond(self, request: Request, receive: Receive, send: Send) -> None:
        path = request.url.path
        if not _USED.fullmatch(path):
            raise HTTPException(404)
        if path != _UPLOAD or request.method != "POST":
            await self._app(request.scope, receive, send)
            return
        length = request.headers.get("content-length", "")
        nbytes = int(length) if length.isdecimal() else self._upload_bytes
        with self._limiter.place(request):
            self._expected += nbytes
            try:
                await run_in_threadpool(make_room, self._folder, self._expected, self._max_bytes)
                await self._app(request.scope, receive, send)
            finally:
                self._expected -= nbytes


def _problem(request: Request, error: Exception) -> Exception:
    """Return the error to respond with."""
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
