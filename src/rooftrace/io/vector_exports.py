"""Vector formats for other programs, from which a layer is not read again.

- PMTiles hold every polygon at the highest zoom. GDAL rounds vertices there, so the zoom follows
  the pixels and thin outlines are widened.
- A table of Excel has attributes alone, a drawing (DXF) outlines alone.
- OpenStreetMap (.osm) has buildings to add to it.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from math import ceil, cos, floor, isfinite, log2, radians
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import ExportError
from rooftrace.core.text import PLACE_IMAGE
from rooftrace.core.types import Floats, Polygons, full_turn
from rooftrace.io.legend import BUILDING_NAMES
from rooftrace.io.reproject import CRS84, reprojected, split_at_180, transform_points, utm_zone
from rooftrace.io.vector_writers import (
    LayerChunk,
    LayerSettings,
    Writer,
    gdal_writing,
    in_degrees,
    write_gdal,
    write_zip,
)
from rooftrace.io.web_mercator import WORLD_M, latitude_of, web_mercator

_EXTENT = 4096
"""Units along the side of a tile."""

_DEEPEST = 22
"""Deepest zoom that GDAL writes; a unit is 2.3 mm there."""

_USUAL_GSD_M = 0.15
"""Metres of a unit where the pixels are not known; the highest zoom is 16 at the equator."""

_MOST_IN_TILE = 40_000
"""About a megabyte of polygons."""


def _on_web_mercator(
    path: Path, geometry: NDArray[np.object_], crs: CRS | None
) -> NDArray[np.object_]:
    """Return (n,) polygons in EPSG:3857; those across longitude 180 have pieces on both sides."""
    others = "Write a GeoPackage (.gpkg) or GeoJSON (.geojson)"
    if crs is None:
        raise ExportError(
            f"{path.name}: PMTiles are tiles of the world's map, but the image has no "
            "georeference.",
            remedy=f"{others}, or give the image a georeference: {PLACE_IMAGE}",
        )
    if not len(geometry):
        raise ExportError(
            f"{path.name}: there are no polygons, and PMTiles contain at least one tile.",
            remedy=f"{others}, which may be empty.",
        )

    def moved(polygons: NDArray[np.object_], source: CRS, target: CRS) -> NDArray[np.object_]:
        made = shapely.transform(polygons, lambda xy: transform_points(xy, source, target))
        return np.asarray(made, np.object_)

    placed = moved(geometry, crs, web_mercator())
    left, _, right, _ = shapely.bounds(placed).T
    with np.errstate(invalid="ignore"):
        across = np.maximum.reduce([right - left, right, -left]) > WORLD_M / 2
    if across.any():
        degrees = split_at_180(moved(geometry[across], crs, CRS84))
        placed[across] = moved(degrees, CRS84, web_mercator())
    # Written so that NaN counts as outside, too.
    if not (np.abs(shapely.bounds(placed)) <= WORLD_M / 2).all():
        raise ExportError(
            f"{path.name}: polygons lie outside of Web Mercator, which ends at 85.05° north and "
            "south.",
            remedy=f"{others}.",
        )
    return placed


def tile_zooms(geometry: NDArray[np.object_], gsd_m: float | None) -> tuple[int, int]:
    """Return the lowest and the highest zoom of the tiles.

    At the highest zoom a unit is at most a pixel. At the lowest all polygons together are at most a
    quarter of a tile wide; it is deeper if a tile would hold more than 40,000 of them.

    Args:
        geometry: (n,) polygons in EPSG:3857, at least one.
        gsd_m: Metres per pixel; None if they are not known.
    """
    left, bottom, right, top = shapely.total_bounds(geometry)
    stretch = cos(radians(latitude_of(min(bottom, top, key=abs))))
    units = stretch * WORLD_M / _EXTENT / (gsd_m or _USUAL_GSD_M)
    highest = min(max(ceil(log2(units)), 0), _DEEPEST)
    side = max(right - left, top - bottom) / WORLD_M
    lowest = min(max(floor(-log2(max(4 * side, 1e-9))), 0), highest)
    bounds = shapely.bounds(geometry)
    centres = (bounds[:, :2] + bounds[:, 2:]) / 2 / WORLD_M + 0.5
    while lowest < highest:
        col, row = np.floor(centres * (1 << lowest)).astype(np.int64).T
        if np.unique(col << 32 | row, return_counts=True)[1].max() <= _MOST_IN_TILE:
            break
        lowest += 1
    return lowest, highest


_TILE_DIGITS = 3
"""Decimal places of attributes in tiles, of which each zoom has a copy."""

_UNLIMITED = "1000000000"
"""Without it GDAL drops polygons, without a word, from tiles of more than 500,000 bytes."""


def _pmtiles(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    """Write all chunks at once, because a tile holds polygons of any of them."""
    chunks = list(parts)
    geometry = np.concatenate([part.geometry for part in chunks])
    geometry = _on_web_mercator(path, geometry, layer.crs)
    lowest, highest = tile_zooms(geometry, layer.gsd_m)
    # Polygons narrower than about two units would lose their area when vertices are rounded.
    unit = WORLD_M / (1 << highest) / _EXTENT
    thin = 2 * shapely.area(geometry) < unit * shapely.length(geometry)
    geometry[thin] = shapely.buffer(geometry[thin], unit, join_style="mitre")
    starts = np.cumsum([len(part.geometry) for part in chunks])[:-1]
    placed = [
        LayerChunk(polygons, {
            name: values.astype(np.float64).round(_TILE_DIGITS) if values.dtype.kind == "f"
            else values
            for name, values in part.columns.items()
        })
        for part, polygons in zip(chunks, np.split(geometry, starts))
    ]  # fmt: skip
    texts = [one for part in chunks for one in part.columns.get("source", ())]
    sources = sorted({str(one) for one in texts if one is not None})
    write_gdal(
        path, replace(layer, crs=web_mercator(), multi=True), placed, "PMTiles", at_once=True,
        MINZOOM=str(lowest), MAXZOOM=str(highest), MAX_SIZE=_UNLIMITED, MAX_FEATURES=_UNLIMITED,
        DESCRIPTION=", ".join(sources),
    )  # fmt: skip


_XLSX_ROWS = 2**20 - 1
"""Maximum number of rows of a sheet of Excel below its header; it leaves out further ones."""


def _xlsx(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    """Write the attributes as a table of Excel, with a point in each polygon: a cell has no
    room for an outline.
    """

    def rows() -> Iterator[LayerChunk]:
        count = 0
        for part in in_degrees(path, layer, parts):
            count += len(part.geometry)
            if count > _XLSX_ROWS:
                raise ExportError(
                    f"{path} would have over {_XLSX_ROWS:,} rows, the most of a sheet of Excel.",
                    remedy="Write a .csv, or tables of smaller areas.",
                )
            inside = shapely.get_coordinates(shapely.point_on_surface(part.geometry))
            lon, lat = inside.round(layer.digits).T
            yield replace(part, columns={**part.columns, "longitude": lon, "latitude": lat})

    write_gdal(path, replace(layer, crs=CRS84), rows(), "XLSX", at_once=True, kind=None)
    with zipfile.ZipFile(path) as table:
        contents = [(one.filename, table.read(one)) for one in table.infolist()]
    write_zip(path, contents)


def drawing_crs(crs: CRS, geometry: Polygons) -> CRS:
    """Return the coordinate system of a drawing, in which people measure lengths.

    Degrees and Web Mercator stretch them, so it is the UTM zone of the first polygon instead.
    """
    solid = geometry[~shapely.is_empty(geometry)]
    if full_turn(crs) is None or not len(solid):
        return crs
    centre = shapely.get_coordinates(shapely.centroid(solid[:1]))
    lon, lat = transform_points(centre, crs, CRS84)[0].tolist()
    if not isfinite(lon + lat):
        return crs
    return utm_zone(lon, lat)


def _dxf(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    """Write each ring as a closed polyline; GDAL would fill polygons, which covers the drawing.

    Classes, and the statuses of a comparison, are layers of the drawing.
    """
    import pyogrio

    lines: list[bytes] = []
    layers: list[str] = []
    drawn: CRS | None = None
    for part in parts:
        geometry = part.geometry
        if layer.crs is not None:
            drawn = drawn or drawing_crs(layer.crs, geometry)
            if drawn != layer.crs:
                geometry = reprojected(geometry, layer.crs, drawn, 0.01)
        pieces, row = shapely.get_parts(geometry, return_index=True)
        rings, piece = shapely.get_rings(pieces, return_index=True)
        lines += [shapely.LineString(shapely.get_coordinates(ring)[:-1]).wkb for ring in rings]
        names = np.array([*_drawing_layers(part.columns, len(geometry))], np.object_)
        layers += names[row[piece]].tolist() if len(rings) else []
    with gdal_writing():
        # GDAL (3.12) knows the field Layer, but not from Arrow.
        pyogrio.raw.write(
            path, np.array([*lines, None], np.object_)[:-1], [np.array(layers, np.object_)],
            ["Layer"], driver="DXF", geometry_type="LineString", crs=None,
        )  # fmt: skip
    # GDAL (3.12) marks a polyline as closed only if its last vertex repeats the first.
    text = path.read_bytes().replace(b"AcDbPolyline\n 70\n0\n", b"AcDbPolyline\n 70\n1\n")
    path.write_bytes(text)


def _drawing_layers(columns: Mapping[str, NDArray[Any]], count: int) -> Iterable[str]:
    """Return the layer of a drawing for each of `count` polygons; 0 is that of every drawing."""
    status = status_column(columns)
    if status is not None:
        side = columns["side" if status == "status" else "compare_layer"]
        return map("{}_{}".format, side.tolist(), columns[status].tolist())
    if "class" not in columns:
        return ["0"] * count
    # AutoCAD takes no names with these.
    return [re.sub(r'[<>/\\":;?*|=,`]', "_", str(one or 0)) for one in columns["class"].tolist()]


_NEAR_DEG = 3e-7
"""Degrees, about 3 cm, up to which a node lies on another one or on a wall; nodes have 7 digits."""


def _osm(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> None:
    """Write new buildings for JOSM: ways, and multipolygons where there are courtyards.

    Of a comparison they are those that the other layer lacks. Outlines that meet share their nodes,
    also where a corner lies on the wall of another.
    `upload` makes JOSM ask before it uploads them.
    https://wiki.openstreetmap.org/wiki/OSM_XML
    """
    nodes: dict[tuple[float, ...], int] = {}
    rings: list[list[int]] = []
    tagged: list[str] = []
    relations: list[str] = []
    for part in in_degrees(path, layer, parts):
        is_building = np.ones(len(part.geometry), np.bool_)
        if "class_id" in part.columns:
            is_building = np.isin(part.columns["class"], BUILDING_NAMES)
        if (name := status_column(part.columns)) is not None:
            is_building &= np.isin(part.columns[name], ("new", "only found"))
        kinds = part.columns.get("building", np.full(len(is_building), None))
        for row in np.flatnonzero(is_building).tolist():
            tags, members = {"building": kinds[row] or "yes"}, ""
            outlines = [
                (ring, "inner" if hole else "outer")
                for polygon in shapely.get_parts(part.geometry[row])
                for hole, ring in enumerate(shapely.get_rings(polygon))
            ]
            for ring, role in outlines:
                corners = map(tuple, shapely.get_coordinates(ring)[:-1].tolist())
                rings.append([nodes.setdefault(one, len(nodes)) for one in corners])
                tagged.append(_osm_tags(tags) if len(outlines) == 1 else "")
                members += f'<member type="way" ref="{-len(rings)}" role="{role}"/>'
            if len(outlines) > 1:
                members += _osm_tags({"type": "multipolygon", **tags})
                relations.append(f'<relation id="{-1 - len(relations)}">{members}</relation>\n')
    places = np.array([*nodes]).reshape(-1, 2)
    joined = _joined(places, rings)
    ways = (
        f'<way id="{-1 - number}">'
        + "".join(f'<nd ref="{-1 - node}"/>' for node in [*ring, ring[0]])
        + f"{own}</way>\n"
        for number, (ring, own) in enumerate(zip(joined, tagged))
    )
    with path.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n')
        file.write('<osm version="0.6" generator="rooftrace" upload="false">\n')
        for number in sorted({*chain(*joined)}):
            lon, lat = places[number]
            file.write(f'<node id="{-1 - number}" lat="{lat:.7f}" lon="{lon:.7f}"/>\n')
        file.writelines(chain(ways, relations, ["</osm>\n"]))


def _joined(places: Floats, rings: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return rings of nodes, with equal nodes for near ones, and those that lie on their walls.

    Rounding makes outlines cross whose corners or walls meet.
    """
    points = np.asarray(shapely.points(places), np.object_)
    one, other = shapely.STRtree(points).query(points, "dwithin", distance=_NEAR_DEG)
    first = np.arange(len(places))
    np.minimum.at(first, one, other)
    first = first[first]
    made = [
        [node for node, before in zip(ring, [ring[-1], *ring]) if node != before]
        for ring in (first[ring].tolist() for ring in rings)
    ]
    made = [ring if len({*ring}) > 2 else [*old] for ring, old in zip(made, rings)]
    start = np.array([*chain(*made)], np.int64)
    end = np.array([node for ring in made for node in (*ring[1:], ring[0])], np.int64)
    owner = np.repeat(np.arange(len(made)), [len(ring) for ring in made])
    walls = np.asarray(shapely.linestrings(places[np.stack([start, end], 1)]), np.object_)
    used, members = np.unique(start), [{*ring} for ring in made]
    node, wall = shapely.STRtree(walls).query(points[used], "dwithin", distance=_NEAR_DEG)
    node, inner = used[node], (used[node] != start[wall]) & (used[node] != end[wall])
    node, wall = node[inner], wall[inner]
    order = np.lexsort((shapely.line_locate_point(walls[wall], points[node]), wall))
    inserted: dict[int, list[int]] = {}
    for number, index in zip(node[order].tolist(), wall[order].tolist()):
        if number not in members[owner[index]]:
            members[owner[index]].add(number)
            inserted.setdefault(index, []).append(number)
    result: list[list[int]] = [[] for _ in made]
    for index, (ring, number) in enumerate(zip(owner.tolist(), start.tolist())):
        result[ring] += [number, *inserted.get(index, [])]
    return [
        ring if ring == old or shapely.Polygon(places[ring]).is_valid else [*old]
        for ring, old in zip(result, rings)
    ]


def status_column(columns: Mapping[str, object]) -> str | None:
    """Return the column of the statuses of a comparison; None in other layers."""
    if "compare_status" in columns:
        return "compare_status"
    return "status" if {"side", "partner_id"} <= {*columns} else None


def _osm_tags(tags: Mapping[str, object]) -> str:
    return "".join(f"<tag k={quoteattr(k)} v={quoteattr(str(v))}/>" for k, v in tags.items())


EXPORT_WRITERS: dict[str, Writer] = {
    ".pmtiles": _pmtiles,
    ".xlsx": _xlsx,
    ".dxf": _dxf,
    ".osm": _osm,
}
