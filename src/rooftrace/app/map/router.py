"""HTTP routes of the map: its page, its folders and its tiles.

The server keeps opened scenes, and tiles as far as memory allows.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from markupsafe import escape

from rooftrace.app.map.outlines import BuildingFilter
from rooftrace.app.map.place import DEEPEST_TILE_ZOOM
from rooftrace.app.map.pyramid import clear_picture
from rooftrace.app.map.results import (
    ImageFiles,
    ResultsCatalogue,
    ResultsFolder,
    State,
    hidden_folders,
    read_results,
)
from rooftrace.app.map.review_scene import reviewed_layers
from rooftrace.app.map.scene import ComparisonScene, MapScene, preview_thumbnail
from rooftrace.core.cache import LazyValue, LruCache
from rooftrace.core.errors import ConfigError, RooftraceError
from rooftrace.core.parallel import core_count
from rooftrace.core.text import in_api_terms, without_folders
from rooftrace.flows.density.run import run_zone_density
from rooftrace.io.files import write_json
from rooftrace.io.vector_write import write_copies
from rooftrace.io.web_mercator import TileName
from rooftrace.models.bundle import BUNDLED_MODELS
from rooftrace.models.exported import read_model
from rooftrace.models.spec import BundleSpec
from rooftrace.rest.description import DescribedRoute, binary_response, problem_responses
from rooftrace.rest.jobs import server_url
from rooftrace.rest.pages import accepts_gzip, compressed, not_modified, static_router
from rooftrace.rest.problems import ProblemError
from rooftrace.rest.schemas import ApiModel
from rooftrace.rest.transfer import (
    RANGE_RESPONSES,
    VECTOR_TYPES,
    VectorFormat,
    content_disposition,
    media_type_of,
    ranged_response,
)
from rooftrace.service.job_runner import zipped
from rooftrace.vector.compare import MAP_WORDS

_VECTOR = "application/vnd.mapbox-vector-tile"
# The page sends requests only to its own server, and to that of the basemap if there is one.
# MapLibre sets the style of its elements in place.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'self'"
)

_SCENES = 4
_FOLDERS = 16
_TILE_BYTES = 64 * 2**20

_MOST = 2**40
Score = Annotated[int, Query(ge=0, le=_MOST, description="Minimum confidence in thousandths")]
Size = Annotated[int, Query(ge=0, le=_MOST, description="Minimum area in tenths of m²")]
Kinds = Annotated[
    str | None,
    Query(
        pattern=r"^(\d{1,3}(,\d{1,3}){0,255})?$",
        description="Indices of classes, separated by commas",
    ),
]


def _filter(score: Score = 0, size: Size = 0, kinds: Kinds = None) -> BuildingFilter:
    indexes = None if kinds is None else frozenset(int(one) for one in kinds.split(",") if one)
    return BuildingFilter(score, size, indexes)


Filter = Annotated[BuildingFilter, Depends(_filter)]


class FolderName(ApiModel):
    """Results folder of the list."""

    id: str
    title: str


class ImageSummary(ApiModel):
    """Image with results. Figures that its run did not record are null."""

    name: str
    buildings: int | None
    measured: int | None
    reviewed: bool
    built_up_share: float | None
    notes: list[str]
    comparison: bool
    city_model: bool
    changes: list[str]


class FolderSummary(ApiModel):
    """State, images and model of a results folder."""

    state: State
    title: str
    message: str
    created: str | None
    images: list[ImageSummary]
    model: dict[str, str | None]


class BuildingCounts(ApiModel):
    """Buildings that pass the filters, and all, in the area and in the image."""

    shown: int
    total: int
    shown_in_view: int
    in_view: int
    bounds: tuple[float, float, float, float] | None


def map_router(catalogue: ResultsCatalogue, basemaps: Sequence[Basemap] = ()) -> APIRouter:
    """Return the routes of the map of some results folders, under `/map`.

    The app needs `install_problems`: errors are answered as problems.

    Args:
        catalogue: Results folders. Names in requests are looked up in it and in the listing of a
            folder; no part of a request becomes part of a path.
        basemaps: Tiles under the scenes, of which a person chooses; the first is shown.
    """
    policy = _POLICY
    if origins := " ".join(dict.fromkeys(one.origin for one in basemaps)):
        # MapLibre fetches pictures or loads them as images.
        policy = policy.replace("img-src 'self'", f"img-src 'self' {origins}")
        policy = f"{policy}; connect-src 'self' {origins}"
    store = _Store(catalogue)
    pages = static_router("map", policy)
    router = APIRouter(prefix="/folders", route_class=DescribedRoute, tags=["map"])
    problems = ("not-found", "data-error", "file-locked")
    missing = problem_responses(*problems)

    @pages.get("/settings", include_in_schema=False)
    def settings() -> dict[str, Any]:
        return {"basemaps": [asdict(one) for one in basemaps]}

    @router.get("")
    def list_results() -> list[FolderName]:
        """List the folders of results, each with its id and its title."""
        return [FolderName(id=entry.id, title=entry.title) for entry in catalogue.entries()]

    # Records of any version are passed on: the model describes them, and checks none.
    described = missing | {200: {"model": FolderSummary}}

    @router.get("/{results_id}", response_model=None, responses=described)
    def get_results(results_id: str) -> dict[str, Any]:
        """Describe a folder of results: its state, its images and its model."""
        entry = catalogue.open(results_id)
        results = read_results(entry.path)
        model = store.model(results.run)
        recorded = results.run.get("bundle") or {}
        records = [results.run, *(one.record for one in results.images.values())]
        return {
            "state": results.state,
            "title": entry.title,
            "message": without_folders(results.message, [f"{results.path}/"]),
            "created": next(filter(None, (one.get("created") for one in records)), None),
            "images": [
                {
                    "name": one.name,
                    "buildings": one.record.get("buildings"),
                    "measured": one.record.get("measured"),
                    "reviewed": one.reviewed,
                    "built_up_share": one.record.get("built_up_share"),
                    "notes": [in_api_terms(note) for note in one.record.get("notes") or ()],
                    "comparison": one.is_comparison,
                    "city_model": one.city_model,
                    "changes": [
                        f"{max(counts['new'], counts['old']):,} "
                        f"{MAP_WORDS[status] if one.record.get('against_map') else status}"
                        for status, counts in (one.record.get("statuses") or {}).items()
                        if status in MAP_WORDS
                    ],
                }
                for one in results.images.values()
            ],
            "model": {
                "name": recorded.get("name"),
                "licence": "" if model is None else model.licence,
                "attribution": "" if model is None else model.attribution,
            },
        }

    @router.get(
        "/{results_id}/results.zip",
        response_class=StreamingResponse,
        responses=binary_response("Zip of the files of all images", "application/zip")
        | problem_responses("not-found", "review-error", "file-locked", "data-error", "not-stored"),
    )
    def get_archive(results_id: str) -> StreamingResponse:
        """Download a zip of the results of all images; NAME_reviewed.gpkg follows a review."""
        entry = catalogue.open(results_id)
        images = read_results(entry.path).images
        paths = [path for one in images.values() for path in one.downloads]
        if not paths:
            raise ProblemError("not-found", f"The folder {entry.title} has no results.")
        name = f"{entry.path.name}.zip"
        return StreamingResponse(
            zipped(paths, reviewed_layers(entry.path)), media_type="application/zip",
            headers={"Content-Disposition": content_disposition(name)},
        )  # fmt: skip

    @router.get("/{results_id}/images/{name}", responses=missing)
    def get_scene(results_id: str, name: str) -> dict[str, Any]:
        """Describe an image with results: its bounds, and the layers that it has."""
        return store.scene(results_id, name, refresh=True).describe()

    @router.get("/{results_id}/images/{name}/tiles.json", responses=missing)
    def get_tilejson(
        request: Request, results_id: str, name: str, layer: TileLayer = "buildings"
    ) -> dict[str, Any]:
        """Return the TileJSON 3.0 of a layer, which web maps take as the URL of a source."""
        described = store.scene(results_id, name, refresh=True).describe()
        layer_info = described[layer]
        if layer_info is None:
            raise ProblemError("not-found", f"The image {name} has no layer {layer}.")
        images = f"{server_url(request)}/map/folders/{quote(results_id, safe='')}/images"
        tile = f"{images}/{quote(name, safe='')}/{layer}/{{z}}/{{x}}/{{y}}?v={described['stamp']}"
        is_vector = layer == "buildings"
        # A map shows this as HTML, on top of the picture; the names of all sources would cover it.
        parts = [str(escape(described["credit"]))]
        _, files = catalogue.image(results_id, name)
        model = (files.run.get("bundle") or {}).get("name")
        if model and layer not in ("image", "old"):
            at = images.removesuffix("/images")
            parts.append(f'Model: <a href="{at}">{escape(model)}, sources and licence</a>')
        fields = {
            "score": "Confidence in thousandths", "size": "Area in tenths of m²",
            "kind": "Index of the class", "height": "Height in tenths of a metre",
        }  # fmt: skip
        return {
            "tilejson": "3.0.0",
            "name": f"{files.title}: {layer}",
            "tiles": [tile],
            "minzoom": layer_info["first_zoom"] if is_vector else 0,
            "maxzoom": layer_info["deepest_zoom" if is_vector else "maxzoom"],
            "bounds": described["bounds"],
            "attribution": " | ".join(filter(None, parts)),
            **({"vector_layers": [{"id": layer, "fields": fields}]} if is_vector else {}),
        }

    @router.get(
        "/{results_id}/images/{name}/thumbnail",
        response_class=Response,
        responses=binary_response("The picture", "image/webp") | missing,
    )
    def get_thumbnail(request: Request, results_id: str, name: str) -> Response:
        """Return a small picture of an image with its buildings."""
        files = catalogue.image(results_id, name)[1]
        headers = {"ETag": f'"{files.stamp}"', "Cache-Control": "no-cache"}
        if unchanged := not_modified(request, headers):
            return unchanged
        key = (results_id, name, files.stamp, "thumbnail")
        data = store.tiles.get(key)
        if data is None:
            with turn:
                data = preview_thumbnail(files) or store.scene(results_id, name).thumbnail()
            store.tiles.put(key, data)
        return Response(data, media_type="image/webp", headers=headers)

    @router.get(
        "/{results_id}/images/{name}/download",
        response_class=Response,
        responses=binary_response("Buildings with their attributes", *VECTOR_TYPES)
        | RANGE_RESPONSES
        | problem_responses(
            *problems, "unfit-format", "missing-extra", "unsatisfiable-range", "not-stored"
        ),
    )
    def download_buildings(
        request: Request,
        results_id: str,
        name: str,
        chosen: Filter,
        format: Annotated[VectorFormat, Query()] = "gpkg",  # noqa: A002
    ) -> Response:
        """Download the buildings that pass some filters, as they were predicted."""
        scene = store.scene(results_id, name)
        file = f"{scene.files.title}_buildings.{format}"
        headers = {
            "ETag": f'"{scene.stamp}-{format}"', "Cache-Control": "no-cache",
            "Content-Disposition": content_disposition(file),
        }  # fmt: skip
        if unchanged := not_modified(request, headers):
            return unchanged
        key = (results_id, name, scene.stamp, file, chosen)
        data = store.downloads.get(key) or scene.exported(file, chosen)
        if "range" in request.headers:
            # The next range will follow: PMTiles, DuckDB and GDAL read a file in parts.
            store.downloads.put(key, data)
        return ranged_response(request, data, media_type_of(file), headers)

    @router.get("/{results_id}/images/{name}/count", responses=missing)
    def count_buildings(
        results_id: str,
        name: str,
        west: Annotated[float, Query(ge=-720, le=720)],
        south: Annotated[float, Query(ge=-90, le=90)],
        east: Annotated[float, Query(ge=-720, le=720)],
        north: Annotated[float, Query(ge=-90, le=90)],
        chosen: Filter,
    ) -> BuildingCounts:
        """Count the buildings that pass some filters, in an area and in all."""
        bounds = west, south, east, north
        return BuildingCounts(**store.scene(results_id, name).counts(bounds, chosen))

    @router.post(
        "/{results_id}/images/{name}/zones",
        response_class=Response,
        responses=binary_response("The zones with their figures, and notes", "application/geo+json")
        | problem_responses(*problems, "config-error", "not-stored"),
    )
    def measure_zones(
        results_id: str,
        name: str,
        zones: Annotated[dict[str, Any], Body(description="GeoJSON of polygons")],
        value: Annotated[
            str | None,
            Query(description="Attribute of the buildings to sum up by zone, such as height"),
        ] = None,
    ) -> Response:
        """Return districts, blocks or parcels with their buildings and built-up share."""
        files = catalogue.image(results_id, name)[1]
        with turn:
            figures = _by_zone(files, zones, value)
        return Response(figures, media_type="application/geo+json")

    @router.get("/{results_id}/images/{name}/buildings/{row}", responses=missing)
    def get_building(results_id: str, name: str, row: int) -> dict[str, Any]:
        """Return the attributes of a building; its row is its id in the vector tiles."""
        vectors = store.scene(results_id, name).vectors
        attributes = None if vectors is None else vectors.outlines.attributes(row)
        if attributes is None:
            raise ProblemError(
                "not-found", f"The image {name} has no building in row {row}.",
                remedy="The image may have been predicted again: reload the map.",
            )  # fmt: skip
        return attributes

    # More at the same time would wait for the processor and hold their pixels in memory.
    turn = threading.BoundedSemaphore(max(2, core_count()))

    @router.get(
        "/{results_id}/images/{name}/{layer}/{zoom}/{col}/{row}",
        response_class=Response,
        responses=binary_response("The tile", _VECTOR, "image/webp", "image/png") | missing,
    )
    def get_tile(
        request: Request,
        results_id: str,
        name: str,
        layer: TileLayer,
        zoom: int,
        col: int,
        row: int,
    ) -> Response:
        """Return a map tile: buildings as Mapbox Vector Tile, all other layers as a picture."""
        which = TileName(zoom, row, col)
        if not which.exists or zoom > DEEPEST_TILE_ZOOM:
            raise ProblemError(
                "not-found", f"There is no tile {zoom}/{col}/{row}.",
                remedy="See the description of the image for the zooms that have tiles.",
            )  # fmt: skip
        scene = store.scene(results_id, name)
        key = (results_id, name, scene.stamp, layer, which)
        headers = {
            "ETag": f'"{scene.stamp}-{layer}-{zoom}-{col}-{row}"',
            # The page puts the stamp into the URL, so a cached tile is never out of date.
            "Cache-Control": "private, max-age=86400"
            if request.query_params.get("v") == scene.stamp
            else "no-cache",
        }
        if unchanged := not_modified(request, headers):
            return unchanged
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

    pages.include_router(router)
    return pages


def _tile_bytes(scene: MapScene, layer: TileLayer, tile: TileName) -> bytes:
    """Return a tile; vector tiles are compressed with gzip."""
    if layer != "buildings":
        return scene.picture(layer, tile) or clear_picture()
    data = b"" if scene.vectors is None else scene.vectors.buildings(tile)
    return compressed(data) if data else b""


def _by_zone(files: ImageFiles, zones: Mapping[str, Any], value: str | None) -> bytes:
    """Return zones as GeoJSON with the figures of an image, see `run_zone_density`."""
    inputs = [path for path in (files.mask, files.polygons) if path is not None]
    with TemporaryDirectory(prefix="rooftrace-") as name, hidden_folders(Path(name), *inputs):
        given, out = Path(name) / "zones.json", Path(name) / "figures"
        write_json(given, zones)
        report = run_zone_density(inputs, given, out, value=value, picture=False)
        write_copies(out.with_suffix(".gpkg"), [".geojson"])
        figures = json.loads(out.with_suffix(".geojson").read_bytes())
    notes = [in_api_terms(without_folders(note, (*inputs, given))) for note in report.notes]
    return json.dumps(figures | {"notes": notes}, ensure_ascii=False).encode()


class _Store:
    """Look up what requests name."""

    def __init__(self, catalogue: ResultsCatalogue) -> None:
        self.catalogue = catalogue
        self.tiles: LruCache[Hashable, bytes] = LruCache(_TILE_BYTES, len)
        # One download may be larger than all tiles.
        self.downloads: LruCache[Hashable, bytes] = LruCache(_TILE_BYTES, len)
        self._scenes: LruCache[tuple[Path, str], tuple[ImageFiles, str, LazyValue[MapScene]]] = (
            LruCache(_SCENES)
        )
        self._lock = threading.Lock()

    def model(self, run: Mapping[str, Any]) -> BundleSpec | None:
        """Return the contract of the model that a run used, if the model is still there."""
        recorded = run.get("bundle") or {}
        return _find_model(str(recorded.get("sha256", "")), str(recorded.get("file", "")))

    def scene(self, results_id: str, name: str, *, refresh: bool = False) -> MapScene:
        """Return one image of a folder; `refresh` also looks for files that were added since."""
        key = self.catalogue.open(results_id).path, name
        with self._lock:
            opened = self._scenes.get(key)
            if opened is None or refresh or opened[0].stamp != opened[1]:
                results, files = self.catalogue.image(results_id, name)
                if opened is None or opened[1] != files.stamp:
                    opened = files, files.stamp, LazyValue(lambda: self._opened(results, files))
                    self._scenes.put(key, opened)
        return opened[2].get()

    def _opened(self, results: ResultsFolder, files: ImageFiles) -> MapScene:
        model = self.model(files.run)
        kind = ComparisonScene if files.is_comparison else MapScene
        with hidden_folders(results.path):
            return kind(files, None if model is None else model.legend)


@lru_cache(maxsize=_FOLDERS)
def _find_model(digest: str, file: str) -> BundleSpec | None:
    for model in (*BUNDLED_MODELS, file):
        try:
            bundle = read_model(Path(model))
        except RooftraceError:
            continue
        if bundle.sha256 == digest:
            return bundle.spec
    return None


TileLayer = Literal["image", "old", "mask", "density", "buildings"]

_URL = re.compile(r"(?P<origin>https?://[A-Za-z0-9.\-\[\]:]+)/[!#-~]*")


@dataclass(frozen=True)
class Basemap:
    """Raster tiles in Web Mercator under the scenes of the map. Browsers fetch them.

    Args:
        url: URL of a tile with `{z}`, `{x}` and `{y}`.
        credit: Attribution that the source asks for.
        name: Name that people choose it by; by default its host.

    Raises:
        ConfigError: It is not such a URL.
    """

    url: str
    credit: str = ""
    name: str = ""

    @classmethod
    def parse(cls, text: str, credit: str = "") -> Basemap:
        """Return the basemap of `URL` or `NAME=URL`."""
        name, mark, url = text.partition("=")
        named = mark and "/" not in name
        url = url if named else text
        return cls(url, credit, name if named else url.split("/")[2] if "//" in url else url)

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
