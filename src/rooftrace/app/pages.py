"""The pages that come with rooftrace as files, and the one at `/` with its examples.

The page at `/` shows results and jobs as cards, a place to drop images, and examples. It calls the
API like any other client.
"""

from __future__ import annotations

import gzip
import io
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from PIL import Image

from rooftrace.core.types import Window
from rooftrace.io.files import demo_scene_path, written_bytes
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.raster import open_raster, write_raster
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


_HOME_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; base-uri 'none'; frame-ancestors 'self'"
)

EXAMPLES = {
    "town": Window(0, 0, 2048, 2048),
    "settlement": Window(900, 660, 510, 680),
    "streets": Window(1130, 100, 510, 680),
    "warehouses": Window(440, 1210, 510, 680),
}
"""Parts of the demo scene by name: the whole, and three that are predicted at once."""


def home_router() -> APIRouter:
    """Return the routes of the page and of its examples."""
    router = APIRouter(include_in_schema=False)

    # Relative URLs only, because a proxy may serve the server below a folder.
    @router.get("/")
    def root(request: Request) -> Response:
        return page_response(request, "home", _HOME_POLICY)

    @router.get("/jobs")
    def jobs() -> Response:
        return RedirectResponse("./")

    @router.get("/home/examples/{name}.{kind}")
    def example(name: str, kind: str) -> Response:
        if name not in EXAMPLES or kind not in ("tif", "webp"):
            raise ProblemError("not-found", f"The examples are {', '.join(EXAMPLES)}.")
        data = _example(name)[kind]
        return Response(data, media_type="image/tiff" if kind == "tif" else "image/webp")

    router.include_router(static_router("home", _HOME_POLICY))
    return router


@cache
def _example(name: str) -> dict[str, bytes]:
    """Return a part of the demo scene as GeoTIFF and as a picture."""
    raster = open_raster(demo_scene_path()).read(EXAMPLES[name])
    picture = io.BytesIO()
    Image.fromarray(raster.data.transpose(1, 2, 0)).save(picture, "WEBP", quality=55)
    source = ArraySource(raster.data, raster.grid, raster.valid, name)
    tif = written_bytes(f"{name}.tif", lambda path: write_raster(path.parent, name, source))
    return {"tif": tif, "webp": picture.getvalue()}
