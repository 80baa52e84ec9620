"""HTTP routes of the map: its page, its folders and its tiles.

The server keeps opened scenes, and tiles as far as memory allows. Other map programs open the tiles
by their TileJSON 3.0.0: https://github.com/mapbox/tilejson-spec/tree/master/3.0.0
"""

from __future__ import annotations

import gzip
import hashlib
import re
import threading
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from math import floor, log2
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from rooftrace.app.map.outlines import BuildingFilter, Side
from rooftrace.app.map.place import DEEPEST_TILE_ZOOM
from rooftrace.app.map.pyramid import clear_picture
from rooftrace.app.map.results import (
    ResultsCatalogue,
    ResultsFolder,
    hidden_folders,
    read_results,
    without_folders,
)
from rooftrace.app.map.scene import ComparisonScene, MapScene
from rooftrace.core.cache import LruCache
from rooftrace.core.errors import ConfigError, GeoreferenceError, RooftraceError
from rooftrace.core.parallel import core_count
from rooftrace.io.web_mercator import TileName
from rooftrace.models.bundle import BUNDLED_MODELS
from rooftrace.models.exported import read_model
from rooftrace.models.spec import BundleSpec
from rooftrace.rest.face import accepted_encodings, file_response, with_header
from rooftrace.rest.jobs import server_url
from rooftrace.rest.problems import ProblemError

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
_VECTOR = "application/vnd.mapbox-vector-tile"
_GZIP_LEVEL = 3
# The page sends requests only to its own server, and to that of the basemap if there is one.
# MapLibre sets the style of its elements in place.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'self'"
)
_SCENES = 4
_FOLDERS = 16
_TILE_BYTES = 64 * 2**20

Minimum = Annotated[int, Query(ge=0, le=2**40)]
Kinds = Annotated[str | None, Query(pattern=r"^(\d{1,3}(,\d{1,3}){0,255})?$")]


def _filter(
    score: Minimum = 0, size: Minimum = 0, kinds: Kinds = None, side: Side | None = None
) -> BuildingFilter:
    chosen = None if kinds is None else frozenset(int(one) for one in kinds.split(",") if one)
    return BuildingFilter(score, size, chosen, side)


Filter = Annotated[BuildingFilter, Depends(_filter)]


def map_router(
    catalogue: ResultsCatalogue, basemap: Basemap | None = None, *, trains: bool = False
) -> APIRouter:
    """Return the routes of the map of some results folders, under `/map`.

    The app needs `install_problems`: errors are answered as problems.

    Args:
        catalogue: Results folders. Names in requests are looked up in it and in the listing of a
            folder; no part of a request becomes part of a path.
        basemap: Tiles under the scenes; None for none.
        trains: Whether the server has the routes of `app.map.training`.
    """
    store = _Store(catalogue)
    router = APIRouter(prefix="/map", include_in_schema=False)
    _add_page(router, basemap, trains)
    _add_folders(router, store)
    _add_scene(router, store)
    _add_tiles(router, store)
    return router


def _add_page(router: APIRouter, basemap: Basemap | None, trains: bool) -> None:
    shown = None if basemap is None else {"address": basemap.address, "credit": basemap.credit}
    policy = _POLICY
    if basemap is not None:
        # MapLibre fetches pictures or loads them as images.
        policy = policy.replace("img-src 'self'", f"img-src 'self' {basemap.origin}")
        policy = f"{policy}; connect-src 'self' {basemap.origin}"

    @router.get("/settings")
    def settings() -> dict[str, Any]:
        return {"basemap": shown, "trains": trains}

    @router.get("")
    def page(request: Request) -> Response:
        text = with_header(_assets()["index.html"].read_text(encoding="utf-8"), "map")
        headers = {"Content-Security-Policy": policy}
        return file_response(request, text.encode(), _KINDS[".html"], headers)

    @router.get("/static/{name:path}")
    def static(request: Request, name: str) -> Response:
        found = _assets().get(name)
        if found is None:
            raise ProblemError("not-found", "The page has no such file.")
        kind = _KINDS.get(PurePosixPath(name).suffix, "text/plain")
        data, gzipped = found.read_bytes(), None
        if found.name.endswith(".gz"):
            data, gzipped = gzip.decompress(data), data
        return file_response(request, data, kind, gzipped=gzipped)


def _add_folders(router: APIRouter, store: _Store) -> None:
    @router.get("/folders")
    def folders() -> list[dict[str, str]]:
        return [{"id": one.id, "title": one.title} for one in store.catalogue.entries()]

    @router.get("/folders/{id}")
    def folder(id: str) -> dict[str, Any]:  # noqa: A002
        entry, results = store.catalogue.entry(id), store.folder(id)
        if entry is None or results is None:
            raise _no_folder()
        model = store.model(results)
        recorded = results.run.get("bundle") or {}
        return {
            "state": results.state,
            "title": entry.title,
            "message": without_folders(results.message, results.path),
            "created": results.run.get("created"),
            "images": [
                {"name": one.name, "buildings": one.record.get("buildings")}
                for one in results.images.values()
            ],
            "model": {
                "name": recorded.get("name"),
                "licence": "" if model is None else model.licence,
                "attribution": "" if model is None else model.attribution,
            },
        }


def _add_scene(router: APIRouter, store: _Store) -> None:
    @router.get("/folders/{id}/images/{name}")
    def scene(request: Request, id: str, name: str) -> dict[str, Any]:  # noqa: A002
        described = _scene(store, id, name, refresh=True).describe()
        tiles = {
            layer: f"{_address(request, id, name, layer)}/tiles.json"
            for layer in TILE_LAYERS
            if not described["flat"] and described["buildings" if layer == "cells" else layer]
        }
        return {**described, "tiles": tiles}

    # Before the route of a building, which would take the name of the file for a row.
    @router.get("/folders/{id}/images/{name}/{layer}/tiles.json")
    def tiles(request: Request, id: str, name: str, layer: TileLayer) -> Response:  # noqa: A002
        scene = _scene(store, id, name, refresh=True)
        address = f"{_address(request, id, name, layer)}/{{z}}/{{x}}/{{y}}?v={scene.stamp}"
        results = store.folder(id)
        model = None if results is None else store.model(results)
        attribution = "" if model is None else model.attribution
        document = tilejson(scene.describe(), layer, address, attribution)
        if document is None:
            raise ProblemError(
                "not-found", f"The image {name} has no tiles of the layer {layer}.",
                remedy=f"See the member tiles of {_image_path(id, name)}.",
            )  # fmt: skip
        return JSONResponse(document, headers={"Cache-Control": "no-cache"})

    @router.get("/folders/{id}/images/{name}/count")
    def count(
        id: str,  # noqa: A002
        name: str,
        west: Annotated[float, Query(ge=-720, le=720)],
        south: Annotated[float, Query(ge=-90, le=90)],
        east: Annotated[float, Query(ge=-720, le=720)],
        north: Annotated[float, Query(ge=-90, le=90)],
        chosen: Filter,
    ) -> dict[str, Any]:
        return _scene(store, id, name).counts((west, south, east, north), chosen)

    @router.get("/folders/{id}/images/{name}/buildings/{row}")
    def building(id: str, name: str, row: int) -> dict[str, Any]:  # noqa: A002
        vectors = _scene(store, id, name).vectors
        found = None if vectors is None else vectors.outlines.attributes(row)
        if found is None:
            raise ProblemError(
                "not-found", f"The image {name} has no building in row {row}.",
                remedy="The image may have been predicted again: open the map anew.",
            )  # fmt: skip
        return found


def _add_tiles(router: APIRouter, store: _Store) -> None:
    # More at the same time would wait for the processor and hold their pixels in memory.
    turn = threading.BoundedSemaphore(max(2, core_count()))

    @router.get("/folders/{id}/images/{name}/{layer}/{zoom}/{col}/{row}")
    def tile(
        request: Request,
        id: str,  # noqa: A002
        name: str,
        layer: TileLayer,
        zoom: int,
        col: int,
        row: int,
        chosen: Filter,
    ) -> Response:
        which = TileName(zoom, row, col)
        if not which.exists or zoom > DEEPEST_TILE_ZOOM:
            raise ProblemError(
                "not-found", f"There is no tile {zoom}/{col}/{row}.",
                remedy="See the TileJSON of the layer for the zooms that have tiles.",
            )  # fmt: skip
        scene = _scene(store, id, name)
        used = chosen if layer == "cells" else None
        key = (id, name, scene.stamp, layer, which, used)
        named = "" if used is None else f"-{hashlib.sha256(repr(used).encode()).hexdigest()[:12]}"
        headers = {
            "ETag": f'"{scene.stamp}-{layer}-{zoom}-{col}-{row}{named}"',
            # The page puts the stamp into the address, so a cached tile is never out of date.
            "Cache-Control": "private, max-age=86400"
            if request.query_params.get("v") == scene.stamp
            else "no-cache",
        }
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        data = store.tiles.get(key)
        if data is None:
            with turn:
                data = _tile_bytes(scene, layer, which, chosen)
            store.tiles.put(key, data)
        if layer not in ("buildings", "cells"):
            kind = "image/webp" if data[:4] == b"RIFF" else "image/png"
            return Response(data, media_type=kind, headers=headers)
        headers["Vary"] = "Accept-Encoding"
        if data and "gzip" in accepted_encodings(request):
            headers["Content-Encoding"] = "gzip"
        elif data:
            data = gzip.decompress(data)
        return Response(data, media_type=_VECTOR, headers=headers)


def _tile_bytes(scene: MapScene, layer: TileLayer, tile: TileName, chosen: BuildingFilter) -> bytes:
    """Return a tile; vector tiles are compressed with gzip."""
    if layer != "buildings" and layer != "cells":
        return scene.picture(layer, tile) or clear_picture()
    vectors = scene.vectors
    if vectors is None:
        return b""
    made = vectors.buildings(tile) if layer == "buildings" else vectors.cells(tile, chosen)
    return gzip.compress(made, _GZIP_LEVEL, mtime=0) if made else b""


def _address(request: Request, id: str, name: str, layer: TileLayer) -> str:  # noqa: A002
    """Return the absolute address of a layer."""
    return f"{server_url(request)}{_image_path(id, name)}/{layer}"


def _folder_path(id: str) -> str:  # noqa: A002
    # The id of a comparison has the name of its folder, with any characters.
    return f"/map/folders/{quote(id, safe='')}"


def _image_path(id: str, name: str) -> str:  # noqa: A002
    return f"{_folder_path(id)}/images/{quote(name, safe='')}"


def _scene(store: _Store, id: str, name: str, *, refresh: bool = False) -> MapScene:  # noqa: A002
    scene = store.scene(id, name, refresh=refresh)
    if scene is None:
        if store.catalogue.folder(id) is None:
            raise _no_folder()
        raise ProblemError(
            "not-found", "There is no such image in this folder.",
            remedy=f"See {_folder_path(id)} for its images; the image may have been removed.",
        )  # fmt: skip
    return scene


def _no_folder() -> ProblemError:
    return ProblemError(
        "not-found",
        "There is no such results folder: it is not among those that this server shows.",
        remedy="See /map/folders for the folders. The results of a job are removed with the job.",
    )


@cache
def _assets() -> dict[str, Traversable]:
    """Return the files of the page by their names below `static`."""
    root = files("rooftrace") / "app" / "map" / "static"
    found = {one.name: one for one in root.iterdir() if one.is_file()}
    vendor = root / "vendor"
    return found | {
        f"vendor/{one.name.removesuffix('.gz')}": one for one in vendor.iterdir() if one.is_file()
    }


@dataclass(frozen=True)
class _Opened:
    """A scene that is opened once, also when several requests ask for it at the same time."""

    lock: threading.Lock
    scene: list[MapScene]


class _Store:
    """Look up what requests name."""

    def __init__(self, catalogue: ResultsCatalogue) -> None:
        self.catalogue = catalogue
        self.tiles: LruCache[Hashable, bytes] = LruCache(_TILE_BYTES, len)
        self._scenes: LruCache[tuple[Path, str], _Opened] = LruCache(_SCENES)
        self._models: LruCache[str, list[BundleSpec]] = LruCache(_FOLDERS)
        self._lock = threading.Lock()

    def folder(self, id: str) -> ResultsFolder | None:  # noqa: A002
        """Return a folder as it is now; None if the catalogue has no such id."""
        path = self.catalogue.folder(id)
        return None if path is None else read_results(path)

    def model(self, results: ResultsFolder) -> BundleSpec | None:
        """Return the contract of the model that a run used, if the model is still there."""
        recorded = results.run.get("bundle") or {}
        digest = str(recorded.get("sha256", ""))
        known = self._models.get(digest)
        if known is None:
            known = _find_model(digest, str(recorded.get("file", "")))
            self._models.put(digest, known)
        return known[0] if known else None

    def scene(self, id: str, name: str, *, refresh: bool = False) -> MapScene | None:  # noqa: A002
        """Return one image of a folder; None if there is none of that name.

        Args:
            refresh: Check whether its files have changed since it was opened.

        Raises:
            DataError: Neither the mask nor the image says where the pixels are.
        """
        path = self.catalogue.folder(id)
        if path is None:
            return None
        opened = self._opened(path, name)
        with opened.lock:
            if opened.scene and not refresh:
                return opened.scene[0]
            results = read_results(path)
            files = results.images.get(name)
            if files is None:
                opened.scene.clear()
                return None
            if not opened.scene or opened.scene[0].stamp != files.stamp:
                model = self.model(results)
                legend = None if model is None else model.legend
                kind = ComparisonScene if files.is_comparison else MapScene
                with hidden_folders(path):
                    opened.scene[:] = [kind(files, results.run, legend)]
            return opened.scene[0]

    def _opened(self, path: Path, name: str) -> _Opened:
        with self._lock:
            opened = self._scenes.get((path, name))
            if opened is None:
                opened = _Opened(threading.Lock(), [])
                self._scenes.put((path, name), opened)
            return opened


def _find_model(digest: str, file: str) -> list[BundleSpec]:
    """Return the contract in a list, or an empty list."""
    for model in (*BUNDLED_MODELS, file):
        try:
            bundle = read_model(Path(model))
        except RooftraceError:
            continue
        if bundle.sha256 == digest:
            return [bundle.spec]
    return []


TileLayer = Literal["image", "old", "mask", "density", "buildings", "cells"]

TILE_LAYERS: tuple[TileLayer, ...] = ("image", "mask", "density", "buildings", "cells")
"""Layers that have a TileJSON; the older image of a comparison has none."""

_FIELDS: Mapping[str, Mapping[str, str]] = {
    "buildings": {
        "score": "Number. Confidence of the model in thousandths, if the file has scores",
        "size": "Number. Area in tenths of a square metre",
        "kind": "Number. Index of the class, if there are several",
        "old": "Number. 1 for a building of the older layer of a comparison",
    },
    "cells": {
        "n": "Number. Buildings whose middle lies in the cell",
        "share": "Number. Built-up share of the cell in thousandths",
        "score": "Number. Mean confidence in thousandths, if the file has scores",
        "size": "Number. Mean area in tenths of a square metre",
    },
}


def tilejson(
    scene: Mapping[str, Any], layer: TileLayer, address: str, attribution: str
) -> dict[str, Any] | None:
    """Return the TileJSON of a layer; None if the scene has no such layer.

    Args:
        scene: Description of the scene, see `MapScene.describe`.
        layer: Layer of tiles.
        address: Absolute address of the tiles with `{z}`, `{x}` and `{y}`.
        attribution: Attribution of the model, as plain text; "" for none.

    Raises:
        GeoreferenceError: The scene has no position on the ground, so its tiles have none either.
    """
    found = scene.get("buildings" if layer == "cells" else layer)
    if found is None:
        return None
    if scene["flat"]:
        raise GeoreferenceError(
            f"{scene['name']} has no place on the Web Mercator map, so its tiles cannot be used in "
            "other programs.",
            remedy="Predict an image with a georeference.",
        )
    lowest, deepest = _zooms(found, layer)
    west, south, east, north = found.get("bounds") or scene["bounds"]
    fitting = floor(log2(360 / max(east - west, 1e-9)))
    document: dict[str, Any] = {
        "tilejson": "3.0.0",
        "name": f"{scene['name']}, {layer}",
        "scheme": "xyz",
        "tiles": [address],
        "minzoom": lowest,
        "maxzoom": deepest,
        "bounds": [west, south, east, north],
        "center": [(west + east) / 2, (south + north) / 2, min(max(fitting, lowest), deepest)],
    }
    if layer in _FIELDS:
        document["vector_layers"] = [
            {"id": layer, "fields": dict(_FIELDS[layer]), "minzoom": lowest, "maxzoom": deepest}
        ]
    # The image is the user's own; only what the model made has the attribution of its data.
    if attribution and layer != "image":
        document["attribution"] = escape(attribution)
    return document


def _zooms(found: Mapping[str, Any], layer: TileLayer) -> tuple[int, int]:
    """Return the lowest and the deepest zoom with tiles of their own."""
    if layer == "buildings":
        return found["first_zoom"], found["deepest_zoom"]
    if layer == "cells":
        return 0, max(found["first_zoom"] - 1, 0)
    return 0, found["maxzoom"]


_ADDRESS = re.compile(r"(?P<origin>https?://[A-Za-z0-9.\-\[\]:]+)/[!#-~]*")


@dataclass(frozen=True)
class Basemap:
    """Raster tiles in Web Mercator under the scenes of the map. Browsers fetch them.

    Args:
        address: Address of a tile with `{z}`, `{x}` and `{y}`.
        credit: Attribution that the source asks for.

    Raises:
        ConfigError: The address is no such address.
    """

    address: str
    credit: str = ""

    def __post_init__(self) -> None:
        missing = [part for part in ("{z}", "{x}", "{y}") if part not in self.address]
        # A host with a placeholder could not be named in the policy of the page.
        if missing or not _ADDRESS.fullmatch(self.address) or ";" in self.address:
            raise ConfigError(
                f"--basemap received {self.address!r}; expected the address of tiles, with {{z}}, "
                "{x} and {y} in its path.",
                remedy="Give an address such as https://tiles.example.org/{z}/{x}/{y}.png",
            )

    @property
    def origin(self) -> str:
        """Scheme and host, the only place besides its own server that the page may ask."""
        found = _ADDRESS.fullmatch(self.address)
        assert found is not None
        return found["origin"]
