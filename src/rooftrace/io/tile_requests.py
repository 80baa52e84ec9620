"""Requests for the tiles of a map service: limited, repeated where they fail, and cached on disk.

A client makes few requests at a time, and starts one only some time after the one before. A pause
that a server asks for (RFC 9110, section 10.2.3) stops all of them.

https://operations.osmfoundation.org/policies/tiles/ is an example of what servers expect.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from rooftrace.core.errors import ExportError, ServiceError
from rooftrace.io.files import write_atomically
from rooftrace.io.map_service import without_secrets
from rooftrace.io.remote import (
    TRANSIENT_STATUSES,
    RemoteError,
    Retry,
    Traffic,
    check,
    repeated,
    requested,
)
from rooftrace.io.service_options import ServiceOptions

if TYPE_CHECKING:
    import httpx

_MAX_AGE_S = 30 * 86400.0
_MAX_AGE_MISSING_S = 86400.0
"""Age in seconds from which a cached tile, and a tile that did not exist, is requested again."""

_KEPT_SHARE = 0.9
"""Share of the cache's limit that is kept when old tiles are removed."""

_MISSING = frozenset({204, 404, 410})
_REFUSED = frozenset({401, 402, 403, 407, 451})

_IMAGE = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|II\*\x00|MM\x00\*|II\+\x00|MM\x00\+|GIF8|BM|RIFF....WEBP",
    re.S,
)
"""First bytes of PNG, JPEG, TIFF, BigTIFF, GIF, BMP and WebP."""


class TileRequests(Traffic):
    """Client for the tiles of one service; several threads and processes may use the same cache.

    A tile that does not exist is remembered, too. It can be pickled; the copy has its own counters.
    """

    def __init__(self, name: str, options: ServiceOptions) -> None:
        super().__init__()
        self.name = name
        self.options = options
        self._cache = _Cache(options.folder, options.cache_bytes)
        self._pace = _Pace()
        self._answered = False

    def __reduce__(self) -> tuple[object, ...]:
        return (TileRequests, (self.name, self.options))

    def is_cached(self, url: str) -> bool:
        """Return True if a tile is in the cache, so that it is not requested."""
        return self._cache.get(url) is not None

    def fetch(self, urls: Iterable[str]) -> dict[str, bytes]:
        """Return the tiles at URLs, from the cache or from the server; b"" where none exists.

        Raises:
            ServiceError: The service refuses, does not answer or sends something else than images.
        """
        cached = {url: self._cache.get(url) for url in dict.fromkeys(urls)}
        found = {url: data for url, data in cached.items() if data is not None}
        missing = [url for url in cached if url not in found]
        if not missing:
            return found
        stopped = threading.Event()

        def one(url: str) -> bytes | None:
            if stopped.is_set():
                return None
            try:
                data = self._request(url)
            except BaseException:
                stopped.set()
                raise
            # A full disk loses the cache, not the run.
            with suppress(ExportError):
                self._cache.put(url, data)
            return data

        with ThreadPoolExecutor(min(self.options.connections, len(missing)), "tiles") as pool:
            futures = [pool.submit(one, url) for url in missing]
        # All have ended: what arrived before an error is in the cache.
        return found | {url: future.result() or b"" for url, future in zip(missing, futures)}

    def _request(self, url: str) -> bytes:
        options = self.options

        def ask(attempt: int) -> bytes:
            self._pace.wait(1 / options.per_second)
            self.count(requests=1, repeated=int(attempt > 0))
            agent = {"User-Agent": options.agent}
            with requested(
                url, agent, timeout_s=options.timeout_s, is_known=self._answered
            ) as answer:
                data = answer.read()
            self._answered = True
            self.count(nbytes=len(data))
            if answer.status_code in TRANSIENT_STATUSES:
                check(answer)
            return self._accepted(answer)

        try:
            return repeated(ask, Retry(options.attempts, options.delay_s), self._pace.pause)
        except RemoteError as error:
            remedy = error.remedy
            if error.status == HTTPStatus.TOO_MANY_REQUESTS:
                remedy += " Fewer requests are made with --connections and --per-second."
            raise self._error(without_secrets(error.reason), remedy) from None

    def _accepted(self, answer: httpx.Response) -> bytes:
        """Return the data of an answer that is final, b"" for no tile, or raise its error."""
        status, data = answer.status_code, answer.content
        if status in _MISSING:
            return b""
        if status in _REFUSED:
            raise self._error(
                f"it answered {status}: access is refused{_quoted(data)}",
                "Check the key in the URL and the terms of the service.",
            )
        if not 200 <= status < 300:
            raise self._error(f"it answered {status}{_quoted(data)}", "Check the URL.")
        if data and not _IMAGE.match(data):
            kind = answer.headers.get("content-type", "").partition(";")[0] or "unknown content"
            raise self._error(
                f"it sent {kind} in place of an image{_quoted(data)}",
                "Open the URL of a tile in a browser; the service may need a key or another URL.",
            )
        return data

    def _error(self, reason: str, remedy: str) -> ServiceError:
        return ServiceError(
            f"The map service {self.name} stops the work: {reason.rstrip('.')}.",
            remedy=f"{remedy} Tiles that were received are in the cache, and the same command "
            "resumes the run.",
        )


def _quoted(data: bytes) -> str:
    """Return the beginning of a text answer as `: "…"`, without markup; "" if there is none."""
    text = data[:4000].decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>([^<]+)", text, re.I)
    plain = title[1] if title else re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", text, flags=re.S)
    plain = " ".join(re.sub(r"[^\x20-\x7e\u00a0-\uffef]", " ", plain).split())[:120]
    return f': "{plain}"' if plain and "\ufffd" not in plain else ""


class _Pace:
    """Times at which the requests of one client may start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next_s = 0.0

    def wait(self, interval_s: float) -> None:
        """Wait until the next request may start; the one after it starts an interval later."""
        while True:
            with self._lock:
                now_s = time.monotonic()
                left_s = self._next_s - now_s
                if left_s <= 0:
                    self._next_s = now_s + interval_s
                    return
            time.sleep(left_s)

    def pause(self, seconds: float) -> None:
        """Let no request start before some seconds have passed."""
        with self._lock:
            self._next_s = max(self._next_s, time.monotonic() + seconds)


class _Cache:
    """Tiles on disk by URL. An empty file stands for a tile that does not exist."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._size: int | None = None
        self._lock = threading.Lock()

    def get(self, url: str) -> bytes | None:
        """Return a tile; None if it is not in the cache or too old."""
        path = self._path(url)
        try:
            status = path.stat()
            age_s = time.time() - status.st_mtime
            if age_s > (_MAX_AGE_S if status.st_size else _MAX_AGE_MISSING_S):
                return None
            data = path.read_bytes()
            # Times of access order the tiles by use; mtime is the time of arrival.
            os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))
        except OSError:
            return None
        return data

    def put(self, url: str, data: bytes) -> None:
        """Add a tile, and remove old ones if the limit is exceeded."""
        write_atomically(self._path(url), data)
        with self._lock:
            if self._size is None:
                self._size = sum(status.st_size for _, status in self._files())
            else:
                self._size += len(data)
            if self._size > self._limit:
                files = sorted(self._files(), key=lambda one: one[1].st_atime)
                size = sum(status.st_size for _, status in files)
                for path, status in files:
                    if size <= self._limit * _KEPT_SHARE:
                        break
                    with suppress(OSError):
                        path.unlink()
                        size -= status.st_size
                self._size = size

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._folder.glob("??/*"):
            with suppress(OSError):
                yield path, path.stat()

    def _path(self, url: str) -> Path:
        # A key that was renewed leads to the same tile, and is not in the name of the file.
        digest = hashlib.sha256(without_secrets(url).encode()).hexdigest()
        return self._folder / digest[:2] / digest[2:]
