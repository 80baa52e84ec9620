"""What all pages share: their header, stylesheet and script, and the headers of responses.

All pages link to `face.css` and `face.js`.
"""

from __future__ import annotations

import gzip
import re
from functools import lru_cache
from typing import Literal
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from markupsafe import Markup

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


def accepts_gzip(request: Request) -> bool:
    """Return whether a browser reads what is compressed with gzip."""
    return "gzip" in request.headers.get("accept-encoding", "").lower()


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


def face_router() -> APIRouter:
    """Return the router of the shared stylesheet and script."""
    router = APIRouter(include_in_schema=False)

    @router.get(f"/{STYLESHEET}")
    def stylesheet(request: Request) -> Response:
        return file_response(request, read_asset(STYLESHEET).encode(), "text/css; charset=utf-8")

    @router.get("/{name}.js")
    def script(request: Request, name: Literal["face", "api"]) -> Response:
        data = read_asset(f"{name}.js").encode()
        return file_response(request, data, "text/javascript; charset=utf-8")

    return router


_NOT_QUOTABLE = re.compile(r'[^ -~]|["%\\]')
"""Characters that browsers read in different ways in the quoted name of a download: those that are
not printable ASCII, quotes, percent signs and backslashes (RFC 6266, appendix D)."""


def content_disposition(
    name: str, kind: Literal["attachment", "inline"] = "attachment", *, plain: str = ""
) -> str:
    """Return the value of the header Content-Disposition (RFC 6266) for a name in any script.

    Args:
        name: Name of the file.
        kind: `attachment` for a download, `inline` for a file that a browser shows.
        plain: Name for programs that read only ASCII, such as curl, where `name` has other
            characters; default `name` with `_` in place of each of them.
    """
    ascii_name = _NOT_QUOTABLE.sub("_", name)
    if ascii_name == name:
        return f'{kind}; filename="{name}"'
    encoded = quote(name, safe="")
    return f"{kind}; filename=\"{plain or ascii_name}\"; filename*=UTF-8''{encoded}"
