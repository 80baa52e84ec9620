"""The files of a page that comes with rooftrace, and the routes that serve them."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from fastapi import APIRouter, Request, Response

from rooftrace.rest.face import file_response, has_live, page_header
from rooftrace.rest.problems import ProblemError

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}


def static_router(name: str, policy: str) -> APIRouter:
    """Return a router for a page at `/NAME` and its files at `/NAME/static/FILE`.

    Args:
        name: Name of the page and of its folder below `app`.
        policy: Content security policy of the page.
    """
    router = APIRouter(prefix=f"/{name}")

    @router.get("", include_in_schema=False)
    def page(request: Request) -> Response:
        return page_response(request, name, policy)

    @router.get("/static/{file:path}", include_in_schema=False)
    def static(request: Request, file: str) -> Response:
        asset = _assets(name).get(file)
        if asset is None:
            raise ProblemError("not-found", "The page has no such file.")
        data, gzipped = asset.read_bytes(), None
        if asset.name.endswith(".gz"):
            data, gzipped = gzip.decompress(data), data
        kind = _KINDS.get(PurePosixPath(file).suffix, "text/plain")
        return file_response(request, data, kind, gzipped=gzipped)

    return router


def page_response(request: Request, name: str, policy: str) -> Response:
    """Return a page with the header; arguments as for `static_router`."""
    html = _assets(name)["index.html"].read_text(encoding="utf-8")
    text = html.replace("<!-- header -->", page_header(name, live=has_live(request)))
    headers = {"Content-Security-Policy": policy}
    return file_response(request, text.encode(), _KINDS[".html"], headers)


@cache
def _assets(name: str) -> dict[str, Traversable]:
    """Return the files of a page by their names below `static`, without the suffix `.gz`."""
    root = files("rooftrace") / "app" / name / "static"
    assets = {one.name: one for one in root.iterdir() if one.is_file()}
    if (root / "vendor").is_dir():
        vendored = [one for one in (root / "vendor").iterdir() if one.is_file()]
        assets |= {f"vendor/{one.name.removesuffix('.gz')}": one for one in vendored}
    return assets
