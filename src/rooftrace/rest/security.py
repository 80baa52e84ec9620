"""What stands before an app: who may ask, how much they may send, and what browsers are told.

Pure ASGI (https://asgi.readthedocs.io), so that nothing is buffered and streams stay streams. From
the outside in: `Guard` (a name for the request, headers, unexpected errors), `BodyLimit`,
`HostCheck`, `ApiKey`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rooftrace.core.errors import ConfigError
from rooftrace.rest.body import BodyLimit
from rooftrace.rest.problems import PROBLEMS, problem_response

__all__ = [
    "API_PREFIXES",
    "FORM_BYTES",
    "LOOPBACK",
    "ApiKey",
    "Guard",
    "HostCheck",
    "Security",
    "install_security",
]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""The names of the own machine."""

_LOG = logging.getLogger(__name__)

_OPEN = ("/healthz", "/readyz")
FORM_BYTES = 2**16
"""What a form may have around its file."""

API_PREFIXES = ("/v1", "/healthz", "/readyz", "/metrics", "/problems", "/openapi.json")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

_CHALLENGES = 'Basic realm="rooftrace", charset="UTF-8", Bearer realm="rooftrace"'

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_BARE_POLICY = "default-src 'none'; frame-ancestors 'none'"
_PAGE_POLICY = "frame-ancestors 'self'"
_UNCHANGING = ("/assets/", "/static/")
"""Of Gradio: its files have the hash of their content in their names."""


@dataclass(frozen=True)
class Security:
    """How a server is protected.

    Args:
        api_key: that every request has to bring, but for /healthz and /readyz; None for none.
        body_bytes: of a request, at most.
        body_bytes_of: likewise where the path begins so, the longest beginning first.
        idle_seconds: that a body may pause.
        hosts: the names that the server answers to; None for any. `LOOPBACK` where it listens on
            the own machine alone, against DNS rebinding.
        origins: of other sites whose pages may call it, such as `https://map.example.org`.

    Raises:
        ConfigError: an API key of blanks.
    """

    api_key: str | None = None
    body_bytes: int = 64 * 2**20
    body_bytes_of: Mapping[str, int] = field(default_factory=dict)
    idle_seconds: float = 30.0
    hosts: Sequence[str] | None = None
    origins: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.api_key is not None and not self.api_key.strip():
            raise ConfigError(
                "The API key is empty.", remedy="Give one, or leave the option out for none."
            )


def install_security(app: FastAPI, security: Security) -> None:
    """Put all of it before an app that has not begun to serve."""
    # What is added last is outermost.
    if security.api_key is not None:
        app.add_middleware(ApiKey, key=security.api_key)
    if security.origins:
        from starlette.middleware.cors import CORSMiddleware

        app.add_middleware(
            CORSMiddleware, allow_origins=list(security.origins), allow_methods=["*"],
            allow_headers=["*"], expose_headers=["*"],
        )  # fmt: skip
    app.add_middleware(HostCheck, hosts=security.hosts, origins=security.origins)
    # Outside of those that refuse, so that the bodies of what they refuse have an end, too.
    app.add_middleware(BodyLimit, security=security)
    app.add_middleware(Guard)


class Guard:
    """Names each request, tells browsers what they may do, and hides what nobody expected."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = _uuid(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = name
        begun = False

        async def marked(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = name
                for header, value in (_HEADERS | _policy(scope["path"])).items():
                    headers.setdefault(header, value)
            await send(message)

        try:
            await self._app(scope, receive, marked)
        except Exception:  # what nobody expected is told to the log, and to the client only that
            _LOG.exception("request %s: %s %r failed", name, scope["method"], scope["path"])
            if begun:
                raise
            told = problem_response(scope, "server-error", PROBLEMS["server-error"].meaning)
            await told(scope, receive, marked)


class HostCheck:
    """Refuses requests that foreign pages have sent, by their name for the server or by their own.

    A page may make a name of its own site point to this machine (DNS rebinding), which the header
    Host gives away, or send a form here, which the header Origin does.

    Args:
        app: what is protected.
        hosts, origins: as of `Security`.
    """

    def __init__(
        self, app: ASGIApp, hosts: Sequence[str] | None, origins: Sequence[str] = ()
    ) -> None:
        self._app = app
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._origins = {origin.lower().rstrip("/") for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _hostname(host) not in self._hosts:
            detail = f"The header Host is {host[:80]!r}, which is no name of this server."
            await problem_response(scope, "misdirected-request", detail)(scope, receive, send)
            return
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in _SAFE_METHODS:
            # A proxy may have changed Host; no foreign page can set the other without being asked.
            own = {host.lower(), headers.get("x-forwarded-host", host).lower()}
            if origin.lower() not in self._origins and _netloc(origin) not in own:
                detail = f"The header Origin is {origin[:80]!r}."
                await problem_response(scope, "foreign-origin", detail)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class ApiKey:
    """Lets in who brings the key: as a bearer token, as X-API-Key, or as a Basic password.

    Args:
        app: what is protected, but for /healthz and /readyz.
        key: not empty.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._digest = _digest(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = scope["type"] not in ("http", "websocket") or scope["path"] in _OPEN
        if known or self._brings_key(Headers(scope=scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            answer = problem_response(
                scope, "unauthorized", PROBLEMS["unauthorized"].meaning,
                headers={"WWW-Authenticate": _CHALLENGES},
            )  # fmt: skip
            await answer(scope, receive, send)

    def _brings_key(self, headers: Headers) -> bool:
        # All are looked at, each in the same time whatever it is.
        found = [hmac.compare_digest(_digest(key), self._digest) for key in _keys(headers)]
        return any(found)


def _uuid(given: str | None) -> str:
    """A request's UUID: that of a proxy before the server, or a new one."""
    try:
        return str(uuid.UUID(given)) if given else str(uuid.uuid4())
    except ValueError:
        return str(uuid.uuid4())


def _policy(path: str) -> dict[str, str]:
    bare = any(path == start or path.startswith(f"{start}/") for start in API_PREFIXES)
    if path.startswith(_UNCHANGING):
        return {"Content-Security-Policy": _PAGE_POLICY}
    if not bare:
        # Gradio makes addresses of what X-Forwarded-Host says: no cache may keep that for others.
        return {"Content-Security-Policy": _PAGE_POLICY, "Cache-Control": "private, no-cache"}
    return {"Content-Security-Policy": _BARE_POLICY, "Cache-Control": "no-store"}


def _hostname(host: str) -> str:
    """Of a header Host: without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _netloc(origin: str) -> str | None:
    """Name and port of an origin; None where it has none, as `null`."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _keys(headers: Headers) -> Iterator[bytes]:
    """What a request brings that may be the key."""
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


def _digest(key: bytes) -> bytes:
    # Of one length, so that not even that of the key is told by the time it takes.
    return hashlib.sha256(key).digest()
