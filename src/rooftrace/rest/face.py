"""The header and the stylesheet that all pages share.

A page that is a file has `HEADER_MARK` where `with_header` puts the header, and a link to
`face.css`. A page that loads no other files includes the asset `face.css`.
"""

from __future__ import annotations

import gzip
from functools import lru_cache

from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from rooftrace.io.html import read_asset

__all__ = [
    "HEADER_MARK",
    "PAGES",
    "STYLESHEET",
    "face_router",
    "file_response",
    "page_header",
    "with_header",
]

PAGES = {
    "page": ("Page", "./"),
    "map": ("Map", "map"),
    "jobs": ("Jobs", "jobs"),
    "live": ("Live", "live"),
    "api": ("API", "v1/docs"),
}
"""Link text and address of each page, the address from the root of the server."""

STYLESHEET = "face.css"
"""Address of the shared stylesheet from the root of the server, and its name as an asset."""

HEADER_MARK = "<!-- header -->"

_SIGN = (
    '<svg viewBox="0 0 64 64" width="24" height="24" aria-hidden="true"><path d="M8 30 32 12l24 18'
    'M14 27v25h36V27M26 52V38h12v14" fill="none" stroke="currentColor" stroke-width="5" '
    'stroke-linejoin="round"/></svg>'
)


def page_header(current: str, root: str = "") -> Markup:
    """Return the header of a page as HTML: the product's name, and links to all pages.

    Args:
        current: Name in `PAGES` of the page; another name marks no link.
        root: Relative address of the server's root from the page, such as `../`.
    """
    links = "".join(
        f'<a href="{root}{address}"{_CURRENT if name == current else ""}>{text}</a>'
        for name, (text, address) in PAGES.items()
    )
    # Made from this module's own texts, and addresses that callers write as constants.
    return Markup(  # noqa: S704  # nosec B704
        f'<header class="face-head"><a class="face-name" href="{root}./">{_SIGN}rooftrace</a>'
        f'<nav aria-label="Pages">{links}</nav></header>'
    )


_CURRENT = ' aria-current="page"'


def with_header(html: str, current: str, root: str = "") -> str:
    """Return the text of a page with the header in the place of `HEADER_MARK`.

    Args:
        html: Text of the page.
        current: See `page_header`.
        root: See `page_header`.
    """
    return html.replace(HEADER_MARK, page_header(current, root))


@lru_cache(maxsize=64)
def _packed(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)


def file_response(
    request: Request, data: bytes, media_type: str, headers: dict[str, str] | None = None
) -> Response:
    """Return a file of a page, compressed with gzip where the browser reads that.

    Args:
        request: Request that is answered.
        data: Content of the file, the same at each call.
        media_type: Type of the content.
        headers: Further headers.
    """
    given = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding", **(headers or {})}
    if "gzip" in request.headers.get("accept-encoding", ""):
        data = _packed(data)
        given["Content-Encoding"] = "gzip"
    return Response(data, media_type=media_type, headers=given)


def face_router() -> APIRouter:
    """Return the router of the shared stylesheet."""
    router = APIRouter(include_in_schema=False)

    @router.get(f"/{STYLESHEET}")
    def stylesheet(request: Request) -> Response:
        return file_response(request, read_asset(STYLESHEET).encode(), "text/css; charset=utf-8")

    return router
