"""Map services: URLs of tiles, the zoom levels of a service, and the tiles under an area.

A service is described by one template of URLs, which `xyz_service` takes from the user and
`io.capabilities` from the document of a WMTS or WMS. Nothing is requested here.

Placeholders are those of OpenStreetMap's editors: https://josm.openstreetmap.de/wiki/Maps
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil, floor
from shlex import quote as quote_word
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import numpy as np
import shapely
from affine import Affine

from rooftrace.core.errors import ConfigError, DataError
from rooftrace.core.types import Bounds, GeoGrid, Ints, Polygons
from rooftrace.io.area import Area, no_area_crs
from rooftrace.io.remote import web_host
from rooftrace.io.reproject import reprojected
from rooftrace.io.web_mercator import MAX_ZOOM, WORLD_M, TileName, web_mercator

_TILE_PX = 256
"""Side in pixels that XYZ tiles are assumed to have until one of them is read."""

_FINE_ENOUGH = 1.01
"""Ratio of metres per pixel of a zoom and the model up to which the zoom is fine enough: levels are
nominal, and 0.2986 m stands for 0.3 m."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_SWITCH = re.compile(r"switch:([^{}]+)")
_KNOWN = ("z", "x", "y", "-y", "q")
_SYNONYMS = {"zoom": "z", "quadkey": "q", "u": "q", "ty": "-y", "!y": "-y"}
"""Placeholders of JOSM, iD and Bing by other names."""

_SAFE = "/:?#[]@!$&'()*+,;=%{}"
"""Characters of a template that stay as they are in URLs."""

_SECRET = re.compile(
    r"key|token|secret|signature|password|auth|credential|^sig$|^se$|expires|policy", re.I
)
"""Names of parameters of a URL whose values are kept out of messages and files."""

_LAYER = re.compile(r"layer|lyrs|^map$", re.I)
"""Names of parameters of a URL whose values choose one of the maps of a server."""


@dataclass(frozen=True)
class TileLevel:
    """Tiles of one zoom level, on a grid in EPSG:3857.

    Args:
        zoom: Number of the level, as XYZ counts them: pixels of 156,543 m / 2^zoom at 256 px.
        left, top: Corner of the tile in row 0 and column 0, in EPSG:3857.
        pixel_m: Side of a pixel, in metres of EPSG:3857.
        tile_px: Rows and columns of pixels of a tile.
        rows, cols: Half-open ranges of the rows and columns that the service has.
        name: Name of the level in URLs; "" for its number.
    """

    zoom: int
    left: float
    top: float
    pixel_m: float
    tile_px: tuple[int, int]
    rows: tuple[int, int]
    cols: tuple[int, int]
    name: str = ""

    @property
    def tile_m(self) -> tuple[float, float]:
        """Height and width of a tile, in metres of EPSG:3857."""
        return self.tile_px[0] * self.pixel_m, self.tile_px[1] * self.pixel_m

    def grid(self, first: tuple[int, int], count: tuple[int, int]) -> GeoGrid:
        """Return the grid of `count` rows and columns of tiles from the tile `first`."""
        # As `TileName.grid` does it, so that a service has the grid of its tiles on disk.
        left, bottom, right, top = self.bounds_xy(*first)
        rows, cols = self.tile_px
        transform = Affine((right - left) / cols, 0.0, left, 0.0, -(top - bottom) / rows, top)
        shape = (count[0] * self.tile_px[0], count[1] * self.tile_px[1])
        return GeoGrid(shape, transform, web_mercator())

    def bounds_xy(self, row: int, col: int) -> Bounds:
        """Return the bounds (left, bottom, right, top) of a tile in EPSG:3857."""
        height_m, width_m = self.tile_m
        left, top = self.left + col * width_m, self.top - row * height_m
        return left, top - height_m, left + width_m, top

    def limited(self, bounds_xy: Bounds) -> TileLevel:
        """Return the level without the tiles outside (left, bottom, right, top) in EPSG:3857."""
        height_m, width_m = self.tile_m
        left, bottom, right, top = bounds_xy
        rows = floor((self.top - top) / height_m + 1e-6), ceil((self.top - bottom) / height_m)
        cols = floor((left - self.left) / width_m + 1e-6), ceil((right - self.left) / width_m)
        return replace(
            self,
            rows=(max(self.rows[0], rows[0]), min(self.rows[1], rows[1])),
            cols=(max(self.cols[0], cols[0]), min(self.cols[1], cols[1])),
        )


def slippy_level(zoom: int, tile_px: int = _TILE_PX) -> TileLevel:
    """Return the level of XYZ tiles at a zoom; larger tiles have more pixels on the same ground."""
    side = 1 << zoom
    pixel_m = WORLD_M / side / tile_px
    return TileLevel(
        zoom, -WORLD_M / 2, WORLD_M / 2, pixel_m, (tile_px, tile_px), (0, side), (0, side)
    )


@dataclass(frozen=True)
class MapService:
    """A service of map tiles. It can be pickled.

    Args:
        template: URL of a tile with placeholders: `{z}` (name of the level), `{x}`, `{y}`,
            `{-y}` (row from the south), `{q}` (quadkey), `{switch:a,b}` (servers in turn) and
            `{bbox}` (bounds in EPSG:3857).
        name: URL as the user knows it, without secrets.
        title: Short name for results.
        levels: Levels by zoom; empty if the service has all XYZ levels.
        attribution: Attribution that the service asks for; "" if it does not say.
        imagery_date: Date of the imagery according to the service; "" if it does not say.
        finest: Finest zoom of XYZ tiles that is chosen for a model.
    """

    template: str
    name: str
    title: str
    levels: Mapping[int, TileLevel] = field(default_factory=dict)
    attribution: str = ""
    imagery_date: str = ""
    notes: tuple[str, ...] = ()
    finest: int = MAX_ZOOM

    @property
    def host(self) -> str:
        """Host of the tiles, with `{switch:…}` as it stands."""
        return urlsplit(self.template).netloc

    @property
    def zooms(self) -> tuple[int, ...]:
        """Zooms of the service in ascending order."""
        return tuple(sorted(self.levels)) if self.levels else tuple(range(self.finest + 1))

    def level(self, zoom: int, tile_px: int = _TILE_PX) -> TileLevel:
        """Return one level.

        Args:
            tile_px: Side of XYZ tiles in pixels; other services state it.
        """
        if not self.levels:
            return slippy_level(zoom, tile_px)
        if zoom not in self.levels:
            listed = ", ".join(map(str, self.zooms))
            raise ConfigError(
                f"--zoom {zoom} was given, but {self.name} has the zoom levels {listed}.",
                remedy="Choose one of them, or leave out --zoom.",
            )
        return self.levels[zoom]

    def level_for(self, gsd_m: float, latitude: float, tile_px: int = _TILE_PX) -> TileLevel:
        """Return the coarsest level whose pixels are fine enough for a model, else the finest.

        Args:
            gsd_m: Metres per pixel of the model.
            tile_px: Side of XYZ tiles in pixels.
        """
        levels = [self.level(zoom, tile_px) for zoom in self.zooms]
        shrunk = float(np.cos(np.radians(latitude)))
        for level in levels:
            if level.pixel_m * shrunk <= gsd_m * _FINE_ENOUGH:
                return level
        return levels[-1]

    def url(self, level: TileLevel, row: int, col: int) -> str:
        """Return the URL of a tile."""

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if switch := _SWITCH.fullmatch(name):
                servers = switch[1].split(",")
                return servers[(row + col) % len(servers)]
            if name == "bbox":
                return ",".join(f"{edge:.9g}" if edge == 0 else f"{edge:.10f}"
                                for edge in level.bounds_xy(row, col))  # fmt: skip
            tile = TileName(level.zoom, row, col)
            values = {
                "z": level.name or level.zoom, "x": col, "y": row, "-y": tile.flipped().row,
                "q": tile.quadkey,
            }  # fmt: skip
            return str(values[name])

        return _PLACEHOLDER.sub(value, self.template)


def plain_url(text: str) -> str:
    """Return the URL of imagery as another program writes it, or the text as it is.

    JOSM and the Tasking Manager write `tms[1,22]:https://…`; QGIS writes the source of a layer as
    `type=xyz&url=https://…&zmax=22`, that of a WMTS or WMS with its URL, and
    `/vsicurl/https://…`. The finest zoom of tiles becomes the end of the URL, `#zmax=22`.
    """
    zmax = re.match(r"tms\[(?:\d+,)?(\d+)\]:|(?=type=xyz|.*&type=xyz).*?\bzmax=(\d+)", text)
    finest = f"#zmax={zmax[1] or zmax[2]}" if zmax else ""
    text = re.sub(r"^/vsis3/", "s3://", re.sub(r"^/vsicurl/(?=https?://)", "", text))
    source = re.match(r"(?!https?:)(?:[^&]*&)*url=(?P<url>https?(?::|%3A)[^&]*)", text, re.I)
    if source:
        url = unquote(source["url"])
        if re.search(r"(^|&)type=xyz(&|$)", text) or is_capabilities(url):
            return url + finest
        kind = "WMTS" if "tileMatrixSet=" in text else "WMS"
        return f"{url}{'&' if '?' in url else '?'}SERVICE={kind}&REQUEST=GetCapabilities"
    text = re.sub(r"^(tms|wms)(\[[\d,]*\])?:(?=https?://)", "", text)
    return _PLACEHOLDER.sub(lambda match: f"{{{_SYNONYMS.get(match[1], match[1])}}}", text) + finest


_ARCGIS = re.compile(
    r"^(https?://.*?)(/rest)?(/services/.*/(?:Map|Image)Server)(/export(Image)?)?/?(\?|$)", re.I
)


def is_service(text: str) -> bool:
    """Return True if an input is the URL of a map service and not of one image."""
    return is_template(text) or is_capabilities(text) or _ARCGIS.match(text) is not None


def check_not_arcgis(url: str) -> None:
    """Raise ConfigError for a service of ArcGIS itself, or for its pictures of any box.

    The remedy has the URLs of its tiles, its WMTS and its WMS.
    """
    if (arcgis := _ARCGIS.match(url)) is None:
        return
    rest, wms = (f"{arcgis[1]}{middle}{arcgis[3]}" for middle in ("/rest", ""))
    raise ConfigError(
        f"{without_secrets(url)} is a service of ArcGIS; expected its tiles, its WMTS or its WMS.",
        remedy=f"Give {quote_word(rest + '/tile/{z}/{y}/{x}')} if its page lists tiles in 102100 "
        f"(3857). Else try {rest}/WMTS/1.0.0/WMTSCapabilities.xml, or "
        f"{quote_word(wms + '/WMSServer?SERVICE=WMS&REQUEST=GetCapabilities')} --layer LAYER.",
    )


def is_template(text: str) -> bool:
    """Return True if an input is meant as a URL with placeholders of tiles."""
    is_web = text.lower().startswith(("http://", "https://"))
    return is_web and bool(re.search(r"\{-?[A-Za-z]|%7B-?[A-Za-z]", text))


def is_capabilities(text: str) -> bool:
    """Return True if an input is the URL of the capabilities of a WMTS or WMS."""
    if not text.lower().startswith(("http://", "https://")):
        return False
    parts = urlsplit(text)
    given = {name.lower(): value.lower() for name, value in parse_qsl(parts.query)}
    is_asked = given.get("request") == "getcapabilities" or given.get("service") in ("wms", "wmts")
    return is_asked or is_capabilities_file(parts.path)


def xyz_service(template: str) -> MapService:
    """Return the service of XYZ or TMS tiles with a URL such as `https://…/{z}/{x}/{y}.png`.

    Raises:
        ConfigError: A placeholder is unknown or missing.
        DataError: The URL is not of a web server, or has a user name.
    """
    template, _, finest = template.partition("#zmax=")
    template = re.sub("%7B", "{", re.sub("%7D", "}", template, flags=re.I), flags=re.I)
    shown = without_secrets(template)
    names = _PLACEHOLDER.findall(template)
    unknown = [name for name in names if name not in _KNOWN and not _SWITCH.fullmatch(name)]
    if unknown:
        listed = ", ".join(f"{{{name}}}" for name in dict.fromkeys(unknown))
        hint = {"s": "Write the servers, such as {switch:a,b,c}.", "r": "Remove {r}."}
        remedy = hint.get(unknown[0], "Replace it by one of these, or by its value.")
        if any("bbox" in name.lower() for name in unknown):
            base, _, query = shown.partition("?")
            asked = {name.lower(): value for name, value in parse_qsl(query)}
            own = f"map={asked['map']}&" if "map" in asked else ""
            capabilities = quote_word(f"{base}?{own}SERVICE=WMS&REQUEST=GetCapabilities")
            layer = quote_word(asked.get("layers", "LAYER"))
            remedy = f"Give the WMS by its capabilities: {capabilities} --layer {layer}"
        raise ConfigError(
            f"{shown} has {listed}; expected {{z}}, {{x}}, {{y}}, {{-y}}, {{q}} or {{switch:a,b}}.",
            remedy=remedy,
        )
    complete = "q" in names or ({"z", "x"} <= {*names} and {"y", "-y"} & {*names})
    if not complete or "{" in _PLACEHOLDER.sub("", template):
        raise ConfigError(
            f"{shown} does not name a tile; expected {{z}}, {{x}} and {{y}} or {{-y}}, or {{q}}.",
            remedy="For example: https://host/{z}/{x}/{y}.png",
        )
    web_host(template)
    first_server = re.sub(r"\{switch:([^,{}]*)[^{}]*\}", r"\1", template)
    return MapService(
        quote(template, safe=_SAFE), shown, result_name(first_server),
        finest=min(int(finest or MAX_ZOOM), MAX_ZOOM),
    )  # fmt: skip


def result_name(url: str, layer: str = "") -> str:
    """Return a name for the results of a service, which differs from others of its server."""
    parts = urlsplit(url)
    layers = [value for name, value in parse_qsl(parts.query) if _LAYER.search(name)]
    words = [parts.hostname or "tiles", *parts.path.partition("{")[0].split("/"), *layers]
    words.append(layer.rstrip("/").rpartition("/")[2])
    plain = [re.sub(r"[^\w.-]+", "-", one).strip("-.") for one in words]
    return "_".join(one for one in plain if one and not is_capabilities_file(one))


def is_capabilities_file(path: str) -> bool:
    """Return True for the path of a file of capabilities."""
    return path.lower().endswith("capabilities.xml")


def without_secrets(url: str) -> str:
    """Return a URL without user name and without the values of keys and tokens."""
    head, mark, query = url.partition("?")
    head = re.sub(r"(://)[^/@]*@", r"\1", head)
    if not mark:
        return head
    shown = []
    for part in query.split("&"):
        name, equals, _ = part.partition("=")
        shown.append(f"{name}=…" if equals and is_secret(name) else part)
    return head + mark + "&".join(shown)


def is_secret(parameter: str) -> bool:
    """Return True if the name of a parameter is that of a key or token."""
    return bool(_SECRET.search(parameter))


def tiles_in_area(level: TileLevel, area: Area, most: int) -> Ints:
    """Return the (n, 2) rows and columns of the tiles that an area touches, row by row.

    Raises:
        ConfigError: There are more tiles.
        DataError: The area has no CRS, or lies outside of the service.
    """
    polygons = projected_area(area)
    height_m, width_m = level.tile_m
    left, bottom, right, top = (float(edge) for edge in shapely.total_bounds(polygons))
    north, south = (level.top - top) / height_m, (level.top - bottom) / height_m
    west, east = (left - level.left) / width_m, (right - level.left) / width_m
    rows, cols = _overlap(level.rows, north, south), _overlap(level.cols, west, east)
    found = np.empty((0, 2), np.int64)
    if rows[0] < rows[1] and cols[0] < cols[1]:
        found = _descend(level, polygons, rows, cols, most, area.name)
    if not len(found):
        raise DataError(
            f"The map service has no tile of zoom {level.zoom} in the area {area.name}.",
            remedy="Check the area in a GIS, or use a service that covers it.",
        )
    return found[np.lexsort((found[:, 1], found[:, 0]))]


def projected_area(area: Area) -> Polygons:
    """Return the (n,) polygons of an area in EPSG:3857.

    Raises:
        GeoreferenceError: The area has no CRS.
        DataError: It has coordinates that the projection does not have.
    """
    if area.crs is None:
        raise no_area_crs(area, ", so that its tiles are not known")
    polygons = reprojected(area.geometry, area.crs, web_mercator(), 0.01)
    corners = shapely.get_coordinates(polygons)
    # Written so that NaN counts as outside as well.
    if not np.abs(corners).max() <= WORLD_M:
        raise DataError(
            f"The area {area.name} has coordinates outside the range of Web Mercator.",
            remedy="Assign the right coordinate system to the area, or leave out the poles.",
        )
    return np.asarray(polygons, np.object_)


def _overlap(known: tuple[int, int], start: float, stop: float) -> tuple[int, int]:
    """Return the part of a half-open range of tiles between two positions in tiles."""
    # An overlap of less than a millionth of a tile is a rounding error.
    return max(known[0], floor(start + 1e-6)), min(known[1], ceil(stop - 1e-6))


def _descend(
    level: TileLevel,
    polygons: Polygons,
    rows: tuple[int, int],
    cols: tuple[int, int],
    most: int,
    name: str,
) -> Ints:
    """Return the tiles that polygons touch: squares of tiles are quartered where they do."""
    shapely.prepare(polygons)
    tree = shapely.STRtree(polygons)
    height_m, width_m = level.tile_m
    side = 1 << max(rows[1] - rows[0], cols[1] - cols[0]).bit_length()
    squares = np.array([[rows[0], cols[0]]], np.int64)
    while True:
        left = level.left + squares[:, 1] * width_m
        top = level.top - squares[:, 0] * height_m
        # Tiles that only share an edge with the area have none of its pixels.
        slack_y, slack_x = height_m * 1e-6, width_m * 1e-6
        boxes = shapely.box(
            left + slack_x, top - side * height_m + slack_y,
            left + side * width_m - slack_x, top - slack_y,
        )  # fmt: skip
        inside = (squares[:, 0] < rows[1]) & (squares[:, 1] < cols[1])
        squares, boxes = squares[inside], boxes[inside]
        square, polygon = tree.query(boxes)
        touched = shapely.intersects(polygons[polygon], boxes[square])
        squares = np.asarray(squares[np.unique(square[touched])], np.int64)
        if len(squares) > most:
            about = int(shapely.area(polygons).sum() / (height_m * width_m))
            count = f"{len(squares):,}" if side == 1 else f"about {max(about, len(squares)):,}"
            raise ConfigError(
                f"The area {name} needs {count} tiles of zoom {level.zoom}, the limit is {most:,}.",
                remedy="Choose a smaller area or a lower --zoom, or raise --max-tiles if allowed.",
            )
        if side == 1:
            return squares
        side //= 2
        steps = np.array([[0, 0], [0, side], [side, 0], [side, side]], np.int64)
        squares = (squares[:, None] + steps).reshape(-1, 2)
