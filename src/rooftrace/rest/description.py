"""OpenAPI description: uploads, responses and problems, and the page that shows it."""

import json
import re
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from inspect import cleandoc
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Request
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from rooftrace.core.system import version_of
from rooftrace.io.html import render_page
from rooftrace.rest.pages import face_router, file_response, has_live, page_header
from rooftrace.rest.problems import (
    PAGE_POLICY,
    PROBLEM_MEDIA_TYPE,
    PROBLEMS,
    ProblemError,
    problem_page,
    wants_page,
)
from rooftrace.rest.schemas import FeatureCollection, ProblemDetails, ProblemPage
from rooftrace.rest.security import NO_KEY_PATHS


class DescribedRoute(APIRoute):
    """An operation of the API, described by its function.

    The name of the function is the id of the operation, the first line of its docstring the
    summary, and the rest of it the description.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        summary, _, more = cleandoc(endpoint.__doc__ or "").partition("\n\n")
        described = {"summary": summary.rstrip("."), "description": more or summary}
        super().__init__(
            path, endpoint, **{**options, **described, "operation_id": endpoint.__name__}
        )


_ABOUT = """\
Finds buildings in overhead images. Errors are problems as defined by RFC 9457 \
(`application/problem+json`): `detail` says what is wrong with the request, `remedy` what to do \
next. Every response has the id of its request in `X-Request-Id`; the server's log shows the same \
id."""

_TAGS = {
    "prediction": "Predict an image and wait for the result.",
    "jobs": "Predict scenes of any size in the background.",
    "ogc": "The same predictions by OGC API – Processes.",
    "map": "Results as map tiles, with what a web map needs to show them.",
    "review": "Accept, reject and correct the buildings of a results folder.",
    "label studio": "ML backend that Label Studio calls for pre-annotations.",
    "operation": "Health, readiness and metrics for the operator of the server.",
    "description": "Description of the API.",
}

_COMMON = ("bad-request", "foreign-origin", "request-timeout", "too-large", "misdirected-request",
           "server-error")  # fmt: skip
"""Problems that every operation may answer."""

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "The password is the key"},
}

_Name = Annotated[
    str, Path(description="Last part of the type of a problem", examples=["too-large"])
]

_ESSENTIALS = ("predict", "create_job", "job", "job_results", "get_tilejson")
"""Operations that the page shows with samples and a form, in this order."""

_PAGE_HEADERS = {"Content-Security-Policy": PAGE_POLICY}

_METHODS = ("get", "post", "put", "patch", "delete", "head", "options")


def problem_responses(*names: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of an operation that may answer with these problems."""
    responses: dict[int | str, dict[str, Any]] = {}
    for name in names:
        kind = PROBLEMS[name]
        content = {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}
        entry = responses.setdefault(
            kind.status, {"description": kind.title, "content": {PROBLEM_MEDIA_TYPE: content}}
        )
        if kind.title not in entry["description"]:
            entry["description"] += f"; {kind.title[0].lower()}{kind.title[1:]}"
        if kind.status == HTTPStatus.TOO_MANY_REQUESTS:
            seconds = {"type": "integer", "minimum": 1}
            entry["headers"] = {
                "Retry-After": {"description": "Seconds to wait before a retry", "schema": seconds}
            }
    return responses


def binary_schema(media_type: str, **more: str) -> dict[str, Any]:
    """Return the schema of bytes; generators of clients know them by their `format`."""
    return {"type": "string", "format": "binary", "contentMediaType": media_type, **more}


def binary_response(description: str, *media_types: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI response of a file in one of several types.

    It is also a file of bytes, the only type that generators of clients know for all of them.
    """
    kinds = dict.fromkeys(("application/octet-stream", *media_types))
    content = {
        kind: {"schema": {"type": "object"} if kind.endswith("json") else binary_schema(kind)}
        for kind in kinds
    }
    return {200: {"description": description, "content": content}}


_IMAGE = binary_schema(
    "application/octet-stream", description="GeoTIFF, PNG, JPEG, WebP or JPEG 2000"
)

REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "The image, in a form or as the body itself. A body may also have its own type, "
    "such as image/tiff.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": _IMAGE},
                "required": ["file"],
                "additionalProperties": False,
            },
            "encoding": {"file": {"contentType": "image/*, application/octet-stream"}},
        },
        # Generators of clients know no media types of images.
        "application/octet-stream": {"schema": _IMAGE},
    },
}
"""Description of a request body that is an image, or a form with one."""

_HEADERS: dict[str, Any] = {
    "Rooftrace-Buildings": ("Number of buildings; not for a mask", {"type": "integer"}),
    "Rooftrace-Built-Up-Share": ("Building share of the valid pixels", {"type": "number"}),
    "Rooftrace-Density": (
        "Density class, if the image has valid pixels", {"enum": ["sparse", "dense"]}),
    "Rooftrace-Gsd-M": ("Metres per pixel, if known", {"type": "number"}),
    "Rooftrace-Threshold": ("Threshold of the building probability", {"type": "number"}),
    "Rooftrace-Valid-Pixels": ("Number of pixels that are not nodata", {"type": "integer"}),
    "Rooftrace-Notes": (
        "Assumptions that were made, as a JSON array of sentences", {"type": "string"}),
    "Content-Disposition": ("Suggested file name", {"type": "string"}),
    "Server-Timing": ("Milliseconds spent on the server", {"type": "string"}),
}  # fmt: skip

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Buildings of the image",
        "headers": {
            name: {"description": text, "schema": schema}
            for name, (text, schema) in _HEADERS.items()
        },
        "content": {
            "application/geo+json": {
                "schema": {"$ref": "#/components/schemas/FeatureCollection"},
            },
            "image/png": {"schema": binary_schema("image/png")},
        },
    },
    **problem_responses(
        "bad-request", "too-large", "unsupported-media-type", "data-error",
        "georeference-error", "gsd-mismatch", "band-mismatch", "config-error", "invalid-request",
        "busy", "predict-error", "out-of-memory", "deadline",
    ),
}  # fmt: skip


def describe(app: FastAPI, *, secured: bool) -> None:
    """Let the OpenAPI description of an app list all responses, including problems."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _openapi(app, secured=secured)
        return app.openapi_schema

    # https://fastapi.tiangolo.com/how-to/extending-openapi/
    app.openapi = openapi  # type: ignore[method-assign]


def _openapi(app: FastAPI, *, secured: bool) -> dict[str, Any]:
    schema = get_openapi(
        title="rooftrace",
        version=version_of("rooftrace") or "0",
        openapi_version="3.1.0",
        description=_ABOUT,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        routes=app.routes,
    )
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    # ProblemDetails replaces FastAPI's own descriptions of wrong values.
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for model in (ProblemDetails, FeatureCollection):
        described = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(described.pop("$defs", {}))
        schemas[model.__name__] = described
    for described in schemas.values():
        # The rest of a docstring is for Python.
        described["description"] = described.get("description", "").partition("\n\nArgs:")[0]
    used = set()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if method in _METHODS:
                _complete(operation, secured=secured and path not in NO_KEY_PATHS)
                used.update(operation.get("tags", ()))
    schema["tags"] = [
        {"name": name, "description": text} for name, text in _TAGS.items() if name in used
    ]
    if secured:
        components["securitySchemes"] = _SCHEMES
    return schema


def _complete(operation: dict[str, Any], *, secured: bool) -> None:
    """Add the responses that every operation may give."""
    responses = operation["responses"]
    for response in responses.values():
        if response["description"] == "Successful Response":
            response["description"] = "Success"
    if "HTTPValidationError" in json.dumps(responses.get("422", {})):
        described = problem_responses("invalid-request")
        responses["422"] = described[HTTPStatus.UNPROCESSABLE_ENTITY]
    names = (*_COMMON, "unauthorized") if secured else _COMMON
    for status, response in problem_responses(*names).items():
        responses.setdefault(str(status), response)
    operation["responses"] = dict(sorted(responses.items()))
    if secured:
        operation["security"] = [{name: []} for name in _SCHEMES]


def pages_router(app: FastAPI) -> APIRouter:
    """Return the router of the pages that describe an app and its problems."""
    router = APIRouter(route_class=DescribedRoute, tags=["description"])
    router.include_router(face_router())

    @router.get("/v1/docs", response_class=HTMLResponse)
    def docs(request: Request) -> Response:
        """Show this description as a page."""
        text = render_page(
            "api.html",
            {
                "json": partial(json.dumps, indent=2, ensure_ascii=False),
                "type_of": _type_of,
                "code": _code,
            },
            header=page_header("api", "../", live=has_live(request)),
            api=app.openapi(),
            operations=(operations := _operations(app.openapi())),
            essentials=[
                one
                for name in _ESSENTIALS
                for tag in operations
                for one in tag["operations"]
                if one["operationId"] == name
            ],
            common={str(PROBLEMS[name].status): PROBLEMS[name].title for name in _COMMON},
        )
        return file_response(request, text.encode(), "text/html; charset=utf-8", _PAGE_HEADERS)

    @router.get(
        "/problems/{name}", response_model=ProblemPage, responses=problem_responses("not-found")
    )
    def problem(request: Request, name: _Name) -> ProblemPage | Response:
        """Explain a kind of problem: its meaning, and a remedy."""
        kind = PROBLEMS.get(name)
        if kind is None:
            raise ProblemError(
                "not-found", f"There is no kind of problem with the name {name[:80]!r}.",
                remedy=f"The names are {', '.join(PROBLEMS)}.",
            )  # fmt: skip
        if wants_page(request.scope):
            return problem_page(
                request.scope, kind.title, [kind.meaning, kind.remedy], f"Status {kind.status}"
            )
        return ProblemPage(
            type=f"/problems/{name}", title=kind.title, status=kind.status,
            meaning=kind.meaning, remedy=kind.remedy,
        )  # fmt: skip

    return router


def _operations(api: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tags, each with its operations."""
    all_operations = [
        {"path": path, "method": method, **operation}
        for path, operations in api["paths"].items()
        for method, operation in operations.items()
        if method in _METHODS
    ]
    names = [tag["name"] for tag in api["tags"]]
    tagged = [
        {**tag, "operations": [one for one in all_operations if tag["name"] in one.get("tags", ())]}
        for tag in api["tags"]
    ]
    rest = [one for one in all_operations if not set(one.get("tags", ())) & set(names)]
    return [*tagged, {"name": "more", "description": "", "operations": rest}] if rest else tagged


def _code(text: str) -> Markup:
    """Return a text as HTML in which `words` in backticks are code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  # nosec B704


def _type_of(schema: dict[str, Any]) -> str:
    """Return a short description of a schema."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_type_of(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return " or ".join(str(one) for one in schema["enum"])
    text = str(schema.get("type", "any"))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        text += f", {low:,.12g} to {high:,.12g}"
    elif low is not None:
        text += f", from {low:,.12g}"
    return text
