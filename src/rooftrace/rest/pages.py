"""What all pages share: their files, header, stylesheet and script, and the headers of responses.

A page at `/NAME` has its files in the folder `NAME/static` of `app`. All pages link to `face.css`
and `face.js`, except those of problems, which hold the style.
"""

import gzip
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Literal

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup
from starlette.datastructures import Headers
from starlette.staticfiles import NotModifiedResponse, StaticFiles

from rooftrace.io.html import read_asset

PAGES = {
    "home": ("Home", "./"),
    "map": ("Map", "map"),
    "live": ("Live", "live"),
    "api": ("API", "v1/docs"),
}
"""Link text and URL of each page, the URL relative to the root of the server."""

STYLESHEET = "face.css"
"""URL of the shared stylesheet from the root of the server, and its name as an asset."""

SCRIPT = "face.js"
"""URL of the shared script from the root of the server, and its name as an asset."""

_SIGN = (
    '<svg viewBox="0 0 64 64" width="24" height="24" aria-hidden="true"><path d="M8 30 32 12l24 18'
    'M14 27v25h36V27M26 52V38h12v14" fill="none" stroke="currentColor" stroke-width="5" '
    'stroke-linejoin="round"/></svg>'
)


_BUTTON = (
    '<button type="button" class="face-theme" aria-label="Light or dark" title="Light or dark">'
    '<svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true"><circle cx="12" cy="12" '
    'r="8.5" fill="none" stroke="currentColor" stroke-width="2"/><path d="M12 3.5a8.5 8.5 0 0 1 0 '
    '17z" fill="currentColor"/></svg></button>'
)


def page_header(current: str, root: str = "", *, live: bool = False) -> Markup:
    """Return the header of a page as HTML: the product's name, links to all pages, and the button
    for light or dark.

    Args:
        current: Name in `PAGES` of the page; another name marks no link.
        root: Relative URL of the server's root from the page, such as `../`.
        live: Whether the server has cameras; the page of live video has no link otherwise.
    """
    current_mark = ' aria-current="page"'
    links = "".join(
        f'<a href="{root}{url}"{current_mark if name == current else ""}>{text}</a>'
        for name, (text, url) in PAGES.items()
        if name != "live" or live
    )
    # Made from this module's own texts, and URLs that callers write as constants.
    return Markup(  # noqa: S704  # nosec B704
        f'<header class="face-head"><a class="face-name" href="{root}./">{_SIGN}'
        f"<span>rooftrace</span></a>"
        f'<nav aria-label="Pages">{links}</nav>{_BUTTON}</header>'
    )


def has_live(request: Request) -> bool:
    """Return whether the server of a request has cameras."""
    return bool(getattr(request.app.state, "live", False))


@lru_cache(maxsize=64)
def _packed(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)


def compressed(data: bytes) -> bytes:
    """Return data that is made for one request, compressed with gzip at a fast level."""
    return gzip.compress(data, 3, mtime=0)


def accepts_gzip(request: Request) -> bool:
    """Return whether a client reads gzip; a weight of 0 refuses it (RFC 9110, 12.5.3)."""
    for coding in ",".join(request.headers.getlist("accept-encoding")).lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() == "gzip":
            return re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight) is None
    return False


def not_modified(request: Request, headers: Mapping[str, str]) -> Response | None:
    """Return 304 if the client has the response already, by its ETag, or Last-Modified if any."""
    here = Headers(headers)
    is_known = StaticFiles().is_not_modified(here, request.headers)
    return NotModifiedResponse(here) if is_known else None


def file_response(
    request: Request, data: bytes, media_type: str, headers: dict[str, str] | None = None,
    *, gzipped: bytes | None = None,
) -> Response:  # fmt: skip
    """Return a file of a page, compressed with gzip where the browser reads that.

    Args:
        request: Request that is answered.
        data: Content of the file, the same at each call.
        media_type: Type of the content.
        headers: Further headers.
        gzipped: The content compressed by a slower packer than `gzip`, where there is one.
    """
    fields = {"Cache-Control": "no-cache", **(headers or {})}
    fields["Vary"] = ", ".join(filter(None, [fields.get("Vary"), "Accept-Encoding"]))
    if accepts_gzip(request):
        data = gzipped or _packed(data)
        fields["Content-Encoding"] = "gzip"
    return Response(data, media_type=media_type, headers=fields)


_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}


def face_router() -> APIRouter:
    """Return the router of the shared stylesheet and scripts."""
    router = APIRouter(include_in_schema=False)

    @router.get(f"/{STYLESHEET}")
    def stylesheet(request: Request) -> Response:
        return file_response(request, read_asset(STYLESHEET).encode(), _KINDS[".css"])

    @router.get("/{name}.js")
    def script(request: Request, name: Literal["face", "words", "api"]) -> Response:
        return file_response(request, read_asset(f"{name}.js").encode(), _KINDS[".js"])

    return router


def static_router(name: str, policy: str) -> APIRouter:
    """Return a router for a page at `/NAME` and its files at `/NAME/static/FILE`."""
    router = APIRouter(prefix=f"/{name}")

    @router.get("", include_in_schema=False)
    def page(request: Request) -> Response:
        return page_response(request, name, policy)

    @router.get("/", include_in_schema=False)
    def slash() -> Response:
        # Relative, because a proxy may serve the server below a folder.
        return RedirectResponse(f"../{name}")

    @router.get("/static/{file:path}", include_in_schema=False)
    def static(request: Request, file: str) -> Response:
        asset = _assets(name).get(file)
        if asset is None:
            raise HTTPException(404, "The page has no such file.")
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
