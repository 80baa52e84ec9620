"""Middleware in front of the API: access, size limits, and headers for browsers.

All of it is pure ASGI (https://asgi.readthedocs.io), so nothing is buffered and streams stay
streams. From the outside in: `RequestMiddleware`, `BodyLimitMiddleware`, `AccessMiddleware`.
"""

import asyncio
import base64
import binascii
import hmac
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rooftrace.core.errors import ConfigError
from rooftrace.rest.problems import PROBLEMS, ProblemError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of this machine."""

FORM_BYTES = 2**16
"""Bytes that a multipart form may have besides its file."""

API_PREFIXES = (
    "/v1", "/ogc", "/map/folders", "/healthz", "/readyz", "/metrics", "/problems", "/openapi.json",
)  # fmt: skip
"""Beginnings of the paths of the API; all other paths are pages."""

_CAMERAS = "/live/cameras/"
"""Beginning of the paths whose answer to GET starts a camera."""

NO_KEY_PATHS = ("/healthz", "/readyz")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_PREFLIGHT = "access-control-request-method"
"""Header of the request by which a browser asks whether a page of another site may send its own."""

_CHALLENGES = 'Basic realm="rooftrace", charset="UTF-8", Bearer realm="rooftrace"'
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::\d*)?", re.IGNORECASE)

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_API_POLICY = "default-src 'none'; frame-ancestors 'none'"
_PAGE_POLICY = "frame-ancestors 'self'"
_FOLDER = re.compile(r"(/[\w.~-]+)+")
_MAX_DRAIN_S = 2.0
_MAX_DRAIN_BYTES = 64 * 2**20
_GRACE_S = 60.0
"""Seconds before the minimum rate of a body counts."""

_MIN_BYTES_PER_S = 2048
"""Minimum mean rate of a body. Otherwise a few slow clients could occupy all places."""

_LOG = logging.getLogger(__name__)

Note = Callable[[Scope, int, float], None]
"""Function of a request, the status of its response, and the seconds that it took."""


@dataclass(frozen=True)
class Security:
    """Protection of a server.

    Args:
        api_key: Key that every request needs, except /healthz and /readyz; None for no key.
        body_bytes: Maximum size of a request body.
        body_bytes_of: Maximum size by path prefix; the longest prefix that matches counts.
        idle_seconds: Maximum pause within a body.
        hosts: Host names that a server without a key answers to; None for any. `LOOPBACK` protects
            one that listens only on this machine against DNS rebinding: such a page has no key.
        origins: Origins of other sites whose pages may call the server, such as
            `https://example.org`.

    Raises:
        ConfigError: The API key is blank, or an origin is malformed.
    """

    api_key: str | None = None
    body_bytes: int = 64 * 2**20
    body_bytes_of: Mapping[str, int] = field(default_factory=dict)
    idle_seconds: float = 30.0
    hosts: Sequence[str] | None = None
    origins: Sequence[str] = ()

    def __post_init__(self) -> None:
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"--allow-origin received {origin!r}; expected scheme and host of a site, "
                    "without a path.",
                    remedy="For example: --allow-origin https://example.org",
                )
        if self.api_key is not None and not self.api_key.strip():
            raise ConfigError(
                "The API key is empty.", remedy="Set a key, or leave the option out for no key."
            )


def install_security(app: FastAPI, security: Security, note: Note | None = None) -> None:
    """Add all middleware to an app that does not serve yet."""
    # The middleware that is added last is outermost.
    app.add_middleware(AccessMiddleware, security=security)
    # Outside of those that refuse requests, so that it also limits the bodies of refused requests.
    app.add_middleware(BodyLimitMiddleware, security=security)
    app.add_middleware(RequestMiddleware, note=note)
    if security.origins:
        # Outermost, so that a page can also read an unexpected error.
        app.add_middleware(
            _AllowOrigins,
            allow_origins=security.origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["*"],
        )


class _AllowOrigins(CORSMiddleware):
    """Let pages of the allowed origins read responses; those of others see the usual refusals."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_http = scope["type"] == "http"
        is_allowed = is_http and Headers(scope=scope).get("origin") in self.allow_origins
        await (super().__call__ if is_allowed else self.app)(scope, receive, send)


class RequestMiddleware:
    """Give each request an id, set security headers, and hide unexpected errors from clients."""

    def __init__(self, app: ASGIApp, note: Note | None = None) -> None:
        self._app = app
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = str(uuid.uuid4())
        with suppress(ValueError):
            # The id that a proxy gave the request.
            request_id = str(uuid.UUID(headers.get("x-request-id", "")))
        # A proxy with TLS states the scheme of links. Clients change only those of their own
        # answers. Their addresses are not taken from X-Forwarded-For: they share the places.
        if (scheme := headers.get("x-forwarded-proto", "").strip()) in ("http", "https"):
            scope["scheme"] = scheme
        # So does one that serves the server below a folder, which it removes from the path.
        folder = headers.get("x-forwarded-prefix", "").rstrip("/")
        if _FOLDER.fullmatch(folder) and not scope["path"].startswith(folder):
            scope["root_path"] = folder
        scope.setdefault("state", {})["request_id"] = request_id
        started, status, began_s = False, 500, time.perf_counter()
        path = scope["path"]
        is_api = any(path == start or path.startswith(f"{start}/") for start in API_PREFIXES)
        policy = {
            "Cache-Control": "no-store" if is_api else "private, no-cache",
            "Content-Security-Policy": _API_POLICY if is_api else _PAGE_POLICY,
        }

        async def send_with_headers(message: Message) -> None:
            nonlocal started, status
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                if status == 307 and (root := scope.get("root_path", "")):
                    # Starlette redirects URLs with a further slash, and leaves the folder out.
                    place = urlsplit(headers["location"])
                    if place.netloc:
                        headers["location"] = place._replace(path=root + place.path).geturl()
                for header, value in (_HEADERS | policy).items():
                    headers.setdefault(header, value)
                # A browser must not give a page of another site what it keeps for the pages here.
                if "Origin" not in headers.get("vary", ""):
                    headers.add_vary_header("Origin")
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            if started:
                raise
            # The server is stopping, and the request had its time to finish.
            problem = ProblemError("not-ready", "The server is stopping.")
            await problem.response(scope)(scope, receive, send_with_headers)
        except Exception:
            _LOG.exception("request %s: %s %r failed", request_id, scope["method"], scope["path"])
            if started:
                raise
            problem = ProblemError("server-error", PROBLEMS["server-error"].meaning)
            await problem.response(scope)(scope, receive, send_with_headers)
        finally:
            if status >= 400 and path not in NO_KEY_PATHS:
                # The person who has the id of a refusal may ask for its reason. Probes repeat until
                # the server is ready.
                client = (scope.get("client") or ("unknown client",))[0]
                line = "request %s from %s: %s %r: %s"
                _LOG.warning(line, request_id, client, scope["method"], path, status)
            if self._note is not None:
                self._note(scope, status, time.perf_counter() - began_s)


class AccessMiddleware:
    """Refuse requests that a page of another site has sent, or without the API key; answer HEAD.

    A page of another site may use DNS rebinding, which the header Host shows, or send a form to
    this server, which the header Origin shows. Starlette's TrustedHostMiddleware answers 400
    without a problem instead of 421, and checks no Origin. The key is a bearer token, X-API-Key, or
    a Basic password; /healthz and /readyz stay open. HEAD is answered as GET, without the body:
    routes of FastAPI answer only the methods they name.
    """

    def __init__(self, app: ASGIApp, security: Security) -> None:
        self._app = app
        named = {host.lower() for host in security.hosts or ()}
        self._hosts = None if security.hosts is None or security.api_key else named
        self._origins = security.origins
        self._key = None if security.api_key is None else security.api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and not self._has_key(Headers(scope=scope)):
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        problem = self._problem(scope)
        app = self._app if problem is None else problem.response(scope)
        if scope["method"] != "HEAD" or scope["path"].startswith(_CAMERAS):
            await app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
                return
            await send({"type": "http.response.body"})
            if message.get("more_body", False):
                # Otherwise a large file would be read, and a stream would not end.
                raise _HeadAnswered

        # The server must see the method of the client, since it does not expect a body then.
        asked = {**scope, "method": "GET"}
        try:
            await app(asked, receive, send_headers)
        except* _HeadAnswered:
            pass
        finally:
            # The metrics count by route.
            scope.update({key: asked[key] for key in ("route",) if key in asked})

    def _problem(self, scope: Scope) -> ProblemError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _hostname(host) not in self._hosts:
            return ProblemError(
                "misdirected-request",
                f"The header Host is {host[:80]!r}, which is not a name of this server.",
            )
        origin = headers.get("origin")
        is_safe = scope["method"] in _SAFE_METHODS and _PREFLIGHT not in headers
        if origin is not None and not is_safe and origin not in self._origins:
            # A proxy may change Host. No foreign page can set X-Forwarded-Host.
            names = {host.lower(), headers.get("x-forwarded-host", host).lower()}
            if _netloc(origin) not in names:
                named = origin[:80] if _ORIGIN.fullmatch(origin) else "ORIGIN"
                return ProblemError(
                    "foreign-origin", f"The header Origin is {origin[:80]!r}.",
                    remedy=PROBLEMS["foreign-origin"].remedy.replace("ORIGIN", named),
                )  # fmt: skip
        if scope["path"] in NO_KEY_PATHS or self._has_key(headers):
            return None
        return ProblemError(
            "unauthorized", PROBLEMS["unauthorized"].meaning,
            headers={"WWW-Authenticate": _CHALLENGES},
        )  # fmt: skip

    def _has_key(self, headers: Headers) -> bool:
        return self._key is None or any(hmac.compare_digest(k, self._key) for k in _keys(headers))


class _HeadAnswered(Exception):
    """Raised in the app when it sends more of a body that is not wanted."""


class BodyLimitMiddleware:
    """End requests whose body is too large or stops arriving, as soon as that is known."""

    def __init__(self, app: ASGIApp, security: Security) -> None:
        self._app = app
        self._security = security
        self._prefixes = sorted(security.body_bytes_of, key=len, reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        matches = (one for one in self._prefixes if f"{path}/".startswith(f"{one.rstrip('/')}/"))
        prefix = next(matches, None)
        security = self._security
        max_bytes = security.body_bytes if prefix is None else security.body_bytes_of[prefix]
        headers = Headers(scope=scope)
        body = _Body(receive, headers, max_bytes, self._security.idle_seconds)
        started = is_refusal = False

        async def send_response(message: Message) -> None:
            nonlocal started
            if body.refusal is not None and not started and not is_refusal:
                return
            started = True
            if message["type"] == "http.response.start" and not await body.drain():
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        content_length = headers.get("content-length", "")
        size = "more bytes"
        if content_length.isdecimal() and int(content_length) > max_bytes:
            body.refusal = "too-large"
            size = f"{int(content_length):,} bytes"
        else:
            with suppress(_BodyRefused):
                await self._app(scope, body.receive, send_response)
        if body.refusal is not None and not started:
            detail = f"The body has {size}; at most {max_bytes:,} bytes are accepted here."
            if body.refusal == "request-timeout":
                detail = (
                    f"No data arrived for {self._security.idle_seconds:g} seconds, or less than "
                    f"{_MIN_BYTES_PER_S:,} bytes a second."
                )
            response, is_refusal = ProblemError(body.refusal, detail).response(scope), True
            await response(scope, body.receive, send_response)


class _BodyRefused(Exception):
    """Raised in the app when it reads a body that is refused."""


class _Body:
    """Body of a request, counted while it arrives."""

    def __init__(
        self, receive: Receive, headers: Headers, max_bytes: int, idle_seconds: float
    ) -> None:
        self.refusal: str | None = None
        self._max_bytes = max_bytes
        self._receive = receive
        self._idle_seconds = idle_seconds
        self._expects_continue = "100-continue" in headers.get("expect", "").lower()
        self._started_s: float | None = None
        self._received_bytes = 0
        self._complete = (
            headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        )

    async def receive(self) -> Message:
        """Return the next ASGI message."""
        if self.refusal is not None:
            raise _BodyRefused
        if self._complete:
            # Only the end of the connection is left, which may be far away.
            return await self._receive()
        now = time.monotonic()
        # Counted from the first read, because the request may have waited in the queue before.
        self._started_s = self._started_s or now
        late = self._started_s + _GRACE_S + self._received_bytes / _MIN_BYTES_PER_S
        seconds = min(self._idle_seconds, max(0.0, late - now))
        try:
            async with asyncio.timeout(seconds):
                message = await self._next()
        except TimeoutError:
            self.refusal = "request-timeout"
            raise _BodyRefused from None
        if self._received_bytes > self._max_bytes:
            self.refusal = "too-large"
            raise _BodyRefused
        return message

    async def drain(self) -> bool:
        """Read and drop the rest for a short time; return whether the body is complete.

        Many clients read the response only after they have sent the whole body. A client that
        waits for `100 Continue` reads it at once.
        """
        if self._expects_continue and not self._received_bytes:
            return self._complete
        with suppress(TimeoutError):
            async with asyncio.timeout(_MAX_DRAIN_S):
                until = self._received_bytes + _MAX_DRAIN_BYTES
                while not self._complete and self._received_bytes < until:
                    await self._next()
        return self._complete

    async def _next(self) -> Message:
        message = await self._receive()
        self._received_bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message


def _hostname(host: str) -> str | None:
    """Return the name in a header Host, without port and brackets; None if it is malformed."""
    match = _HOST.fullmatch(host)
    return match and (match[1] or match[2]).lower()


def _netloc(origin: str) -> str | None:
    """Return name and port of an origin; None for `null` and malformed origins."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _keys(headers: Headers) -> Iterator[bytes]:
    """Yield everything in a request that may be the key."""
    for value in headers.getlist("x-api-key"):
        yield value.encode("latin-1")
    for value in headers.getlist("authorization"):
        kind, _, rest = value.strip().partition(" ")
        if kind.lower() == "bearer":
            yield rest.strip().encode("latin-1")
        elif kind.lower() == "basic":
            try:
                pair = base64.b64decode(rest.strip(), validate=True)
            except (binascii.Error, ValueError):
                continue
            yield pair.partition(b":")[2]
