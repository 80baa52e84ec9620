"""Files that clients send and receive: the image of a request, and names and types of downloads.

The image is held in memory for a prediction, and on disk for a job. `UploadLimiter` shares the
places for uploads between clients.
"""

from __future__ import annotations

import logging
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

from fastapi import HTTPException, Request, Response
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from rooftrace.core.errors import BusyError, DataError, ExportError, TooLargeError
from rooftrace.io.files import DISK_FULL
from rooftrace.rest.problems import ProblemError
from rooftrace.service.decode import PLACED, UNNAMED

_WRITE_BYTES = 2**20
"""Bytes per write: chunks arrive more often, and each write needs another thread."""

_FORM_BYTES = 2**14
"""Bytes that a form may have besides its file. The parser limits the headers of a part."""

_LOG = logging.getLogger(__name__)

_RETRY_S = 60.0
"""Maximum number of seconds after which a refused client is asked to try again."""


class UploadLimiter:
    """Limit of the uploads in progress, shared fairly by the addresses of clients.

    The share of a client shrinks as places fill up: dynamic thresholds of Choudhury and Hahne,
    https://doi.org/10.1109/90.664262. A client gets a place unless it has more than are free, so
    that one client alone has half of them.

    It is used only in the event loop.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[str] = Counter()
        self._seconds = 1.0

    @contextmanager
    def place(self, request: Request) -> Iterator[None]:
        """Hold a place for one request."""
        client = "" if request.client is None else request.client.host
        with suppress(ValueError):
            # A client has all addresses of its network.
            if isinstance(address := ip_address(client), IPv6Address):
                client = str(address.ipv4_mapped or int(address) >> 64)
        of_client, total = self._taken[client], self._taken.total()
        if total >= self._limit or of_client > self._limit - total:
            # Clients that were refused together do not come back together.
            spread = random.uniform(0.75, 1.25)  # noqa: S311  # no secret
            raise BusyError(
                f"{total} of at most {self._limit} requests are in progress already, {of_client} "
                "of them from this address.",
                remedy="Retry in a few seconds.",
                # A quarter of the places is free again by then, on average.
                retry_after_s=min(self._seconds / 4 * spread, _RETRY_S),
            )
        self._taken[client] += 1
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds += (time.monotonic() - started - self._seconds) / 16
            self._taken[client] -= 1
            self._taken += Counter()


async def read_upload(request: Request, filename: str | None, max_bytes: int) -> tuple[bytes, str]:
    """Return the bytes of the image of a request, not empty, and its file name.

    Args:
        request: Request with the image as its body, or in the field `file` of a form.
        filename: Name of the image, if the client gave it as a parameter.
        max_bytes: Maximum size of the image.

    Raises:
        ProblemError: The body has another type, is a form without a file, or ends early.
        DataError: The image is empty.
        TooLargeError: The image has more than `max_bytes` bytes.
    """
    form = _form_of(request)
    chunks, size = [], 0
    async for data in _image_chunks(request, form):
        size += len(data)
        if size > max_bytes:
            raise TooLargeError(
                f"The image has more than the {max_bytes:,} bytes that one request may have.",
                remedy="Send a part of the image, or start a job for a large scene.",
            )
        chunks.append(data)
    if not size:
        raise _empty()
    return b"".join(chunks), filename or (form and form.name) or UNNAMED


async def save_upload(request: Request, path: Path, max_bytes: int) -> str:
    """Write the image of a request to disk while it arrives; it may be larger than the memory.

    Returns:
        File name in the form, or "" without one.

    Raises:
        ProblemError: The body has another type, is a form without a file, or ends early.
        DataError: The image is empty.
        TooLargeError: The image has more than `max_bytes` bytes.
        HTTPException: The disk is full, or cannot be written.
    """
    form = _form_of(request)
    content_length = request.headers.get("content-length", "")
    if content_length.isdecimal():
        if int(content_length) > max_bytes + (_FORM_BYTES if form else 0):
            raise _scene_too_large(max_bytes)
        try:
            free = shutil.disk_usage(path.parent).free
        except OSError as error:
            raise cannot_store(error) from error
        if int(content_length) > free:
            raise disk_full()
    size, buffer = 0, bytearray()
    try:
        with path.open("xb") as file:
            async for data in _image_chunks(request, form):
                size += len(data)
                if size > max_bytes:
                    raise _scene_too_large(max_bytes)
                buffer += data
                if len(buffer) >= _WRITE_BYTES:
                    await run_in_threadpool(file.write, bytes(buffer))
                    buffer.clear()
            await run_in_threadpool(file.write, bytes(buffer))
    except OSError as error:
        raise cannot_store(error) from error
    if not size:
        raise _empty()
    return form.name if form else ""


def _form_of(request: Request) -> _FormParser | None:
    """Return the parser of a body that is a form, or None for an image."""
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    if kind == b"multipart/form-data":
        return _FormParser(parameters.get(b"boundary", b""))
    if kind.startswith(b"image/") or kind == b"application/octet-stream":
        return None
    received = f"has the type {kind.decode('latin-1')!r}" if kind else "has no Content-Type"
    raise ProblemError(
        "unsupported-media-type",
        f"The body {received}; multipart/form-data, image/… or application/octet-stream was "
        "expected.",
    )


async def _image_chunks(request: Request, form: _FormParser | None) -> AsyncIterator[bytes]:
    """Yield the bytes of the image while the body arrives."""
    try:
        async for chunk in request.stream():
            yield form.feed(chunk) if form else chunk
    except ClientDisconnect as error:
        raise ProblemError("bad-request", "The upload broke off.") from error
    if form:
        form.end()


class _FormParser:
    """Incremental parser of a form with one file (RFC 7578)."""

    def __init__(self, boundary: bytes) -> None:
        self.name = ""
        self._files = 0
        self._header, self._value, self._disposition = bytearray(), bytearray(), b""
        self._data: list[bytes] = []
        self._ended = False
        if not boundary:
            raise _unreadable("it has no boundary")
        callbacks: Any = {
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": lambda data, start, end: self._data.append(data[start:end]),
            "on_end": partial(setattr, self, "_ended", True),
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise _unreadable(str(error).rstrip(".")) from error

    def feed(self, chunk: bytes) -> bytes:
        """Parse a chunk; return the bytes of the file in it."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _unreadable(str(error).rstrip(".")) from error
        data = b"".join(self._data)
        self._data.clear()
        return data

    def end(self) -> None:
        """Check that the form is complete and has a file."""
        if not self._ended:
            raise _unreadable("it breaks off")
        if not self._files:
            raise _wrong_field("file", "The form has no field file; a file was expected.")

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._disposition = b""
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != "file":
            message = f"The form has the field {field!r}; only file was expected."
            if b"filename" in options:
                raise _wrong_field(field, message)
            raise _wrong_field(
                field, message, "Send options as query parameters, such as ?threshold=0.4."
            )
        if b"filename" not in options:
            raise _wrong_field("file", "The field file is a string; a file was expected.")
        self._files += 1
        if self._files > 1:
            raise _wrong_field(
                "file", "The form has several files; one was expected.",
                f"Send each image in a request of its own. {PLACED}",
            )  # fmt: skip
        self.name = options[b"filename"].decode("utf-8", "replace")


def _unreadable(why: str) -> ProblemError:
    return ProblemError("bad-request", f"The form cannot be read: {why}.")


def _wrong_field(
    name: str,
    message: str,
    remedy: str = "Send the image as a file, for example with curl -F file=@scene.tif.",
) -> ProblemError:
    entry = {"parameter": name, "in": "body", "message": message}
    return ProblemError("invalid-request", message, remedy=remedy, errors=[entry])


def _empty() -> DataError:
    return DataError("The upload is empty.", remedy="Send the bytes of an image.")


def cannot_store(error: OSError | ExportError, what: str = "image") -> HTTPException:
    """Return the error of a file that the server cannot write, and log the reason."""
    # The reason names a folder of the server, which is not for clients.
    _LOG.error("the %s cannot be stored: %s", what, error)
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError) and cause.errno in DISK_FULL:
        return disk_full(what)
    return HTTPException(507, f"The server cannot store the {what}.")


def disk_full(what: str = "image") -> HTTPException:
    """Return the error of a file that does not fit on the disk."""
    return HTTPException(507, f"The server has no room for the {what}.")


def _scene_too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"The image has more than the {max_bytes:,} bytes that the server accepts.",
        remedy="Send the scene in parts, or compressed.",
    )


_BINARY = "application/octet-stream"

MEDIA_TYPES = {
    ".tif": "image/tiff", ".png": "image/png", ".gpkg": "application/geopackage+sqlite3",
    ".geojson": "application/geo+json", ".pmtiles": "application/vnd.pmtiles",
    ".kmz": "application/vnd.google-earth.kmz", ".json": "application/json", ".html": "text/html",
    ".csv": "text/csv", ".osm": "application/vnd.openstreetmap.data+xml",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".zip": "application/zip", ".fgb": "application/flatgeobuf",
    ".parquet": "application/vnd.apache.parquet",
}  # fmt: skip
"""Media types of results by suffix, independent of the machine's own table."""


VectorFormat = Literal[
    "gpkg", "geojson", "fgb", "parquet", "shp.zip", "csv", "xlsx", "kmz", "osm", "pmtiles"
]
"""Endings of the names of files with buildings."""

VECTOR_TYPES = tuple(MEDIA_TYPES[Path(f"x.{one}").suffix] for one in get_args(VectorFormat))


def media_type_of(name: str) -> str:
    """Return the media type of a result file."""
    return MEDIA_TYPES.get(Path(name).suffix, _BINARY)


RANGE_RESPONSES: dict[int | str, dict[str, Any]] = {
    206: {"description": "The range that the header Range asks for"},
    304: {"description": "The client has the file already, by its ETag"},
}


def ranged_response(
    request: Request, data: bytes, media_type: str, headers: Mapping[str, str]
) -> Response:
    """Return a file, or its range that a request asks for (RFC 9110, section 14).

    Of a request for several ranges, all is returned.

    Raises:
        ProblemError: The range is not in the file.
    """
    headers, size = {**headers, "Accept-Ranges": "bytes"}, len(data)
    asked = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", request.headers.get("range", ""))
    is_same = request.headers.get("if-range", headers["ETag"]) == headers["ETag"]
    first, last = ("", "") if asked is None else asked.groups()
    is_reversed = bool(first and last) and int(first) > int(last)
    if not (first or last) or is_reversed or not is_same:
        return Response(data, media_type=media_type, headers=headers)
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last) + 1, size) if first and last else size
    if start >= stop:
        headers = {"Content-Range": f"bytes */{size}"}
        message = f"The range is not in the file of {size:,} bytes."
        raise ProblemError("unsatisfiable-range", message, headers=headers)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Response(data[start:stop], 206, headers, media_type)


_NOT_QUOTABLE = re.compile(r'[^ -~]|["%\\]')
"""Characters that browsers read in different ways in the quoted name of a download: those that are
not printable ASCII, quotes, percent signs and backslashes (RFC 6266, appendix D)."""


def content_disposition(
    name: str, kind: Literal["attachment", "inline"] = "attachment", *, plain: str = ""
) -> str:
    """Return the value of the header Content-Disposition (RFC 6266) for a name in any script.

    Args:
        name: Name of the file.
        kind: `attachment` for a download, `inline` for a file that a browser shows.
        plain: Name for programs that read only ASCII, such as curl, where `name` has other
            characters; default `name` with `_` in place of each of them.
    """
    ascii_name = _NOT_QUOTABLE.sub("_", name)
    if ascii_name == name:
        return f'{kind}; filename="{name}"'
    encoded = quote(name, safe="")
    return f"{kind}; filename=\"{plain or ascii_name}\"; filename*=UTF-8''{encoded}"
