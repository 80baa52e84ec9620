"""Files on a web server or in object storage: read in parts, and listed.

`RangeReader` fetches parts of a file by range requests (RFC 9110, section 14), counts requests and
bytes, and retries transient failures. An object has a URL `s3://bucket/key`.

Credentials come only from the usual places of S3 clients: AWS_* variables, the shared files and
their profiles, and the role of a container or machine. They appear in no message, record or pickle.
`AWS_ENDPOINT_URL` names a server other than Amazon's.
"""

from __future__ import annotations

import atexit
import configparser
import gzip
import netrc
import os
import random
import re
import socket
import ssl
import threading
import time
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

from rooftrace.core.cache import LruCache
from rooftrace.core.errors import ConfigError, DataError, MissingExtraError
from rooftrace.core.text import plural, reason_of
from rooftrace.io.files import is_url

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

_SCHEME = "s3"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_LONGEST_PAUSE_S = 120.0
"""Maximum pause in seconds; a server that asks for a longer one ends the run."""

LATER = "Run the command again later."
_INSTANCE_ADDRESS = "://169.254."
"""Beginning of the URL at which the role of a machine is requested."""

_CHUNK_BYTES = 2**15
_CHUNKS_HELD = 256
"""Maximum number of chunks kept of small reads (the header, the index of blocks): 8 MB."""

_JOINED_ACROSS_BYTES = 2**14
"""Ranges with a smaller gap are fetched in one request."""

_PARALLEL_REQUESTS = 4
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which a request is retried."""

_MISTAKEN = 400, 422
"""HTTP statuses of requests whose parameters a server does not take."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")

_ADDRESS = re.compile(r"https?://\S+")
_STATUS = re.compile(r"\bstatus(?: code)?:? ([45]\d\d)\b")


@dataclass(frozen=True)
class Retry:
    """Retries of failed requests.

    Args:
        attempts: Maximum number of attempts, the first one included.
        delay_s: Seconds before the second attempt; the delay doubles each time.
        timeout_s: Seconds without a byte from the server after which an attempt has failed.
    """

    attempts: int = 6
    delay_s: float = 0.5
    timeout_s: float = 20.0


_RETRY = Retry()


@dataclass(eq=False)
class RemoteError(Exception):
    """A request to a server or an object store failed.

    Args:
        reason: Reason of the failure, without any part of the request.
        remedy: One sentence that solves the problem.
        transient: True if the same request may succeed later.
        wait_s: Seconds after which the server asks to repeat the request.
        status: HTTP status of the response, if there was one.
    """

    reason: str
    remedy: str
    transient: bool = False
    wait_s: float = 0.0
    status: int | None = None

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class ObjectAddress:
    """URL of an object, or the common beginning of several URLs."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, url: str) -> ObjectAddress:
        """Return the URL that `s3://bucket/key` describes."""
        parts = urlsplit(url)
        if parts.scheme.lower() != _SCHEME or not _BUCKET.fullmatch(parts.netloc):
            raise DataError(
                f"{url.partition('?')[0]} is not the URL of an object; expected s3://BUCKET/KEY.",
                remedy="Check the URL; it must not hold a user name or an access key.",
            )
        return cls(parts.netloc, unquote(parts.path).lstrip("/"))

    def __str__(self) -> str:
        return f"{_SCHEME}://{self.bucket}/{self.key}"


def is_object_url(text: str) -> bool:
    """Return True if a URL is one of object storage."""
    return text.lower().startswith(f"{_SCHEME}://")


def join_url(base: str, relative: str) -> str:
    """Return the URL that a relative one means in a document or a folder at `base`.

    Raises:
        ValueError: One of them is not a URL.
    """
    if is_object_url(base):
        # `urljoin` does not know that URLs with the scheme s3 have folders.
        return f"{_SCHEME}:{urljoin(base.partition(':')[2], relative)}"
    return urljoin(base, relative)


def read_object(url: str) -> bytes:
    """Return the whole content of a small object.

    Raises:
        DataError: the object does not exist, or may not be read.
    """
    address = ObjectAddress.parse(url)
    store = _store_of(address.bucket)
    import obstore

    return _from_store(lambda: bytes(obstore.get(store, address.key).bytes()), address)


def list_objects(url: str, endings: Sequence[str] = ()) -> list[str]:
    """Return the URLs of all objects that begin with a URL, sorted.

    Args:
        url: URL such as `s3://bucket/folder/`.
        endings: Suffixes of the objects to list, in lower case; default all.

    Raises:
        DataError: the bucket does not exist, or may not be read.
    """
    address = ObjectAddress.parse(url)
    store = _store_of(address.bucket)
    import obstore

    def find() -> list[str]:
        pages = obstore.list(store, prefix=address.key or None)
        return [str(one["path"]) for page in pages for one in page]

    found = sorted(_from_store(find, address))
    kept = [key for key in found if not endings or key.lower().endswith(tuple(endings))]
    return [str(ObjectAddress(address.bucket, key)) for key in kept]


def repeated(
    work: Callable[[int], T], retry: Retry, pause: Callable[[float], object] = time.sleep
) -> T:
    """Return what `work` returns for the number of the attempt, from 0, repeated after failures.

    `pause` receives the seconds for which a server asks.

    Raises:
        RemoteError: All attempts failed, or the server asks for a pause of over two minutes.
    """
    for attempt in range(retry.attempts):
        try:
            return work(attempt)
        except RemoteError as error:
            if error.wait_s > _LONGEST_PAUSE_S:
                reason = f"{error.reason} and asks to wait for {error.wait_s:,.0f} seconds"
                raise RemoteError(reason, LATER, status=error.status) from error
            if not error.transient:
                raise
            failure = error
        # Clients that failed together must not return together, also after the pause asked of all.
        delay_s = retry.delay_s * 2**attempt * random.uniform(1.0, 1.25)  # noqa: S311  # nosec B311
        if attempt + 1 < retry.attempts:
            pause(failure.wait_s)
            time.sleep(delay_s)
    reason = f"{failure.reason} ({retry.attempts} attempts)"
    raise RemoteError(reason, failure.remedy, transient=True, status=failure.status) from failure


def _from_store(work: Callable[[], T], address: ObjectAddress) -> T:
    """Return what `work` returns, with retries; raise DataError for what the store refuses."""

    def attempt(_: int) -> T:
        with _explaining():
            return work()

    try:
        return repeated(attempt, _RETRY)
    except RemoteError as error:
        raise DataError(f"{address} cannot be read: {error.reason}.", remedy=error.remedy) from None


@contextmanager
def _explaining() -> Iterator[None]:
    """Turn errors of the store into a `RemoteError` that holds no part of the request."""
    import obstore.exceptions as known

    try:
        yield
    except (FileNotFoundError, known.NotFoundError):
        raise RemoteError("the object or bucket does not exist", "Check the URL.") from None
    except (known.PermissionDeniedError, known.UnauthenticatedError, PermissionError):
        raise RemoteError(
            "access was denied",
            "Check the AWS_* variables or AWS_PROFILE, and the permissions of that account.",
        ) from None
    except (known.BaseError, OSError) as error:
        raise _classified(str(error)) from None


def _classified(message: str) -> RemoteError:
    # The URL contains the key of the object, which may be any text.
    text = _ADDRESS.sub("", message)
    found = _STATUS.search(text)
    status = int(found[1]) if found else None
    if "InvalidRange" in text or status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return RemoteError("the object is empty", "Upload a file that is not empty.")
    if "redirect" in text.lower() or "AuthorizationHeaderMalformed" in text:
        return RemoteError(
            "the bucket is in another region", "Set AWS_REGION to the bucket's region."
        )
    if "credential" in text.lower() or _INSTANCE_ADDRESS in message:
        return RemoteError(
            "no credentials were found",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public "
            "bucket AWS_SKIP_SIGNATURE=true.",
        )
    reason = f"the server answered {status}" if status else "the server does not answer"
    transient = status is None or status in TRANSIENT_STATUSES
    return RemoteError(reason, LATER, transient=transient, status=status)


def _store_of(bucket: str) -> Any:
    """Return the store of a bucket; raise MissingExtraError if the extra is not installed."""
    with MissingExtraError.on_import("s3", "An s3:// URL", "obstore"):
        from obstore.store import S3Store

    given = dict(_from_shared_files())
    stated = map(os.environ.get, ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    endpoint = next(filter(None, (*stated, given.pop("endpoint", ""))), "")
    given |= {"endpoint": endpoint} if endpoint else {}
    return S3Store(
        bucket,
        client_options={
            "timeout": f"{_RETRY.timeout_s:g}s",
            "allow_http": endpoint.startswith("http:"),
        },
        # Retries happen here, where they are counted.
        retry_config={"max_retries": 0},
        config=given,  # type: ignore[arg-type]
    )


def _from_shared_files() -> Iterator[tuple[str, str]]:
    """Yield the settings of the profile in ~/.aws that the environment does not set."""
    home = Path.home() / ".aws"
    profile = os.environ.get("AWS_PROFILE", "default")
    files = (
        (os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials", profile),
        (os.environ.get("AWS_CONFIG_FILE") or home / "config",
         profile if profile == "default" else f"profile {profile}"),
    )  # fmt: skip
    wanted = {
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
        "region": "region",
        "endpoint_url": "endpoint",
    }
    has_keys, has_region = ("AWS_ACCESS_KEY_ID" in os.environ, "AWS_REGION" in os.environ)
    for path, section in files:
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            # An error about a damaged file could show its content: it counts as one without keys.
            continue
        for key, name in wanted.items():
            is_set = has_region if key == "region" else has_keys and key.startswith("aws_")
            if parser.has_option(section, key) and not is_set:
                yield name, parser.get(section, key)


def url_stem(url: str) -> str:
    """Return the name of the file that a URL leads to, without its suffix."""
    return PurePosixPath(unquote(urlsplit(url).path)).stem or "scene"


def web_host(url: str) -> str:
    """Return the host of a URL."""
    parts = urlsplit(url)
    if parts.scheme.lower() in ("http", "https") and parts.hostname and "@" not in parts.netloc:
        return parts.hostname
    raise DataError(
        f"{without_query(url)}: a URL begins with https://, http:// or s3://, without a user name.",
        remedy="Correct the URL, with keys as its parameters; or download the file.",
    )


class Traffic:
    """Counts of the requests to a server; several threads may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = 0
        """Number of requests so far, the repeated ones included."""

        self.repeated = 0
        """Number of requests that repeat a failed one."""

        self.nbytes = 0
        """Received bytes, without headers."""

    def count(self, **more: int) -> None:
        """Add to the counts."""
        with self._lock:
            for name, count in more.items():
                setattr(self, name, getattr(self, name) + count)

    @property
    def summary(self) -> str:
        """The counts as text."""
        repeated = f", {self.repeated} of them repeated" if self.repeated else ""
        return f"{plural(self.requests, 'request')}{repeated}, {self.nbytes / 1e6:.1f} MB fetched"


class RangeReader(Traffic):
    """Reader of byte ranges of one file on a server; several threads may use it.

    It can be pickled; the copy has its own counters.

    Args:
        url: URL that begins with http, https or s3.

    Raises:
        DataError: the URL does not begin with http, https or s3, or holds a user name.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self._object: ObjectAddress | None = None
        self._store: Any = None
        if is_object_url(url):
            # Each machine uses its own credentials, which are not in the pickle.
            self._object = ObjectAddress.parse(url)
            self._store = _store_of(self._object.bucket)
        else:
            web_host(url)
        self._chunks: LruCache[int, bytes] = LruCache(_CHUNKS_HELD)
        self._size: int | None = None
        self._version: str | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return (RangeReader, (self.url,))

    @property
    def size(self) -> int:
        """Size of the whole file in bytes."""
        if self._size is None:
            self.read(0, _CHUNK_BYTES)
        assert self._size is not None
        return self._size

    @property
    def version(self) -> str:
        """Size and entity tag of the file, as far as the server sends them."""
        return f"{self.size} bytes {self._version or ''}"

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop), fewer if the file ends before.

        Raises:
            RemoteError: the server does not send the range, even after retries, or the file has
                changed since the first request.
        """
        if self._size is not None:
            stop = min(stop, self._size)
        if stop <= start:
            return b""
        if stop - start > _CHUNK_BYTES * _CHUNKS_HELD // 4:
            return self._fetch(start, stop)
        first, last = start // _CHUNK_BYTES, (stop - 1) // _CHUNK_BYTES
        held = {number: self._chunks.get(number) for number in range(first, last + 1)}
        missing = [number for number, chunk in held.items() if chunk is None]
        if missing:
            begin = missing[0] * _CHUNK_BYTES
            body = self._fetch(begin, (missing[-1] + 1) * _CHUNK_BYTES)
            for number in range(missing[0], missing[-1] + 1):
                at = number * _CHUNK_BYTES - begin
                held[number] = chunk = body[at : at + _CHUNK_BYTES]
                self._chunks.put(number, chunk)
        joined = b"".join(chunk or b"" for chunk in held.values())
        return joined[start - first * _CHUNK_BYTES : stop - first * _CHUNK_BYTES]

    def read_many(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of several ranges [start, stop); near ranges share one request."""
        joined: list[list[int]] = []
        for start, stop in sorted(ranges):
            if joined and start - joined[-1][1] <= _JOINED_ACROSS_BYTES:
                joined[-1][1] = max(joined[-1][1], stop)
            else:
                joined.append([start, stop])
        with ThreadPoolExecutor(_PARALLEL_REQUESTS, "ranges") as pool:
            bodies = list(pool.map(lambda span: self._fetch(*span), joined))
        begins = [begin for begin, _ in joined]
        places = [bisect_right(begins, start) - 1 for start, _ in ranges]
        return [
            bodies[at][start - begins[at] : stop - begins[at]]
            for at, (start, stop) in zip(places, ranges)
        ]

    def _fetch(self, start: int, stop: int) -> bytes:
        def ask(attempt: int) -> bytes:
            self.count(requests=1, repeated=int(attempt > 0))
            return self._ask(start, stop)

        try:
            return repeated(ask, _RETRY)
        except RemoteError as error:
            if not error.transient:
                raise
            raise RemoteError(
                f"{error.reason}, bytes {start} to {stop}",
                "Run the command again later, or download the file and use the copy.",
                transient=True,
                status=error.status,
            ) from error

    def _ask(self, start: int, stop: int) -> bytes:
        if self._object is not None:
            import obstore

            with _explaining():
                got = obstore.get(self._store, self._object.key, options={"range": (start, stop)})
                body = bytes(got.bytes())
            self._check_same(int(got.meta["size"]), str(got.meta.get("e_tag") or ""))
            self.count(nbytes=len(body))
            return body
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        with requested(self.url, headers, is_known=self._size is not None) as answer:
            check(answer)
            received = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status_code != HTTPStatus.PARTIAL_CONTENT or received is None:
                raise RemoteError(
                    "the server does not send parts of files (no support for range requests)",
                    "Download the file and use the copy.",
                )
            size = int(received[3])
            self._check_same(size, answer.headers.get("ETag", ""))
            body = answer.read()
        self.count(nbytes=len(body))
        expected = min(stop, size) - start
        if int(received[1]) != start or len(body) != expected:
            reason = f"the connection broke off: received {len(body)} bytes, expected {expected}"
            raise RemoteError(reason, LATER, transient=True)
        return body

    def _check_same(self, size: int, version: str) -> None:
        with self._lock:
            if self._size is None:
                self._size, self._version = size, version
            same = (size, version) == (self._size, self._version)
        if not same:
            raise RemoteError(
                f"the file changed on the server while it was read (now {size} bytes)",
                "Start again with another output folder.",
            )


@contextmanager
def requested(
    url: str,
    headers: Mapping[str, str],
    *,
    timeout_s: float | None = None,
    is_known: bool = False,
    auth: Any = None,
) -> Iterator[httpx.Response]:
    """Yield the response of a web server, whose body is not read yet.

    Args:
        timeout_s: See `Retry`.
        is_known: Whether the server has answered before.
        auth: Password for this server, and none to which it redirects, as httpx takes it.

    Raises:
        RemoteError: The server does not answer, or the connection broke off.
    """
    import httpx

    timeout_s = timeout_s or _RETRY.timeout_s
    try:
        client = _client(os.getpid())
        headers = {"Accept-Encoding": "identity", "User-Agent": "rooftrace", **headers}
        with client.stream("GET", url, headers=headers, timeout=timeout_s, auth=auth) as response:
            yield response
    except httpx.TimeoutException as error:
        reason = f"the server sent nothing for {timeout_s:g} seconds"
        raise RemoteError(reason, LATER, transient=True) from error
    except (httpx.ReadError, httpx.WriteError, httpx.ProtocolError) as error:
        reason = f"the connection broke off: {reason_of(_cause(error))}"
        raise RemoteError(reason, LATER, transient=True) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        cause = _cause(error)
        remedy = "Check the URL and the network connection."
        if isinstance(cause, ssl.SSLCertVerificationError):
            remedy = "If you trust the server, set SSL_CERT_FILE to its authority's certificate."
        wrong = ConnectionRefusedError, socket.gaierror, ssl.SSLError, httpx.ProxyError
        raise RemoteError(
            f"the server cannot be reached: {reason_of(cause)}",
            remedy,
            transient=isinstance(error, httpx.NetworkError | httpx.ProxyError)
            and (is_known or not isinstance(cause, wrong) or isinstance(cause, ssl.SSLEOFError)),
        ) from error


@cache
def _client(pid: int) -> httpx.Client:
    """Return the client of a process, because a fork must not use the connections of its parent."""
    import httpx

    try:
        client = httpx.Client(
            verify=known_authorities(),
            follow_redirects=True,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            limits=httpx.Limits(),
        )
    except (ImportError, ValueError) as error:
        reason = f"the proxy that the environment names cannot be used: {reason_of(error)}"
        raise RemoteError(
            reason,
            "Check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY; socks5:// needs: pip install socksio",
        ) from None
    atexit.register(client.close)
    return client


def known_authorities() -> ssl.SSLContext:
    """Return the authorities of SSL_CERT_FILE or of the web, and those that the system knows."""
    import httpx

    try:
        context = httpx.create_ssl_context()
    except OSError as error:
        file = os.environ.get("SSL_CERT_FILE")
        raise ConfigError(
            f"SSL_CERT_FILE, {file}, cannot be read: {reason_of(error)}.",
            remedy="Set it to the path of a file of certificates (PEM), or unset it.",
        ) from error
    # A company adds its own to the system.
    context.load_default_certs()
    return context


def _cause(error: Exception) -> Exception:
    """Return the error of the system or of TLS in an error of httpx, if there is one."""
    first = next(iter(getattr(error.__cause__, "args", ())), None)
    return first if isinstance(first, Exception) else error


def check(response: httpx.Response) -> None:
    """Raise RemoteError for a response that refuses the request."""
    if response.is_success:
        return
    status, said = response.status_code, ""
    if status in _MISTAKEN:
        text = b"".join(response.iter_bytes()).decode("utf-8", "replace")
        said = " ".join(text.split())[:200]
    # Of a refused search, the server says what it does not take.
    shown = f" ({said})" if said[:1] not in ("", "<") else ""
    raise RemoteError(
        f"the server answered {status} {response.reason_phrase}{shown}",
        _remedy_for(status),
        transient=status in TRANSIENT_STATUSES,
        wait_s=_retry_after_s(response.headers.get("Retry-After", "")),
        status=status,
    )


def read_document(url: str, agent: str = "rooftrace") -> bytes:
    """Return a document of a web server, with user name and password of its host in ~/.netrc."""
    import httpx

    web_host(url)
    auth = None
    # Most users have no such file. One that others may read is read, too, as curl does.
    with suppress(OSError, netrc.NetrcParseError):
        auth = httpx.NetRCAuth(os.environ.get("NETRC") or str(Path.home() / ".netrc"))

    def ask(_: int) -> bytes:
        with requested(url, {"User-Agent": agent}, auth=auth) as answer:
            check(answer)
            body = answer.read()
        # Object storage sends what was stored compressed as it is.
        try:
            return gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
        except (OSError, EOFError, zlib.error) as error:
            reason = f"the compressed document is damaged: {reason_of(error)}"
            raise RemoteError(reason, LATER, transient=True) from error

    try:
        return repeated(ask, _RETRY)
    except RemoteError as error:
        raise DataError(
            f"{without_query(url)} cannot be read: {error.reason}.", remedy=error.remedy
        ) from error


def _retry_after_s(text: str) -> float:
    """Return the seconds that a header Retry-After states, as a number or as a date."""
    if text.strip().isdecimal():
        return float(text)
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def _remedy_for(status: int) -> str:
    if status in TRANSIENT_STATUSES:
        return LATER
    if status in (401, 403):
        return (
            "Use a URL that can be read without signing in, or download the file. User names and "
            "passwords of STAC servers belong into ~/.netrc."
        )
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return "Check that the file is not empty."
    return "Check the URL."


def without_query(url: str) -> str:
    """Return a URL without its query and user name, which may hold keys, for messages.

    A path has neither, and is returned as it is.
    """
    if not is_url(url):
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
