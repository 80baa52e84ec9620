"""HTTP routes of the map: its page, its folders and its tiles.

The server keeps opened scenes, and tiles as far as memory allows.
"""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response

from rooftrace.app.assets import static_router
from rooftrace.app.map.outlines import BuildingFilter
from rooftrace.app.map.place import DEEPEST_TILE_ZOOM
from rooftrace.app.map.pyramid import clear_picture
from rooftrace.app.map.results import (
    ImageFiles,
    ResultsCatalogue,
    ResultsEntry,
    ResultsFolder,
    hidden_folders,
    read_results,
    without_folders,
)
from rooftrace.app.map.scene import ComparisonScene, MapScene
from rooftrace.core.cache import LazyValue, LruCache
from rooftrace.core.errors import ConfigError, RooftraceError
from rooftrace.core.parallel import core_count
from rooftrace.io.web_mercator import TileName
from rooftrace.models.bundle import BUNDLED_MODELS
from rooftrace.models.exported import read_model
from rooftrace.models.spec import BundleSpec
from rooftrace.rest.face import accepts_gzip
from rooftrace.rest.problems import ProblemError

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


def _filter(score: Minimum = 0, size: Minimum = 0, kinds: Kinds = None) -> BuildingFilter:
    indexes = None if kinds is None else frozenset(int(one) for one in kinds.split(",") if one)
    return BuildingFilter(score, size, indexes)


Filter = Annotated[BuildingFilter, Depends(_filter)]


def map_router(catalogue: ResultsCatalogue, basemap: Basemap | None = None) -> APIRouter:
    """Return the routes of the map of some results folders, under `/map`.

    The app needs `install_problems`: errors are answered as problems.

    Args:
        catalogue: Results folders. Names in requests are looked up in it and in the listing of a
            folder; no part of a request becomes part of a path.
        basemap: Tiles under the scenes; None for none.
    """
    policy = _POLICY
    if basemap is not None:
        # MapLibre fetches pictures or loads them as images.
        policy = policy.replace("img-src 'self'", f"img-src 'self' {basemap.origin}")
        policy = f"{policy}; connect-src 'self' {basemap.origin}"
    store = _Store(catalogue)
    router = static_router("map", policy)

    @router.get("/settings")
    def settings() -> dict[str, Any]:
        described = None if basemap is None else {"address": basemap.url, "credit": basemap.credit}
        return {"basemap": described}

    @router.get("/folders")
    def folders() -> list[dict[str, str]]:
        return [{"id": entry.id, "title": entry.title} for entry in catalogue.entries()]

    @router.get("/folders/{id}")
    def folder(id: str) -> dict[str, Any]:  # noqa: A002
        entry = store.folder(id)
        results = read_results(entry.path)
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

    @router.get("/folders/{id}/images/{name}")
    def scene(id: str, name: str) -> dict[str, Any]:  # noqa: A002
        return store.scene(id, name, refresh=True).describe()

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
        return store.scene(id, name).counts((west, south, east, north), chosen)

    @router.get("/folders/{id}/images/{name}/buildings/{row}")
    def building(id: str, name: str, row: int) -> dict[str, Any]:  # noqa: A002
        vectors = store.scene(id, name).vectors
        attributes = None if vectors is None else vectors.outlines.attributes(row)
        if attributes is None:
            raise ProblemError(
                "not-found", f"The image {name} has no building in row {row}.",
                remedy="The image may have been predicted again: reload the map.",
            )  # fmt: skip
        return attributes

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
    ) -> Response:
        which = TileName(zoom, row, col)
        if not which.exists or zoom > DEEPEST_TILE_ZOOM:
            raise ProblemError(
                "not-found", f"There is no tile {zoom}/{col}/{row}.",
                remedy="See the description of the image for the zooms that have tiles.",
            )  # fmt: skip
        scene = store.scene(id, name)
        key = (id, name, scene.stamp, layer, which)
        headers = {
            "ETag": f'"{scene.stamp}-{layer}-{zoom}-{col}-{row}"',
            # The page puts the stamp into the URL, so a cached tile is never out of date.
            "Cache-Control": "private, max-age=86400"
            if request.query_params.get("v") == scene.stamp
            else "no-cache",
        }
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        data = store.tiles.get(key)
        if data is None:
            with turn:
                data = _tile_bytes(scene, layer, which)
            store.tiles.put(key, data)
        if layer != "buildings":
            kind = "image/webp" if data[:4] == b"RIFF" else "image/png"
            return Response(data, media_type=kind, headers=headers)
        headers["Vary"] = "Accept-Encoding"
        if data and accepts_gzip(request):
            headers["Content-Encoding"] = "gzip"
        elif data:
            data = gzip.decompress(data)
        return Response(data, media_type=_VECTOR, headers=headers)

    return router


def _tile_bytes(scene: MapScene, layer: TileLayer, tile: TileName) -> bytes:
    """Return a tile; vector tiles are compressed with gzip."""
    if layer != "buildings":
        return scene.picture(layer, tile) or clear_picture()
    data = b"" if scene.vectors is None else scene.vectors.buildings(tile)
    return gzip.compress(data, _GZIP_LEVEL, mtime=0) if data else b""


class _Store:
    """Look up what requests name."""

    def __init__(self, catalogue: ResultsCatalogue) -> None:
        self.catalogue = catalogue
        self.tiles: LruCache[Hashable, bytes] = LruCache(_TILE_BYTES, len)
        self._scenes: LruCache[tuple[Path, str], tuple[str, LazyValue[MapScene]]] = LruCache(
            _SCENES
        )
        self._models: LruCache[str, list[BundleSpec]] = LruCache(_FOLDERS)
        self._lock = threading.Lock()

    def model(self, results: ResultsFolder) -> BundleSpec | None:
        """Return the contract of the model that a run used, if the model is still there."""
        recorded = results.run.get("bundle") or {}
        digest = str(recorded.get("sha256", ""))
        described = self._models.get(digest)
        if described is None:
            described = _find_model(digest, str(recorded.get("file", "")))
            self._models.put(digest, described)
        return described[0] if described else None

    def folder(self, id: str) -> ResultsEntry:  # noqa: A002
        """Return a results folder.

        Raises:
            ProblemError: There is no such folder.
        """
        entry = self.catalogue.find(id)
        if entry is None:
            raise ProblemError(
                "not-found",
                "This server does not show a results folder of that name.",
                remedy="See /map/folders for the folders. The results of a job are removed with "
                "the job.",
            )
        return entry

    def scene(self, id: str, name: str, *, refresh: bool = False) -> MapScene:  # noqa: A002
        """Return one image of a folder.

        Args:
            refresh: Check whether its files have changed since it was opened.

        Raises:
            ProblemError: There is no such folder, or no such image in it.
            DataError: Neither the mask nor the image says where the pixels are.
        """
        entry = self.folder(id)
        key = entry.path, name
        with self._lock:
            opened = self._scenes.get(key)
            if opened is None or refresh:
                results = read_results(entry.path)
                files = results.images.get(name)
                if files is None:
                    raise ProblemError(
                        "not-found", "The folder has no image of that name.",
                        remedy=f"See /map/folders/{quote(id, safe='')} for its images; the image "
                        "may have been removed.",
                    )  # fmt: skip
                if opened is None or opened[0] != files.stamp:
                    opened = files.stamp, LazyValue(lambda: self._opened(results, files))
                    self._scenes.put(key, opened)
        return opened[1].get()

    def _opened(self, results: ResultsFolder, files: ImageFiles) -> MapScene:
        model = self.model(results)
        kind = ComparisonScene if files.is_comparison else MapScene
        with hidden_folders(results.path):
            return kind(files, results.run, None if model is None else model.legend)


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


TileLayer = Literal["image", "old", "mask", "density", "buildings"]

_URL = re.compile(r"(?P<origin>https?://[A-Za-z0-9.\-\[\]:]+)/[!#-~]*")


@dataclass(frozen=True)
class Basemap:
    """Raster tiles in Web Mercator under the scenes of the map. Browsers fetch them.

    Args:
        url: URL of a tile with `{z}`, `{x}` and `{y}`.
        credit: Attribution that the source asks for.

    Raises:
        ConfigError: It is not such a URL.
    """

    url: str
    credit: str = ""

    def __post_init__(self) -> None:
        missing = [part for part in ("{z}", "{x}", "{y}") if part not in self.url]
        # A host with a placeholder could not be named in the policy of the page.
        if missing or not _URL.fullmatch(self.url) or ";" in self.url:
            raise ConfigError(
                f"--basemap received {self.url!r}; expected the URL of tiles, with "
                "{z}, {x} and {y} in its path.",
                remedy="Give a URL such as https://tiles.example.org/{z}/{x}/{y}.png",
            )

    @property
    def origin(self) -> str:
        """Scheme and host, the only place besides its own server that the page may ask."""
        match = _URL.fullmatch(self.url)
        assert match is not None
        return match["origin"]
