"""Error responses as RFC 9457 problems: https://www.rfc-editor.org/rfc/rfc9457.

A problem says what is wrong with the request and what to do next. It shows nothing of the server's
internals. `PROBLEMS` lists all kinds; `/problems/{name}` explains each.
"""

import difflib
import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from math import ceil
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import compile_path
from starlette.types import Scope

import rooftrace.core.errors as errors
from rooftrace.core.config import plain_reason
from rooftrace.core.errors import RooftraceError
from rooftrace.core.text import in_api_terms
from rooftrace.io.html import render_page
from rooftrace.io.vector_read import VectorLockedError
from rooftrace.rest.pages import page_header
from rooftrace.service.job_store import JobReviewedError, JobStateError
from rooftrace.service.outline_edits import OutlineError
from rooftrace.service.review_store import ReviewConflictError, ReviewFileError


class ProblemKind(NamedTuple):
    """A kind of problem. Its URL is `/problems/` and its name in `PROBLEMS`.

    Args:
        status: HTTP status.
        title: Short name of the kind.
        meaning: Explanation in one or two sentences.
        remedy: Default remedy, for occurrences that bring none of their own.
        error: Class of the errors, with its subclasses, that are answered by this kind.
    """

    status: int
    title: str
    meaning: str
    remedy: str
    error: type[RooftraceError] | None = None


PROBLEMS: Mapping[str, ProblemKind] = {
    "bad-request": ProblemKind(
        400, "The request cannot be read",
        "The body does not match its headers or its description: a form without a boundary, a form "
        "that ends early, or an execution request without its inputs.",
        "Send the request with a client that builds the body for you."),
    "unauthorized": ProblemKind(
        401, "An API key is required",
        "The server was started with an API key. The request has no key or a wrong one.",
        "Send the key as Authorization: Bearer KEY, as X-API-Key: KEY, or as the password of HTTP "
        "Basic."),
    "foreign-origin": ProblemKind(
        403, "The request comes from a page of another site",
        "A browser sent the request for a page that does not come from this server.",
        "Start the server with --allow-origin ORIGIN, or use its own pages. A proxy must pass on "
        "the header Host of the page, or send it as X-Forwarded-Host."),
    "not-found": ProblemKind(
        404, "Not found", "The URL does not exist, or the resource has been removed.",
        "See /v1/docs for all URLs."),
    "method-not-allowed": ProblemKind(
        405, "Method not allowed", "The URL exists but does not accept this HTTP method.",
        "Use one of the methods in the header Allow."),
    "request-timeout": ProblemKind(
        408, "The request body did not arrive in time", "The client stopped sending the body.",
        "Send the request again."),
    "conflict": ProblemKind(
        409, "The current state does not allow this",
        "The job is in a state in which the operation is not possible.",
        "Read the state of the job first.", JobStateError),
    "job-reviewed": ProblemKind(
        409, "The job has a review",
        "A person has reviewed the buildings of the job. Deleting the job would delete the review.",
        "Export what was accepted first. Then delete the job with discard_review=true.",
        JobReviewedError),
    "review-conflict": ProblemKind(
        409, "Another reviewer was faster",
        "The building has changed since it was read. The member buildings has the present states.",
        "Look at its present state and decide again.", ReviewConflictError),
    "too-large": ProblemKind(
        413, "Too large",
        "The upload has more bytes, or its image more pixels, than the server accepts. The pixels "
        "of a compressed image are counted after decompression.",
        "Send a part of the image, or start a job for a large scene.", errors.TooLargeError),
    "unsupported-media-type": ProblemKind(
        415, "The type of the body is not supported",
        "The body is neither a form with a file nor an image.",
        "Send multipart/form-data with the field file, or the bytes of the image as "
        "application/octet-stream."),
    "unsatisfiable-range": ProblemKind(
        416, "The file does not have this range",
        "The header Range asks for bytes after the end of the file.",
        "Ask for a range within the length that the header Content-Range states."),
    "misdirected-request": ProblemKind(
        421, "Unknown host name",
        "The header Host names another server. Without an API key, a server that listens only on "
        "this machine answers only to its own names, which protects it against DNS rebinding.",
        "Use localhost or 127.0.0.1. For other names, such as that of a proxy, start the server "
        "with an API key; for other machines, with --host 0.0.0.0, too."),
    "invalid-request": ProblemKind(
        422, "Invalid parameter",
        "A parameter or field is missing, unknown or out of range. The member errors lists each.",
        "Send the parameters as /v1/docs describes them."),
    "band-mismatch": ProblemKind(
        422, "The bands of the image do not match the model",
        "The model was trained on certain bands, and the image has others.",
        "Send the bands that /v1/model lists, in that order.", errors.BandMismatch),
    "config-error": ProblemKind(
        422, "The option does not fit",
        "The value of an option is valid, but not for this image or this model.",
        "Leave the option out.", errors.ConfigError),
    "data-error": ProblemKind(
        422, "The image cannot be used",
        "The upload is damaged or has an unsupported format. GeoTIFF, PNG, JPEG, WebP and "
        "JPEG 2000 are supported.",
        "Open the image with another program and save it again.", errors.DataError),
    "georeference-error": ProblemKind(
        422, "The place on the ground is not known",
        "The operation needs a position or a length on the ground.",
        "Send gsd, the metres per pixel, or a GeoTIFF.", errors.GeoreferenceError),
    "outline-error": ProblemKind(
        422, "The outline cannot be used",
        "The outline crosses itself, lies outside of the scene, or is too small.",
        "Draw it again.", OutlineError),
    "review-error": ProblemKind(
        422, "The review cannot be used",
        "The GeoPackage of the review is damaged, or belongs to other polygons.",
        "Restore a copy of it, or rename it to begin a new review.", ReviewFileError),
    "unfit-format": ProblemKind(
        422, "The format cannot hold the buildings",
        "Vector tiles need at least one building, and a place on the map of the world.",
        "Ask for a GeoPackage or GeoJSON."),
    "gsd-mismatch": ProblemKind(
        422, "Too fine or too coarse for the model",
        "The image is more than four times as coarse as the model's training images, or its "
        "metres per pixel cannot be right.",
        "Send gsd if the file is wrong; otherwise use finer imagery.", errors.GsdMismatch),
    "file-locked": ProblemKind(
        423, "Another program holds the file",
        "Another program, such as QGIS, is writing to the file of the review or of its polygons. "
        "Nothing was saved.",
        "Close the file there, or end its editing, and try again.", VectorLockedError),
    "busy": ProblemKind(
        429, "Too many requests are waiting",
        "The server keeps a short queue and refuses further requests. No work was started.",
        "Retry after the number of seconds in the header Retry-After.", errors.BusyError),
    "server-error": ProblemKind(
        500, "Internal server error", "An unexpected error occurred. The server's log has it.",
        "Send the instance of the problem to the operator of the server."),
    "predict-error": ProblemKind(
        500, "The prediction failed", "The network failed on this image.",
        "Send the instance of the problem to the operator of the server.", errors.PredictError),
    "missing-extra": ProblemKind(
        501, "An optional package is not installed",
        "The operation needs an optional package that the server does not have.",
        "Ask the operator of the server to install it.", errors.MissingExtraError),
    "not-ready": ProblemKind(
        503, "The server is not ready", "The server is starting or stopping.",
        "Retry in a few seconds.", errors.StoppingError),
    "out-of-memory": ProblemKind(
        503, "The server is out of memory", "The memory of the server was not enough.",
        "Send a smaller image, or retry later.", errors.OutOfMemoryError),
    "deadline": ProblemKind(
        503, "The request took too long", "The request exceeded the server's time limit.",
        "Send a smaller image, or start a job.", errors.DeadlineError),
    "not-stored": ProblemKind(
        507, "The server cannot store it",
        "The disk of the server is full, or cannot be written.",
        "Ask the operator of the server to make room; its log has the reason.",
        errors.ExportError),
}  # fmt: skip
"""All kinds by name. The first of each status is the general one."""

_BY_ERROR = {kind.error: name for name, kind in PROBLEMS.items() if kind.error}
# 403, 408 and 421 have narrower meanings here than in an HTTPException of Starlette.
_BY_STATUS = {
    kind.status: name
    for name, kind in reversed(list(PROBLEMS.items()))
    if kind.status not in (403, 408, 421)
}
PROBLEM_MEDIA_TYPE = "application/problem+json"
_PLACES = {
    "query": "parameter", "path": "part of the URL", "header": "header", "body": "field",
    "inputs": "input",
}  # fmt: skip
_MAX_VALUE_CHARS = 80
"""Maximum length of a received value in a message."""

_LOG = logging.getLogger(__name__)


PAGE_POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'"
)
"""Content security policy of pages without images."""


class ProblemError(Exception):
    """A problem to answer with.

    Args:
        name: Name of its kind in `PROBLEMS`.
        detail: Description of what is wrong with this request.
        remedy: Advice for the client; by default the remedy of the kind.
        headers: Headers of the response.
        errors: Wrong parameters, each with `parameter`, `in` and `message`.
        members: Further members of the problem (RFC 9457, 3.2).
    """

    def __init__(
        self,
        name: str,
        detail: str,
        *,
        remedy: str = "",
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        kind = PROBLEMS[name]
        self._headers = headers
        self._body: dict[str, Any] = {
            "type": f"/problems/{name}",
            "title": kind.title,
            "status": kind.status,
            "detail": detail,
            "remedy": remedy or kind.remedy,
        }
        self._members = {**(members or {}), **({"errors": list(errors)} if errors else {})}

    def response(self, scope: Scope) -> Response:
        """Return the response to the request of this scope: a page where a browser opens a URL."""
        body = self._body | {"instance": f"urn:uuid:{request_id(scope)}"} | self._members
        if scope.get("method") == "GET" and wants_page(scope):
            text, footer = (
                f"{body['detail']} {body['remedy']}",
                f"{body['status']} · {body['instance']}",
            )
            return problem_page(
                scope, body["title"], [text], footer, status=body["status"], headers=self._headers
            )
        # In ASCII, because a request may hold text that is not UTF-8, which the problem repeats.
        text = json.dumps(body, separators=(",", ":"))
        return Response(text, body["status"], self._headers, PROBLEM_MEDIA_TYPE)


def wants_page(scope: Scope) -> bool:
    """Return whether a browser has opened the URL of a request, and not a program."""
    return Headers(scope=scope).get("accept", "").startswith("text/html")


def problem_page(
    scope: Scope, title: str, texts: Sequence[str], footer: str, *,
    status: int = 200, headers: Mapping[str, str] | None = None,
) -> Response:  # fmt: skip
    """Return a page about a problem, with the way home."""
    root = "../" * (scope["path"].removeprefix(scope.get("root_path", "")).count("/") - 1)
    page = render_page(
        "problem.html", {}, title=title, texts=texts, footer=footer, root=root,
        header=page_header("", root),
    )  # fmt: skip
    policy = {"Content-Security-Policy": PAGE_POLICY, "Vary": "Accept"}
    return HTMLResponse(page, status, {**(headers or {}), **policy})


def request_id(scope: Scope) -> str:
    """Return the UUID of a request, which the server's log also shows."""
    return str(scope.get("state", {}).get("request_id", "00000000-0000-0000-0000-000000000000"))


def install_problems(app: FastAPI) -> None:
    """Answer errors as problems. Unexpected errors are left to `security.RequestMiddleware`."""
    for kind in (RooftraceError, ProblemError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, respond)


async def respond(request: Request, error: Exception) -> Response:
    """Return the response to a request that ended with an error of a kind of `install_problems`."""
    match error:
        case RooftraceError():
            return _from_rooftrace(request, error).response(request.scope)
        case RequestValidationError():
            parameters = _parameters(request)
            problems = [wrong_value(one, parameters) for one in error.errors()]
            detail = " ".join(one["message"] for one in problems)
            return ProblemError("invalid-request", detail, errors=problems).response(request.scope)
        case HTTPException():
            return _from_http(request, error)
    assert isinstance(error, ProblemError)
    return error.response(request.scope)


def _from_rooftrace(request: Request, error: RooftraceError) -> ProblemError:
    names = (_BY_ERROR[kind] for kind in type(error).__mro__ if kind in _BY_ERROR)
    name = next(names, "server-error")
    for_operator = name in ("server-error", "out-of-memory", "not-stored")
    if name == "not-stored":
        _LOG.error("request %s: %s", request_id(request.scope), error)
    elif for_operator or PROBLEMS[name].status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _LOG.error("request %s failed", request_id(request.scope), exc_info=error)
    if for_operator:
        # The message of a damaged bundle or a full disk would show paths of the server, and the
        # remedies for a lack of memory are options of the server.
        return ProblemError(name, PROBLEMS[name].meaning)
    headers = None
    if isinstance(error, errors.BusyError):
        headers = {"Retry-After": str(max(1, ceil(error.retry_after_s)))}
    return ProblemError(
        name, in_api_terms(error.message), remedy=in_api_terms(error.remedy), headers=headers
    )


def _parameters(request: Request) -> list[str]:
    """Return the names of the query parameters of an operation."""
    name = getattr(request.scope.get("route"), "operation_id", None)
    routes = (one for path in request.app.openapi()["paths"].values() for one in path.values())
    operation: dict[str, Any] = next((one for one in routes if one.get("operationId") == name), {})
    return [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]


async def check_query(request: Request) -> None:
    """Refuse parameters that are not among those of an operation, which would be ignored silently.

    An operation without parameters takes any, such as one against caches.

    Raises:
        ProblemError: A parameter is not known.
    """
    query = request.query_params
    parameters = _parameters(request) if query else []
    unknown = [name for name in query if parameters and name not in parameters]
    if unknown:
        problems = [
            wrong_value({"type": "extra_forbidden", "loc": ("query", name)}, parameters)
            for name in unknown
        ]
        detail = " ".join(one["message"] for one in problems)
        raise ProblemError("invalid-request", detail, errors=problems)


def wrong_value(one: Mapping[str, Any], known: Sequence[str] = ()) -> dict[str, str]:
    """Return an error of pydantic as an entry of `errors`, with a full sentence."""
    place, *steps = one["loc"]
    # Pydantic adds the place in a list, which a query does not have, and a mark of keys.
    path = [
        str(step)
        for step in steps
        if step != "[key]" and (place != "query" or isinstance(step, str))
    ]
    name = ".".join(path) or str(place)
    subject = f"The {_PLACES.get(place, place)} {name!r}"
    if one["type"] == "missing":
        message = f"{subject} is missing."
    elif one["type"] == "extra_forbidden":
        alike = difflib.get_close_matches(name, known, 1) if place == "query" else []
        message = f"{subject} is not known." + "".join(f" Did you mean {a!r}?" for a in alike)
    else:
        message = f"{subject} is {_shortened(one.get('input'))}: {plain_reason(one)}."
    return {"parameter": name, "in": place, "message": message}


def _shortened(value: object) -> str:
    """Return a value as its client wrote it: Python's null and true have other names."""
    try:
        text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= _MAX_VALUE_CHARS else f"{text[:_MAX_VALUE_CHARS]}…"


def _from_http(request: Request, error: HTTPException) -> Response:
    status, headers = error.status_code, dict(error.headers or {})
    if status < HTTPStatus.BAD_REQUEST:
        return Response(status_code=status, headers=headers)
    phrase = HTTPStatus(status).phrase
    detail = str(error.detail or "")
    name = _BY_STATUS.get(status)
    if name is None:
        # A status that needs no explanation has no type of its own (RFC 9457, 4.2.1).
        body = {
            "type": "about:blank", "title": phrase, "status": status, "detail": detail,
            "instance": f"urn:uuid:{request_id(request.scope)}",
        }  # fmt: skip
        return JSONResponse(body, status, headers, media_type=PROBLEM_MEDIA_TYPE)
    path = _shortened(request.url.path)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        # The exception names the methods of one route; a URL may have several routes.
        headers["Allow"] = ", ".join(_methods(request)) or headers.get("Allow", "")
    if detail in ("", phrase):
        detail = {
            HTTPStatus.NOT_FOUND: f"There is nothing at {path}.",
            HTTPStatus.METHOD_NOT_ALLOWED: f"{path} does not accept {request.method}.",
        }.get(HTTPStatus(status), PROBLEMS[name].meaning)
    return ProblemError(name, detail, headers=headers).response(request.scope)


def _methods(request: Request) -> list[str]:
    """Return the methods of a URL in the OpenAPI description, in alphabetical order."""
    methods: set[str] = set()
    for template, operations in request.app.openapi()["paths"].items():
        if compile_path(template)[0].match(request.url.path):
            methods.update(method.upper() for method in operations)
    return sorted(methods)
