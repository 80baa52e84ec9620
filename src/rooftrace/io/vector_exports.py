"""Vector formats for other programs, from which a layer is not read again.

- A table of Excel has attributes alone, a drawing (DXF) outlines alone.
- OpenStreetMap (.osm) has buildings to add to it.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from math import isfinite
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.arrays import in_steps
from rooftrace.core.errors import ExportError
from rooftrace.core.text import plural
from rooftrace.core.types import BoolArray, Floats, Ints, Polygons, full_turn
from rooftrace.io.legend import BUILDING_NAMES
from rooftrace.io.pmtiles import write_pmtiles
from rooftrace.io.reproject import CRS84, crs_text, reprojected, transform_points, utm_zone
from rooftrace.io.vector_layers import is_comparison
from rooftrace.io.vector_writers import (
    LayerChunk,
    LayerSettings,
    Notes,
    Writer,
    gdal_writing,
    in_degrees,
    long_as_text,
    with_points,
    write_gdal,
    write_zip,
)

_XLSX_ROWS = 2**20 - 1
"""Maximum number of rows of a sheet of Excel below its header; it leaves out further ones."""

_XLSX_WHOLE = 10**15
"""Whole numbers from here on become text: Excel keeps 15 digits, and fills up ids with zeros."""


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
            yield part

    chunks = long_as_text(with_points(layer, rows()), _XLSX_WHOLE)
    write_gdal(path, replace(layer, crs=CRS84), chunks, "XLSX", at_once=True, kind=None)
    with zipfile.ZipFile(path) as table:
        contents = [(one.filename, table.read(one)) for one in table.infolist()]
    write_zip(path, contents)


def _drawing_crs(crs: CRS, geometry: Polygons) -> CRS:
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


def _dxf(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> Notes:
    """Write each ring as a closed polyline; GDAL would fill polygons, which covers the drawing.

    Classes, and the statuses of a comparison, are layers of the drawing.
    """
    import pyogrio

    lines: list[bytes] = []
    layers: list[str] = []
    drawn: CRS | None = None
    for part in parts:
        geometry = part.geometry
        if layer.crs is not None and len(geometry):
            drawn = drawn or _drawing_crs(layer.crs, geometry)
            if drawn != layer.crs:
                geometry = reprojected(geometry, layer.crs, drawn, 0.01)
        pieces, row = shapely.get_parts(geometry, return_index=True)
        rings, piece = shapely.get_rings(pieces, return_index=True)
        lines += [shapely.LineString(shapely.get_coordinates(ring)[:-1]).wkb for ring in rings]
        names = np.array([*_drawing_layers(part.columns, len(geometry))], np.object_)
        layers += names[row[piece]].tolist() if len(rings) else []
    with gdal_writing():
        # GDAL (3.12) takes no field Layer from Arrow, and appends nothing to a drawing.
        pyogrio.raw.write(
            path, np.array([*lines, None], np.object_)[:-1], [np.array(layers, np.object_)],
            ["Layer"], driver="DXF", geometry_type="LineString",
            # It tells the unit of the drawing, which GDAL takes for inches without one.
            crs=None if drawn is None else drawn.to_wkt(),
        )  # fmt: skip
    # GDAL (3.12) marks a polyline as closed only if its last vertex repeats the first.
    text = path.read_bytes().replace(b"AcDbPolyline\n 70\n0\n", b"AcDbPolyline\n 70\n1\n")
    path.write_bytes(text)
    crs = drawn or layer.crs
    system = "pixels of the image" if crs is None else crs_text(crs)
    return (f"{path.name}: DXF has no attributes and no coordinate system; it is in {system}.",)


def _drawing_layers(columns: Mapping[str, NDArray[Any]], count: int) -> Iterable[str]:
    """Return the layer of a drawing for each of `count` polygons; 0 is that of every drawing."""
    status = _status_column(columns)
    if status is not None:
        side = columns["side" if status == "status" else "compare_layer"]
        return map("{}_{}".format, side.tolist(), columns[status].tolist())
    if "class" not in columns:
        return ["0"] * count
    # AutoCAD takes no names with these.
    return [re.sub(r'[<>/\\":;?*|=,`]', "_", str(one or 0)) for one in columns["class"].tolist()]


_AT_ONCE = 100_000
"""Nodes or ways that are written at once."""

_NODE_DIGITS = 7
"""Decimal places of a node's degrees, about a centimetre."""

_NEAR_DEG = 3e-7
"""Degrees, about 3 cm, up to which a node lies on another one or on a wall."""

_SAME_SHARE = 0.01
"""Share of a building's area that may change where it shares nodes with others."""

_MOST_NODES = 2000
"""Maximum number of nodes of a way, https://wiki.openstreetmap.org/wiki/Way."""


def _osm(path: Path, layer: LayerSettings, parts: Iterable[LayerChunk]) -> Notes:
    """Write new buildings for JOSM: ways, and multipolygons where there are courtyards.

    Outlines that meet share their nodes, also where a corner lies on the wall of another.
    `upload` makes JOSM ask before it uploads them.
    https://wiki.openstreetmap.org/wiki/OSM_XML
    """
    texts: list[str] = []
    tag_texts: dict[str, str] = {}
    columns: Mapping[str, NDArray[Any]] = {}
    buildings = [np.zeros(0, np.object_)]
    for part in in_degrees(path, layer, parts):
        columns = part.columns
        is_added = _is_added(columns, len(part.geometry))
        buildings.append(part.geometry[is_added])
        texts += [tag_texts.setdefault(one, one) for one in _tags_of(columns, is_added)]
    polygons, owner = shapely.get_parts(_joined(np.concatenate(buildings)), return_index=True)
    rings, polygon = shapely.get_rings(polygons, return_index=True)
    xy, way = shapely.get_coordinates(rings, return_index=True)
    # The last corner of a ring repeats the first.
    is_corner = np.diff(way, append=-1) == 0
    places, node = _distinct(xy[is_corner])
    starts = np.append(0, np.cumsum(np.bincount(way) - 1))
    hole, building = np.diff(polygon, prepend=-1) == 0, owner[polygon]
    is_alone = np.bincount(building, minlength=len(texts))[building] == 1
    owners = building.tolist()
    tags = [texts[one] * own for one, own in zip(owners, is_alone.tolist())]
    members: dict[int, str] = {}
    for number in np.flatnonzero(~is_alone).tolist():
        role = "inner" if hole[number] else "outer"
        member = f'<member type="way" ref="{-1 - number}" role="{role}"/>'
        members[owners[number]] = members.get(owners[number], "") + member
    kind_of = _osm_tags({"type": "multipolygon"})
    relations = (
        f'<relation id="{-1 - number}">{ways}{kind_of}{texts[one]}</relation>\n'
        for number, (one, ways) in enumerate(members.items())
    )
    with path.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n')
        file.write('<osm version="0.6" generator="rooftrace" upload="false">\n')
        ways = _ways(node, starts, tags)
        file.writelines(chain(_nodes(places), ways, relations, ["</osm>\n"]))
    # A closed way names its first node twice.
    long = int((np.diff(starts) >= _MOST_NODES).sum())
    return _osm_notes(path.name, len(texts), long, columns)


def _joined(buildings: Polygons) -> Polygons:
    """Return buildings that share their corners where they meet, also on the wall of another.

    Rounding makes outlines cross whose corners or walls meet. One that would change stays as it
    is, such as a building that covers another.
    """
    if not len(buildings):
        return buildings
    clean = shapely.coverage_clean  # type: ignore[attr-defined]  # its types lack it
    joined = clean(buildings, snapping_distance=_NEAR_DEG)
    joined = shapely.transform(joined, lambda xy: np.round(xy, _NODE_DIGITS))
    area = shapely.area(buildings)
    is_same = np.abs(shapely.area(joined) - area) <= _SAME_SHARE * area
    return np.where(is_same & shapely.is_valid(joined), joined, buildings)


def _osm_notes(name: str, written: int, long: int, columns: Mapping[str, NDArray[Any]]) -> Notes:
    """Return notes on the buildings written, and on those with too many nodes."""
    keys = ["building" if "building" in columns else "building=yes"]
    keys += [key for column, key in _OSM_TAGS.items() if column in columns]
    which = plural(written, "building" if _status_column(columns) is None else "new building")
    flag = _flag_of(columns)
    without = {
        "": "",
        "cut": "; without those that the edge of the imagery cuts",
        TO_ADD: "; without those that the edge of the imagery cuts, that overlap one of the map by "
        "more than half of either, and that a better outline shows, too",
    }
    tags = f"{plural(len(keys), 'tag')[2:]} {' and '.join(keys)}"
    notes = [f"{name}: {which}, with the {tags} alone{without[flag]}."]
    if long:
        notes.append(
            f"{name}: {plural(long, 'outline has', 'outlines have')} over {_MOST_NODES:,} nodes, "
            "which OpenStreetMap refuses; simplify in JOSM (Shift+Y) before the upload."
        )
    return tuple(notes)


def _is_added(columns: Mapping[str, NDArray[Any]], count: int) -> BoolArray:
    """Return (count,) True for the buildings that the map lacks.

    Of a comparison, those `to_add`. The edge of the imagery has cut others, of which a review may
    keep some.
    """
    added = np.ones(count, np.bool_)
    if {"class", "class_id"} <= columns.keys():
        added &= np.isin(columns["class"], BUILDING_NAMES)
    if (status := _status_column(columns)) is not None:
        added &= np.isin(columns[status], ("new", "only found"))
    if flag := _flag_of(columns):
        added &= np.ma.filled(columns[flag], False) == (flag == TO_ADD)
    return added


TO_ADD = "to_add"
"""Column of a comparison that tells which of its new buildings the map lacks."""


def _flag_of(columns: Mapping[str, NDArray[Any]]) -> str:
    """Return the column that tells which buildings the map lacks, or which ones an edge cuts.

    It is "" where there is none, or a person has reviewed the layer.
    """
    is_flag = {name: values.dtype.kind == "b" for name, values in columns.items()}
    flags = [name for name in (TO_ADD, "cut") if is_flag.get(name)]
    return flags[0] if flags and "review" not in columns else ""


_OSM_TAGS = {"height": "height", "roof_height": "roof:height", "roof_shape": "roof:shape"}
"""Tags of OpenStreetMap by the column of `rooftrace heights`; metres have no unit."""


def _tags_of(columns: Mapping[str, NDArray[Any]], chosen: BoolArray) -> Iterator[str]:
    """Yield the tags of the chosen buildings."""
    names = {"building": "building", **_OSM_TAGS}
    rows = {key: columns[name][chosen].tolist() for name, key in names.items() if name in columns}
    for number in range(int(chosen.sum())):
        tags = {"building": "yes"}
        for key, values in rows.items():
            value = values[number]
            # `complex` is no value of OpenStreetMap.
            if isinstance(value, str) and value not in ("", "complex"):
                tags[key] = value
            elif key != "building" and isinstance(value, int | float) and value > 0:
                tags[key] = f"{value:.1f}".removesuffix(".0")
        yield _osm_tags(tags)


def _distinct(xy: Floats) -> tuple[Floats, Ints]:
    """Return the distinct ones of points (n, 2), in order, and (n,) which of them each one is."""
    _, first, inverse = np.unique(
        np.ascontiguousarray(xy).view(np.complex128)[:, 0], return_index=True, return_inverse=True
    )
    order = np.argsort(first)
    return xy[first[order]], np.argsort(order)[inverse]


def _nodes(places: Floats) -> Iterator[str]:
    for some in in_steps(np.arange(len(places)), _AT_ONCE):
        for number, (lon, lat) in zip(some.tolist(), places[some].tolist()):
            yield f'<node id="{-1 - number}" lat="{lat:.7f}" lon="{lon:.7f}"/>\n'


def _ways(node: Ints, starts: Ints, tags: Sequence[str]) -> Iterator[str]:
    """Yield the ways of rings: their nodes, one ring after the other, and where each begins."""
    for some in in_steps(np.arange(len(tags)), _AT_ONCE):
        own = starts[some[0] : some[-1] + 2]
        refs = [f'<nd ref="{-1 - one}"/>' for one in node[own[0] : own[-1]].tolist()]
        for way, (start, stop) in zip(some.tolist(), pairwise((own - own[0]).tolist())):
            text = "".join(refs[start:stop])
            yield f'<way id="{-1 - way}">{text}{refs[start]}{tags[way]}</way>\n'


def _status_column(columns: Mapping[str, NDArray[Any]]) -> str | None:
    """Return the column of the statuses of a comparison; None in other layers."""
    if "compare_status" in columns:
        return "compare_status"
    side, status = (columns.get(name, ()) for name in ("side", "status"))
    return "status" if is_comparison(side, status) else None


def _osm_tags(tags: Mapping[str, object]) -> str:
    return "".join(f"<tag k={quoteattr(k)} v={quoteattr(str(v))}/>" for k, v in tags.items())


EXPORT_WRITERS: dict[str, Writer] = {
    ".pmtiles": write_pmtiles,
    ".xlsx": _xlsx,
    ".dxf": _dxf,
    ".osm": _osm,
}
