"""The upload of a job, to disk as it comes: it may be larger than the memory."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from rooftrace.core.errors import DataError, TooLargeError
from rooftrace.rest.problems import ProblemError

__all__ = ["receive"]

_WRITE_BYTES = 2**20
"""Written at a time: less often than chunks come, since each time another thread is asked."""

_FORM_BYTES = 2**14
"""That a form may have around its file; the parser limits the headers of a part."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


async def receive(request: Request, path: Path, most_bytes: int) -> str:
    """Write the image that a request brings, and tell what it is called there.

    Args:
        request: with the image as its body, or in the field `file` of a form.
        path: of the file to make.
        most_bytes: that the image may have.

    Returns:
        Its name in the form; "" where there is none.

    Raises:
        ProblemError: the body is of another kind, a form without a file, or breaks off.
        DataError: it is empty.
        TooLargeError: it has more bytes than may be.
        HTTPException: there is no room for it.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    announced = request.headers.get("content-length", "")
    if kind == b"multipart/form-data":
        form = _Form(parameters.get(b"boundary", b""))
        parse: Callable[[bytes], bytes] = form.feed
        most_announced = most_bytes + _FORM_BYTES
    elif kind.startswith(b"image/") or kind == b"application/octet-stream":
        form, parse, most_announced = None, bytes, most_bytes
    else:
        told = f"has the type {kind.decode('latin-1')!r}" if kind else "has no Content-Type"
        raise ProblemError(
            "unsupported-media-type",
            f"The body {told}; multipart/form-data, image/… or application/octet-stream was "
            "expected.",
        )
    if announced.isdecimal() and int(announced) > most_announced:
        raise _too_large(most_bytes)
    if announced.isdecimal() and int(announced) > shutil.disk_usage(path.parent).free:
        raise _no_room()
    try:
        size = await _write(request, path, parse, most_bytes)
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise _no_room() from error
    except ClientDisconnect as error:
        raise ProblemError("bad-request", "The upload broke off.") from error
    if form is not None:
        form.end()
    if not size:
        raise DataError("The upload is empty.", remedy="Send the bytes of an image.")
    return "" if form is None else form.name


async def _write(
    request: Request, path: Path, parse: Callable[[bytes], bytes], most_bytes: int
) -> int:
    """Write what `parse` makes of the body; how many bytes that were."""
    size, waiting = 0, bytearray()
    with path.open("xb") as file:
        async for chunk in request.stream():
            part = parse(chunk)
            size += len(part)
            if size > most_bytes:
                raise _too_large(most_bytes)
            waiting += part
            if len(waiting) >= _WRITE_BYTES:
                await run_in_threadpool(file.write, bytes(waiting))
                waiting.clear()
        await run_in_threadpool(file.write, bytes(waiting))
    return size


def _no_room() -> HTTPException:
    return HTTPException(507, "The server has no room for the image.")


def _too_large(most_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"The image has more than the {most_bytes:,} bytes that are taken.",
        remedy="Send the scene in parts, or compressed.",
    )


class _Form:
    """A form with one file, read as it comes (RFC 7578).

    Args:
        boundary: between its parts.
    """

    def __init__(self, boundary: bytes) -> None:
        self.name = ""
        self._files = 0
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._data: list[bytes] = []
        self._ended = False
        if not boundary:
            raise _unreadable("it has no boundary")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_to_header,
                    "on_header_value": self._add_to_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._add_data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _unreadable(str(error).rstrip(".")) from error

    def feed(self, chunk: bytes) -> bytes:
        """Read on; what of the file came with it."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _unreadable(str(error).rstrip(".")) from error
        data = b"".join(self._data)
        self._data.clear()
        return data

    def end(self) -> None:
        """Check that all of it has come, with a file in it."""
        if not self._ended:
            raise _unreadable("it breaks off")
        if not self._files:
            raise _wrong_field("file", "The form has no field file; a file was expected.")

    def _begin_part(self) -> None:
        self._disposition = b""

    def _add_to_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != "file":
            raise _wrong_field(
                field, f"The form has the field {field!r}; only file was expected.",
                "Send options as parameters of the address, such as ?threshold=0.4.",
            )  # fmt: skip
        if b"filename" not in options:
            raise _wrong_field("file", "The field file is a text; a file was expected.")
        self._files += 1
        if self._files > 1:
            raise _wrong_field(
                "file", "The form has several files; one was expected.", "Send a job for each."
            )
        self.name = options[b"filename"].decode("utf-8", "replace")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end(self) -> None:
        self._ended = True


def _unreadable(why: str) -> ProblemError:
    return ProblemError("bad-request", f"The form cannot be read: {why}.")


def _wrong_field(
    name: str,
    message: str,
    remedy: str = "Send it as a file, such as curl -F file=@scene.tif does.",
) -> ProblemError:
    told = {"parameter": name, "in": "body", "message": message}
    return ProblemError("invalid-request", message, remedy=remedy, errors=[told])
