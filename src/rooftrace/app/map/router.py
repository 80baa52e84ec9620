"""The addresses of the map: its page, its folders, and tiles."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Callable, Coroutine
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from rooftrace.app.map.catalogue import Catalogue
from rooftrace.app.map.pictures import clear_picture
from rooftrace.app.map.place import TileId
from rooftrace.app.map.scene import MapScene
from rooftrace.app.map.store import Store
from rooftrace.core.errors import RooftraceError

__all__ = ["map_router"]

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
_VECTOR = "application/vnd.mapbox-vector-tile"
_GZIP_LEVEL = 3
# The page asks nobody but the server that it came from. MapLibre styles its elements in place.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'self'"
)
_NO_FOLDER = "There is no such results folder: it is not among those that this server shows."
_NO_IMAGE = "There is no such image in this folder."
_NO_TILE = "There is no such tile."

Layer = Literal["image", "mask", "density", "buildings", "cells"]
Filter = Annotated[int, Query(ge=0, le=2**40)]


class _Told(APIRoute):
    """What goes wrong on purpose, as a sentence with its remedy."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await handle(request)
            except RooftraceError as error:
                detail = error.message
            except HTTPException as error:
                if error.status_code != 404:
                    raise
                return _problem(404, "Not found", str(error.detail))
            return _problem(422, "It cannot be shown", detail)

        return told


def map_router(catalogue: Catalogue) -> APIRouter:
    """The map of some results folders, under `/map`.

    Args:
        catalogue: of the folders. What a request names is looked up in it and in the listing of the
            folder; nothing of a request becomes part of a path.
    """
    store = Store(catalogue)
    router = APIRouter(prefix="/map", route_class=_Told, include_in_schema=False)
    _add_page(router)
    _add_folders(router, store)
    _add_scene(router, store)
    _add_tiles(router, store)
    return router


def _add_page(router: APIRouter) -> None:
    @router.get("")
    def page() -> Response:
        found = _assets()["index.html"]
        return _asset(found, "index.html", {"Content-Security-Policy": _POLICY})

    @router.get("/static/{name:path}")
    def static(name: str) -> Response:
        found = _assets().get(name)
        if found is None:
            raise HTTPException(404, "There is no such file.")
        return _asset(found, name, {})


def _add_folders(router: APIRouter, store: Store) -> None:
    @router.get("/folders")
    def folders() -> list[dict[str, str]]:
        return [{"id": one.id, "title": one.title} for one in store.catalogue.entries()]

    @router.get("/folders/{id}")
    def folder(id: str) -> dict[str, Any]:  # noqa: A002
        results = store.folder(id)
        if results is None:
            raise HTTPException(404, _NO_FOLDER)
        model = store.model(results)
        told = results.run.get("bundle") or {}
        return {
            "state": results.state,
            "message": results.message.replace(f"{results.path}/", ""),
            "created": results.run.get("created"),
            "images": [
                {"name": one.name, "buildings": one.record.get("buildings")}
                for one in results.images.values()
            ],
            "model": {
                "name": told.get("name"),
                "licence": "" if model is None else model.licence,
                "attribution": "" if model is None else model.attribution,
            },
        }


def _add_scene(router: APIRouter, store: Store) -> None:
    @router.get("/folders/{id}/images/{name}")
    def scene(id: str, name: str) -> dict[str, Any]:  # noqa: A002
        return _scene(store, id, name, anew=True).describe()

    @router.get("/folders/{id}/images/{name}/count")
    def count(
        id: str,  # noqa: A002
        name: str,
        west: Annotated[float, Query(ge=-720, le=720)],
        south: Annotated[float, Query(ge=-90, le=90)],
        east: Annotated[float, Query(ge=-720, le=720)],
        north: Annotated[float, Query(ge=-90, le=90)],
        score: Filter = 0,
        size: Filter = 0,
    ) -> dict[str, int]:
        return _scene(store, id, name).counts((west, south, east, north), score, size)

    @router.get("/folders/{id}/images/{name}/buildings/{row}")
    def building(id: str, name: str, row: int) -> dict[str, Any]:  # noqa: A002
        vectors = _scene(store, id, name).vectors
        found = None if vectors is None else vectors.outlines.attributes(row)
        if found is None:
            raise HTTPException(404, "There is no such building.")
        return found


def _add_tiles(router: APIRouter, store: Store) -> None:
    # More at a time would only wait for the processor, with their pixels in memory.
    turn = threading.BoundedSemaphore(max(2, os.cpu_count() or 2))

    @router.get("/folders/{id}/images/{name}/{layer}/{zoom}/{col}/{row}")
    def tile(
        request: Request,
        id: str,  # noqa: A002
        name: str,
        layer: Layer,
        zoom: int,
        col: int,
        row: int,
        score: Filter = 0,
        size: Filter = 0,
    ) -> Response:
        which = TileId(zoom, col, row)
        if not which.exists:
            raise HTTPException(404, _NO_TILE)
        scene = _scene(store, id, name)
        filters = (score, size) if layer == "cells" else ()
        key = (id, name, scene.stamp, layer, which, *filters)
        headers = {
            "ETag": '"' + "-".join(map(str, (scene.stamp, layer, zoom, col, row, *filters))) + '"',
            # The page names the stamp in the address, so that what is kept there is never old.
            "Cache-Control": "private, max-age=86400"
            if request.query_params.get("v") == scene.stamp
            else "no-cache",
        }
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        data = store.tiles.get(key)
        if data is None:
            with turn:
                data = _made(scene, layer, which, score, size)
            store.tiles.put(key, data)
        if layer not in ("buildings", "cells"):
            kind = "image/webp" if data[:4] == b"RIFF" else "image/png"
            return Response(data, media_type=kind, headers=headers)
        headers["Vary"] = "Accept-Encoding"
        if data and "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
        elif data:
            data = gzip.decompress(data)
        return Response(data, media_type=_VECTOR, headers=headers)


def _made(scene: MapScene, layer: Layer, tile: TileId, score: int, size: int) -> bytes:
    """A tile; those of vectors are packed by gzip."""
    if layer == "image" or layer == "mask" or layer == "density":
        return scene.picture(layer, tile) or clear_picture()
    vectors = scene.vectors
    if vectors is None:
        return b""
    made = vectors.buildings(tile) if layer == "buildings" else vectors.cells(tile, score, size)
    return gzip.compress(made, _GZIP_LEVEL, mtime=0) if made else b""


def _scene(store: Store, id: str, name: str, *, anew: bool = False) -> MapScene:  # noqa: A002
    scene = store.scene(id, name, anew=anew)
    if scene is None:
        known = store.catalogue.folder(id) is not None
        raise HTTPException(404, _NO_IMAGE if known else _NO_FOLDER)
    return scene


def _problem(status: int, title: str, detail: str) -> Response:
    return JSONResponse(
        {"title": title, "status": status, "detail": detail},
        status,
        media_type="application/problem+json",
    )


@cache
def _assets() -> dict[str, Traversable]:
    """The files of the page, by their names below `static`."""
    root = files("rooftrace") / "app" / "map" / "static"
    found = {one.name: one for one in root.iterdir() if one.is_file()}
    vendor = root / "vendor"
    return found | {f"vendor/{one.name}": one for one in vendor.iterdir() if one.is_file()}


def _asset(found: Traversable, name: str, headers: dict[str, str]) -> Response:
    kind = next((k for ending, k in _KINDS.items() if name.endswith(ending)), "text/plain")
    return Response(
        found.read_bytes(), media_type=kind, headers={"Cache-Control": "no-cache", **headers}
    )
