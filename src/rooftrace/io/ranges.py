"""Parts of a file on a web server, fetched by range requests (RFC 9110, section 14), or in object
storage.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from rooftrace.io.objects import ObjectError, ObjectFile, is_object_url

__all__ = ["RangeError", "RangeReader", "Retry", "Traffic", "without_query"]

_CHUNK_BYTES = 2**15
_CHUNKS_HELD = 256
"""Of small reads, of a header and of where blocks lie: 8 MB."""

_JOINED_ACROSS_BYTES = 2**14
"""Ranges with a smaller gap are asked for as one."""

_AT_ONCE = 4
_LONGEST_WAIT_S = 30.0
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class RangeError(Exception):
    """A server does not give what it was asked for.

    Args:
        reason: what it did instead.
        remedy: what the person can do.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True)
class Retry:
    """How long a server is asked again.

    Args:
        attempts: in all, the first one included.
        delay_s: before the second; each time it doubles.
        timeout_s: without a byte from the server.
    """

    attempts: int = 6
    delay_s: float = 0.5
    timeout_s: float = 20.0


@dataclass(frozen=True)
class Traffic:
    """What has been asked of a server.

    Args:
        requests: the repeated ones included.
        repeated: that had failed before.
        nbytes: that came, without headers.
    """

    requests: int = 0
    repeated: int = 0
    nbytes: int = 0


class RangeReader:
    """One file on a server, by ranges of bytes; several threads may ask.

    It can be pickled: the copy counts for itself.

    Args:
        url: http, https or s3.
        retry: how failures that may pass are met.

    Raises:
        DataError, MissingExtraError: as `ObjectFile`, of an address of object storage.
    """

    def __init__(self, url: str, retry: Retry | None = None) -> None:
        self.url = url
        # Each machine takes its own credentials, which are not in the pickle.
        self._object = ObjectFile(url) if is_object_url(url) else None
        self._retry = retry or Retry()
        self._lock = threading.Lock()
        self._chunks: OrderedDict[int, bytes] = OrderedDict()
        self._size: int | None = None
        self._version: str | None = None
        self._traffic = Traffic()

    def __reduce__(self) -> tuple[object, ...]:
        return (RangeReader, (self.url, self._retry))

    @property
    def traffic(self) -> Traffic:
        return self._traffic

    @property
    def size(self) -> int:
        """Of the whole file, in bytes.

        Raises:
            RangeError: as in `read`.
        """
        if self._size is None:
            self.read(0, _CHUNK_BYTES)
        assert self._size is not None
        return self._size

    @property
    def version(self) -> str:
        """Size and entity tag of the file, as far as the server told.

        Raises:
            RangeError: as in `read`.
        """
        return f"{self.size} bytes {self._version or ''}"

    def read(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop), fewer where the file ends before.

        Raises:
            RangeError: the server gives another answer than a range of the file as it was first
                seen, or none, however often it is asked.
        """
        if self._size is not None:
            stop = min(stop, self._size)
        if stop <= start:
            return b""
        if stop - start > _CHUNK_BYTES * _CHUNKS_HELD // 4:
            return self._fetch(start, stop)
        first, last = start // _CHUNK_BYTES, (stop - 1) // _CHUNK_BYTES
        with self._lock:
            held = {number: self._chunks.get(number) for number in range(first, last + 1)}
            for number in held.keys() & self._chunks.keys():
                self._chunks.move_to_end(number)
        missing = [number for number, chunk in held.items() if chunk is None]
        if missing:
            begin = missing[0] * _CHUNK_BYTES
            body = self._fetch(begin, (missing[-1] + 1) * _CHUNK_BYTES)
            for number in range(missing[0], missing[-1] + 1):
                at = number * _CHUNK_BYTES - begin
                held[number] = body[at : at + _CHUNK_BYTES]
            self._hold({number: held[number] or b"" for number in missing})
        joined = b"".join(chunk or b"" for chunk in held.values())
        return joined[start - first * _CHUNK_BYTES : stop - first * _CHUNK_BYTES]

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of several ranges [start, stop), those that lie close in one request.

        Raises:
            RangeError: as in `read`.
        """
        joined: list[list[int]] = []
        for start, stop in sorted(ranges):
            if joined and start - joined[-1][1] <= _JOINED_ACROSS_BYTES:
                joined[-1][1] = max(joined[-1][1], stop)
            else:
                joined.append([start, stop])
        with ThreadPoolExecutor(_AT_ONCE, "ranges") as pool:
            bodies = list(pool.map(lambda span: self._fetch(*span), joined))
        found = {}
        spans = iter(zip(joined, bodies))
        (begin, end), body = next(spans)
        for start, stop in sorted(ranges):
            while start >= end:
                (begin, end), body = next(spans)
            found[start, stop] = body[start - begin : stop - begin]
        return [found[span] for span in ranges]

    def _hold(self, chunks: dict[int, bytes]) -> None:
        with self._lock:
            self._chunks.update(chunks)
            while len(self._chunks) > _CHUNKS_HELD:
                self._chunks.popitem(last=False)

    def _fetch(self, start: int, stop: int) -> bytes:
        delay_s, reason = self._retry.delay_s, ""
        for attempt in range(self._retry.attempts):
            if attempt:
                time.sleep(min(delay_s, _LONGEST_WAIT_S))
                delay_s *= 2
            self._count(requests=1, repeated=int(attempt > 0))
            try:
                return self._ask(start, stop)
            except ObjectError as error:
                reason = error.reason
                if not error.passing:
                    raise RangeError(reason, error.remedy) from None
            except urllib.error.HTTPError as error:
                error.close()
                reason = f"the server answered {error.code} {error.reason}"
                if error.code not in _AGAIN:
                    raise RangeError(reason, _remedy_for(error.code)) from error
                delay_s = max(delay_s, _wanted_wait_s(error))
            except urllib.error.URLError as error:
                reason = f"the server cannot be reached: {_cause_of(error)}"
                if self._size is None and isinstance(
                    error.reason, ConnectionRefusedError | socket.gaierror
                ):
                    raise RangeError(
                        reason, "Check the address, and whether there is a way to it."
                    ) from error
            except (OSError, http.client.HTTPException) as error:
                reason = f"the answer broke off: {_cause_of(error)}"
        raise RangeError(
            f"{reason} ({self._retry.attempts} times, bytes {start} to {stop})",
            "Run it again later, or download the file and name that.",
        )

    def _ask(self, start: int, stop: int) -> bytes:
        if self._object is not None:
            body, size, version = self._object.ask(start, stop)
            self._check_same(size, version)
            self._count(nbytes=len(body))
            return body
        request = urllib.request.Request(  # noqa: S310
            quote(self.url, safe="/:?#[]@!$&'()*+,;=%"),
            headers={
                "Range": f"bytes={start}-{stop - 1}",
                "Accept-Encoding": "identity",
                "User-Agent": "rooftrace",
            },
        )
        with urllib.request.urlopen(request, timeout=self._retry.timeout_s) as answer:  # noqa: S310
            told = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status != http.client.PARTIAL_CONTENT or told is None:
                raise RangeError(
                    "the server does not give parts of files (it knows no range requests)",
                    "Download the file, and name that.",
                )
            size = int(told[3])
            self._check_same(size, answer.headers.get("ETag", ""))
            body = bytes(answer.read())
        self._count(nbytes=len(body))
        expected = min(stop, size) - start
        if int(told[1]) != start or len(body) != expected:
            raise ConnectionError(f"{len(body)} bytes came, {expected} were expected")
        return body

    def _check_same(self, size: int, version: str) -> None:
        with self._lock:
            if self._size is None:
                self._size, self._version = size, version
            same = (size, version) == (self._size, self._version)
        if not same:
            raise RangeError(
                f"the file was changed on the server while it was read ({self._size} bytes before,"
                f" {size} now)",
                "Begin again, into another folder.",
            )

    def _count(self, requests: int = 0, repeated: int = 0, nbytes: int = 0) -> None:
        with self._lock:
            old = self._traffic
            self._traffic = Traffic(
                old.requests + requests, old.repeated + repeated, old.nbytes + nbytes
            )


def _wanted_wait_s(error: urllib.error.HTTPError) -> float:
    wanted = error.headers.get("Retry-After", "")
    return min(float(wanted), _LONGEST_WAIT_S) if wanted.isdecimal() else 0.0


def _remedy_for(status: int) -> str:
    if status in (401, 403):
        return "Use an address that you may read without signing in, or download the file."
    if status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        return "Check that the file is not empty."
    return "Check the address."


def _cause_of(error: Exception) -> str:
    cause = getattr(error, "reason", error)
    text = " ".join(str(cause).split()) or type(cause).__name__
    return text.removesuffix(".")


def without_query(url: str) -> str:
    """An address as it may be shown: what follows `?` is often a key, and so is a user's name."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
