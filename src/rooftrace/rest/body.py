"""Bodies of requests: counted while they come, and ended where there is no end to them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rooftrace.rest.problems import problem_response

if TYPE_CHECKING:
    from rooftrace.rest.security import Security

__all__ = ["BodyLimit"]

_DRAIN_SECONDS = 2.0
_DRAIN_BYTES = 64 * 2**20

_GRACE_SECONDS = 60.0
_LEAST_BYTES_PER_S = 2048
"""Of a body, on the whole and after that time: else few clients that trickle hold all places."""


class BodyLimit:
    """Ends requests whose body is too large, or stops coming, as soon as that is known.

    Args:
        app: what is protected.
        security: its `body_bytes`, `body_bytes_of` and `idle_seconds`.
    """

    def __init__(self, app: ASGIApp, security: Security) -> None:
        self._app = app
        self._security = security
        self._prefixes = sorted(security.body_bytes_of, key=len, reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._most(scope["path"])
        headers = Headers(scope=scope)
        body = _Body(receive, headers, most, self._security.idle_seconds)
        begun = False

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start" and not await body.ended():
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        async def watched(message: Message) -> None:
            nonlocal begun
            if body.refusal is None or begun:
                begun = True
                await answered(message)

        announced = headers.get("content-length", "")
        seen = "The body goes on"
        if announced.isdecimal() and int(announced) > most:
            body.refusal = "too-large"
            seen = f"The body has {int(announced):,} bytes"
        else:
            with suppress(_BodyRefused):
                await self._app(scope, body.receive, watched)
        if body.refusal is not None and not begun:
            detail = f"{seen}; at most {most:,} bytes are taken here."
            if body.refusal == "request-timeout":
                detail = (
                    f"Nothing came for {self._security.idle_seconds:g} seconds, or less than "
                    f"{_LEAST_BYTES_PER_S:,} bytes a second."
                )
            await problem_response(scope, body.refusal, detail)(scope, body.receive, answered)

    def _most(self, path: str) -> int:
        for prefix in self._prefixes:
            if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
                return self._security.body_bytes_of[prefix]
        return self._security.body_bytes


class _BodyRefused(Exception):
    """Raised within the app where it reads a body that is refused."""


class _Body:
    """What comes of a request, counted.

    Args:
        receive: of the server.
        headers: of the request.
        most_bytes, idle_seconds: that it may have and pause.
    """

    def __init__(
        self, receive: Receive, headers: Headers, most_bytes: int, idle_seconds: float
    ) -> None:
        self.refusal: str | None = None
        self._most_bytes = most_bytes
        self._receive = receive
        self._idle_seconds = idle_seconds
        self._asks_first = "100-continue" in headers.get("expect", "").lower()
        self._began: float | None = None
        self._came = 0
        self._complete = (
            headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        )

    async def receive(self) -> Message:
        """The next message, as ASGI has it."""
        if self.refusal is not None:
            raise _BodyRefused
        if self._complete:
            # There is only the end of the connection left, for which one may wait long.
            return await self._receive()
        now = time.monotonic()
        # From when the app begins to read, for which it may have to wait its turn.
        self._began = self._began or now
        late = self._began + _GRACE_SECONDS + self._came / _LEAST_BYTES_PER_S
        seconds = min(self._idle_seconds, max(0.0, late - now))
        try:
            async with asyncio.timeout(seconds):
                message = await self._next()
        except TimeoutError:
            self.refusal = "request-timeout"
            raise _BodyRefused from None
        if self._came > self._most_bytes:
            self.refusal = "too-large"
            raise _BodyRefused
        return message

    async def ended(self) -> bool:
        """Whether all of it came; what did not is listened to for a moment, and thrown away.

        Many clients hear nothing before they have spoken. One that asks before it sends hears at
        once.
        """
        if self._asks_first and not self._came:
            return self._complete
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                until = self._came + _DRAIN_BYTES
                while not self._complete and self._came < until:
                    await self._next()
        return self._complete

    async def _next(self) -> Message:
        message = await self._receive()
        self._came += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message
