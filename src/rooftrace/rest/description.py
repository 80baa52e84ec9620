"""The OpenAPI description, and pages that show it and the problems; all without a network."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, JSONResponse, Response

from rooftrace.core.versions import version_of
from rooftrace.io.page import render_page
from rooftrace.rest.problems import PROBLEMS, ProblemError, problem_responses
from rooftrace.rest.schemas import FeatureCollection, ProblemDetails, ProblemPage

__all__ = ["describe", "pages_router"]

_ABOUT = """\
Finds buildings in overhead images. Errors are problems by RFC 9457 (`application/problem+json`): \
`detail` says what is wrong with the request, `remedy` what to do now. Every answer names its \
request in `X-Request-Id`, as the server's log does."""

_TAGS = {
    "prediction": "Images that are answered at once.",
    "jobs": "Scenes of any size, in the background.",
    "label studio": "What Label Studio asks of a backend for pre-annotations.",
    "operation": "For those who run the server.",
    "description": "What this server can do.",
}

_COMMON = ("bad-request", "foreign-origin", "request-timeout", "too-large", "misdirected-request",
           "server-error")  # fmt: skip
"""What stands before every operation."""

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key is the password."},
}

_Name = Annotated[str, Path(description="As in the type of a problem.", examples=["too-large"])]

_OPEN = ("/healthz", "/readyz")
_METHODS = ("get", "post", "put", "patch", "delete", "head", "options")
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def describe(app: FastAPI, *, secured: bool) -> None:
    """Have an app tell all that its operations answer, problems included.

    Args:
        app: with its routers.
        secured: whether it asks for an API key.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(app, secured=secured)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(app: FastAPI, *, secured: bool) -> dict[str, Any]:
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
    # A description of every wrong value takes its place.
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for model in (ProblemDetails, FeatureCollection):
        own = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(own.pop("$defs", {}))
        schemas[model.__name__] = own
    used = set()
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if method in _METHODS:
                _complete(operation, secured=secured and path not in _OPEN)
                used.update(operation.get("tags", ()))
    schema["tags"] = [
        {"name": name, "description": told} for name, told in _TAGS.items() if name in used
    ]
    if secured:
        components["securitySchemes"] = _SCHEMES
    return schema


def _complete(operation: dict[str, Any], *, secured: bool) -> None:
    """Give an operation what it may answer whatever it does."""
    responses = operation["responses"]
    for response in responses.values():
        if response["description"] == "Successful Response":
            response["description"] = "As asked."
    if "HTTPValidationError" in json.dumps(responses.get("422", {})):
        told = problem_responses("invalid-request")
        responses["422"] = told[HTTPStatus.UNPROCESSABLE_ENTITY]
    names = (*_COMMON, "unauthorized") if secured else _COMMON
    for status, response in problem_responses(*names).items():
        responses.setdefault(str(status), response)
    operation["responses"] = dict(sorted(responses.items()))
    if secured:
        operation["security"] = [{name: []} for name in _SCHEMES]


def pages_router(app: FastAPI) -> APIRouter:
    """The router of an app's own description.

    Args:
        app: whose operations `/v1/docs` lists.
    """
    router = APIRouter(tags=["description"])

    @router.get(
        "/v1/docs",
        summary="This description, for people",
        operation_id="docs",
        response_class=HTMLResponse,
    )
    def docs() -> HTMLResponse:
        """A page that loads nothing from elsewhere."""
        text = render_page(
            "api.html",
            {"code": _code, "kind": _kind},
            api=app.openapi(),
            operations=_operations(app.openapi()),
            common={str(PROBLEMS[name].status): PROBLEMS[name].title for name in _COMMON},
        )
        return _page(text)

    @router.get(
        "/problems/{name}",
        summary="What a problem means",
        operation_id="problem",
        response_model=ProblemPage,
        responses={
            200: {"description": "The explanation.", "content": {"text/html": {}}},
            **problem_responses("not-found"),
        },
    )
    def problem(name: _Name, request: Request) -> Response:
        """For programs as JSON, for browsers as a page."""
        if name not in PROBLEMS:
            raise ProblemError(
                "not-found", f"There is no problem called {name[:80]!r}.",
                remedy=f"There are {', '.join(PROBLEMS)}.",
            )  # fmt: skip
        kind = PROBLEMS[name]
        if "text/html" in request.headers.get("accept", ""):
            return _page(render_page("problem.html", {}, name=name, problem=kind))
        page = ProblemPage(
            type=f"/problems/{name}", title=kind.title, status=kind.status,
            meaning=kind.meaning, remedy=kind.remedy,
        )  # fmt: skip
        return JSONResponse(page.model_dump(), headers={"Vary": "Accept"})

    return router


def _page(text: str) -> HTMLResponse:
    return HTMLResponse(text, headers={"Content-Security-Policy": _PAGE_POLICY, "Vary": "Accept"})


def _operations(api: dict[str, Any]) -> list[dict[str, Any]]:
    """By tag, each with its path and method."""
    found = [
        {"path": path, "method": method, **operation}
        for path, operations in api["paths"].items()
        for method, operation in operations.items()
        if method in _METHODS
    ]
    names = [tag["name"] for tag in api["tags"]]
    tagged = [
        {**tag, "operations": [one for one in found if tag["name"] in one.get("tags", ())]}
        for tag in api["tags"]
    ]
    rest = [one for one in found if not set(one.get("tags", ())) & set(names)]
    return [*tagged, {"name": "more", "description": "", "operations": rest}] if rest else tagged


def _code(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return " or ".join(str(one) for one in schema["enum"])
    said = str(schema.get("type", "any"))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        said += f", {low:,.12g} to {high:,.12g}"
    elif low is not None:
        said += f", from {low:,.12g}"
    return said
