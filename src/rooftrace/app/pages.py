"""The page at `/` with its examples, and the page `/live`, which shows cameras as MJPEG.

The page at `/` shows results and jobs as cards, a place to drop images, and examples. It calls the
API like any other client.
"""

from __future__ import annotations

import io
from functools import cache

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from PIL import Image

from rooftrace.core.types import Window
from rooftrace.io.files import demo_scene_path, written_bytes
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.raster import open_raster, write_raster
from rooftrace.rest.pages import file_response, has_live, page_header
from rooftrace.rest.problems import ProblemError

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
