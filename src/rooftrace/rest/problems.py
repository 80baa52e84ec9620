"""Errors as RFC 9457 problems: what went wrong in a sentence, what to do now, and nothing within.

https://www.rfc-editor.org/rfc/rfc9457
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from math import ceil
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path
from starlette.types import Scope

from rooftrace.core.errors import (
    BandMismatch,
    BusyError,
    ConfigError,
    DataError,
    DeadlineError,
    GeoreferenceError,
    GsdMismatch,
    MissingExtraError,
    PredictError,
    RooftraceError,
    TooLargeError,
)
from rooftrace.rest.problem_kinds import PROBLEMS

__all__ = [
    "MEDIA_TYPE",
    "PROBLEMS",
    "ProblemError",
    "install_problems",
    "problem_response",
    "problem_responses",
    "request_id",
]

MEDIA_TYPE = "application/problem+json"

_LOG = logging.getLogger(__name__)


_OF_ERRORS: Mapping[type[RooftraceError], str] = {
    TooLargeError: "too-large",
    GeoreferenceError: "georeference-error",
    DataError: "data-error",
    BandMismatch: "band-mismatch",
    GsdMismatch: "gsd-mismatch",
    ConfigError: "config-error",
    BusyError: "busy",
    DeadlineError: "deadline",
    PredictError: "predict-error",
    MissingExtraError: "missing-extra",
}
"""By class, or the nearest one that it inherits from; all others are the server's own affair."""

_OF_STATUSES = {
    400: "bad-request", 401: "unauthorized", 404: "not-found", 405: "method-not-allowed",
    406: "not-acceptable", 409: "conflict", 413: "too-large", 415: "unsupported-media-type",
    422: "invalid-request", 429: "busy", 500: "server-error", 501: "missing-extra",
    503: "not-ready",
}  # fmt: skip

_PLACES = {"query": "parameter", "path": "part of the address", "header": "header", "body": "field"}

_LONGEST_SHOWN = 80


class ProblemError(Exception):
    """An answer that is a problem, where no error of rooftrace says it.

    Args:
        name: one of `PROBLEMS`.
        detail: what is wrong with this request.
        remedy: what to do now; default that of its kind.
        headers: of the answer.
        errors: what is wrong with each parameter: `parameter`, `received`, `expected`.
    """

    def __init__(
        self,
        name: str,
        detail: str,
        *,
        remedy: str = "",
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(detail)
        self.name = name
        self.detail = detail
        self.remedy = remedy
        self.headers = headers
        self.errors = errors


def problem_response(
    scope: Scope,
    name: str,
    detail: str,
    *,
    remedy: str = "",
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, Any]] = (),
) -> Response:
    """The answer to a request that had a problem; arguments as of `ProblemError`."""
    kind = PROBLEMS[name]
    body: dict[str, Any] = {
        "type": f"/problems/{name}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "remedy": remedy or kind.remedy,
        "instance": f"urn:uuid:{request_id(scope)}",
    }
    if errors:
        body["errors"] = list(errors)
    return JSONResponse(body, kind.status, headers=headers, media_type=MEDIA_TYPE)


def request_id(scope: Scope) -> str:
    """The UUID by which the server's log knows a request."""
    return str(scope.get("state", {}).get("request_id", "00000000-0000-0000-0000-000000000000"))


def install_problems(app: FastAPI) -> None:
    """Have an app answer all errors but unexpected ones, which `security` takes, as problems."""
    app.add_exception_handler(RooftraceError, _of_rooftrace)
    app.add_exception_handler(ProblemError, _as_said)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)


def problem_responses(*names: str) -> dict[int | str, dict[str, Any]]:
    """What an operation's description says of the problems that it may answer.

    Args:
        names: of `PROBLEMS`.
    """
    found: dict[int | str, dict[str, Any]] = {}
    for name in names:
        kind = PROBLEMS[name]
        entry = found.setdefault(
            kind.status,
            {
                "description": kind.title,
                "content": {
                    MEDIA_TYPE: {
                        "schema": {"$ref": "#/components/schemas/ProblemDetails"},
                        "examples": {},
                    }
                },
            },
        )
        if kind.title not in entry["description"]:
            entry["description"] += f"; {kind.title[0].lower()}{kind.title[1:]}"
        value = {
            "type": f"/problems/{name}",
            "title": kind.title,
            "status": kind.status,
            "detail": kind.meaning,
            "remedy": kind.remedy,
            "instance": "urn:uuid:6f1c2d9e-8d1b-4c55-9a3e-0d5f6a7b8c9d",
        }
        entry["content"][MEDIA_TYPE]["examples"][name] = {"value": value}
        if kind.status == HTTPStatus.TOO_MANY_REQUESTS:
            entry["headers"] = {
                "Retry-After": {
                    "description": "Seconds after which it is worth asking again.",
                    "schema": {"type": "integer", "minimum": 1},
                }
            }
    return found


async def _of_rooftrace(request: Request, error: Exception) -> Response:
    assert isinstance(error, RooftraceError)
    known = (_OF_ERRORS[kind] for kind in type(error).__mro__ if kind in _OF_ERRORS)
    name = next(known, "server-error")
    if PROBLEMS[name].status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _LOG.error("request %s failed", request_id(request.scope), exc_info=error)
    if name == "server-error":
        # Of a bundle that is damaged or a disk that is full, with the server's own paths.
        return problem_response(request.scope, name, PROBLEMS[name].meaning)
    headers = None
    if isinstance(error, BusyError):
        headers = {"Retry-After": str(max(1, ceil(error.retry_after_s)))}
    return problem_response(
        request.scope, name, error.message, remedy=error.remedy, headers=headers
    )


async def _as_said(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem_response(
        request.scope, error.name, error.detail, remedy=error.remedy, headers=error.headers,
        errors=error.errors,
    )  # fmt: skip


async def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [_told(one) for one in error.errors()]
    detail = " ".join(one["message"] for one in errors)
    return problem_response(request.scope, "invalid-request", detail, errors=errors)


def _told(one: Mapping[str, Any]) -> dict[str, str]:
    """What pydantic has to say of one value, in a sentence."""
    place, *steps = (str(step) for step in one["loc"])
    name = ".".join(steps) or place
    where = f"The {_PLACES.get(place, place)} {name!r}"
    if one["type"] == "missing":
        message = f"{where} is missing."
    elif one["type"] == "extra_forbidden":
        message = f"{where} is not known."
    else:
        said = str(one["msg"]).removeprefix("Value error, ").removeprefix("Input ")
        message = f"{where} is {_shown(one.get('input'))}: it {said}."
        if not str(one["msg"]).startswith("Input "):
            message = f"{where} is {_shown(one.get('input'))}: {said}."
    return {"parameter": name, "in": place, "message": message}


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code < HTTPStatus.BAD_REQUEST:
        return Response(status_code=error.status_code, headers=error.headers)
    phrase = HTTPStatus(error.status_code).phrase
    name = _OF_STATUSES.get(error.status_code)
    if name is None:
        # A status that says all that there is to say has no type of its own (RFC 9457, 4.2.1).
        body = {
            "type": "about:blank",
            "title": phrase,
            "status": error.status_code,
            "detail": str(error.detail),
            "instance": f"urn:uuid:{request_id(request.scope)}",
        }
        return JSONResponse(body, error.status_code, headers=error.headers, media_type=MEDIA_TYPE)
    given = str(error.detail or "")
    detail = _said(request, error.status_code) if given in ("", phrase) else given
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # That of the exception names the methods of one route; an address may have several.
        headers["Allow"] = ", ".join(_methods(request)) or headers.get("Allow", "")
    return problem_response(request.scope, name, detail, headers=headers)


def _methods(request: Request) -> list[str]:
    """Those that the description names for an address, in alphabetical order."""
    found: set[str] = set()
    for template, operations in request.app.openapi()["paths"].items():
        if compile_path(template)[0].match(request.url.path):
            found.update(method.upper() for method in operations)
    return sorted(found)


def _said(request: Request, status: int) -> str:
    path = _shown(request.url.path)
    if status == HTTPStatus.NOT_FOUND:
        return f"There is nothing at {path}."
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return f"{path} does not take {request.method}."
    return PROBLEMS[_OF_STATUSES[status]].meaning
