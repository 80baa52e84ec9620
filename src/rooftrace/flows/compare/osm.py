"""Buildings as an .osm file for JOSM (https://josm.openstreetmap.de), to be reviewed by a person.

The format is that of https://wiki.openstreetmap.org/wiki/JOSM_file_format: negative ids are of
objects that the server does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import shapely
from pyproj import CRS

from rooftrace.core.types import Floats, Ints, Polygons
from rooftrace.io.files import replacing
from rooftrace.io.make_valid import make_polygons_valid, polygon_parts
from rooftrace.io.reproject import CRS84, transform_points

SIMPLIFY_M = 0.2
"""Maximum distance in metres by which the simplification of outlines moves them."""

_SNAP_M = 0.05
"""Maximum distance in metres of a corner from the wall of a neighbour that gets a node there."""

OSM_DIGITS = 7
"""Decimal places of degrees that OpenStreetMap stores; they are about a centimetre."""

_MIN_COMMON_M2 = 1e-3
"""Minimum area in square metres of an overlap; less is rounding along a shared wall."""

_MIN_COURT_M2 = 1.0
"""Minimum area in square metres of a court; smaller holes come from repaired outlines."""

_MAX_WAY_NODES = 2000
"""Maximum number of nodes of a way on the server of OpenStreetMap."""

_MAX_TAG_CHARS = 255


def changeset_tags(source: str | None, imagery_date: str | None) -> dict[str, str]:
    """Return the tags of the changeset that JOSM proposes when a person uploads the file."""
    tags = {"created_by": "rooftrace"}
    if source:
        tags["source"] = source
    if imagery_date:
        tags["imagery_date"] = imagery_date
    return {name: value[:_MAX_TAG_CHARS] for name, value in tags.items()}


def osm_outlines(polygons: Polygons) -> Polygons:
    """Return simplified outlines in which touching buildings have the corners of shared walls.

    Of two buildings that overlap, the smaller one loses what both have in common. Holes below
    `_MIN_COURT_M2` are filled.

    Args:
        polygons: (n,) valid polygons and multipolygons on a plane in metres.

    Returns:
        (m,) polygons; each part of a multipolygon is a building.
    """
    parts, _ = polygon_parts(polygons)
    simple = make_polygons_valid(
        np.asarray(shapely.simplify(parts, SIMPLIFY_M, preserve_topology=True), np.object_)
    )
    simple = simple[shapely.area(simple) > 0]
    rings, owner = shapely.get_rings(simple, return_index=True)
    is_exterior = np.diff(owner, prepend=-1) != 0
    kept = is_exterior | (shapely.area(shapely.polygons(rings)) >= _MIN_COURT_M2)
    filled = _polygons_of(np.asarray(rings[kept], np.object_), owner[kept], simple)
    return _with_shared_corners(_separate(filled))


def _separate(polygons: Polygons) -> Polygons:
    """Take the common area of two polygons from the smaller one, of which the largest part stays.

    The validator of JOSM warns of buildings that overlap.
    """
    area = shapely.area(polygons)
    one, other = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    smaller = np.lexsort((-np.arange(len(area)), area))
    rank = np.empty(len(area), np.int64)
    rank[smaller] = np.arange(len(area))
    gives = rank[one] < rank[other]
    one, other = one[gives], other[gives]
    common = shapely.area(shapely.intersection(polygons[one], polygons[other])) > _MIN_COMMON_M2
    separate = polygons.copy()
    for index, larger in zip(one[common].tolist(), other[common].tolist()):
        # The larger one may have lost its part to a yet larger one: what it was counts.
        rest = shapely.difference(separate[index], polygons[larger])
        parts, _ = polygon_parts(np.array([rest], np.object_))
        separate[index] = max(parts, key=lambda part: float(part.area), default=None)
    left = np.array([one is not None for one in separate], np.bool_)
    return np.asarray(separate[left], np.object_)


def _with_shared_corners(polygons: Polygons) -> Polygons:
    """Add the corners of neighbours that lie on a wall, so that both walls have one node."""
    rings, owner = shapely.get_rings(polygons, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    if not len(xy):
        return polygons
    xy = _merged_corners(xy)
    is_edge = ring[1:] == ring[:-1]
    start, stop = xy[:-1][is_edge], xy[1:][is_edge]
    edge_ring = ring[1:][is_edge]
    corners = np.unique(xy, axis=0)
    lines = shapely.linestrings(np.stack([start, stop], axis=1))
    tree = shapely.STRtree(np.asarray(lines, np.object_))
    points = np.asarray(shapely.points(corners), np.object_)
    point, edge = tree.query(points, predicate="dwithin", distance=_SNAP_M)
    along = stop[edge] - start[edge]
    length = np.maximum(np.hypot(*along.T), 1e-9)
    position = ((corners[point] - start[edge]) * along).sum(axis=1) / length**2
    # A corner at an end of the edge is that end, or would make a tiny edge beside it.
    inner = (position * length > _SNAP_M) & ((1 - position) * length > _SNAP_M)
    point, edge, position = point[inner], edge[inner], position[inner]
    number = np.arange(len(edge_ring)).astype(np.float64)
    # The starts of all edges and the added corners in the order of the walk along each ring.
    key = np.concatenate([number, edge + position])
    place = np.concatenate([start, corners[point]])
    of_ring = np.concatenate([edge_ring, edge_ring[edge]])
    order = np.argsort(key, kind="stable")
    place, of_ring = place[order], of_ring[order]
    made = shapely.linearrings(place, indices=of_ring)
    return _polygons_of(np.asarray(made, np.object_), owner, polygons)


def _merged_corners(xy: Floats) -> Floats:
    """Return (n, 2) corners in which those closer than `_SNAP_M` have one place."""
    corners, corner = np.unique(xy, axis=0, return_inverse=True)
    points = np.asarray(shapely.points(corners), np.object_)
    one, other = shapely.STRtree(points).query(points, predicate="dwithin", distance=_SNAP_M)
    first = np.arange(len(corners))
    np.minimum.at(first, one, other)
    return np.asarray(corners[first][corner.reshape(-1)], np.float64)


def _polygons_of(rings: Polygons, owner: Ints, before: Polygons) -> Polygons:
    """Build polygons of rings, the exterior first; those that became invalid stay as before."""
    made = before.copy()
    if not len(made):
        return made
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    for number, own in enumerate(np.split(np.arange(len(rings)), starts[1:])):
        made[number] = shapely.Polygon(rings[own[0]], list(rings[own[1:]]))
    valid = shapely.is_valid(made)
    made[~valid] = before[~valid]
    return made


def write_osm(
    path: Path, polygons: Polygons, crs: CRS, changeset: Mapping[str, str]
) -> tuple[int, int]:
    """Write buildings as ways with the tag `building=yes`; those with holes as multipolygons.

    Nodes at one place, to seven decimals of a degree, are one node. JOSM asks before it uploads
    the file.

    Args:
        path: File to write.
        polygons: (n,) valid polygons in `crs`.
        crs: Coordinate system of the polygons.
        changeset: Tags of the changeset that JOSM proposes.

    Returns:
        Number of buildings written, and of those left out because a way would have more than
        2,000 nodes, or because rounding leaves no area.

    Raises:
        ExportError: The file cannot be written.
    """
    rings, owner = shapely.get_rings(polygons, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    degrees = np.round(transform_points(xy, crs, CRS84), OSM_DIGITS)
    # A step of zero: two corners that rounding has put at one place.
    kept = np.ones(len(xy), np.bool_)
    kept[1:] = (np.diff(degrees, axis=0) != 0).any(axis=1) | (ring[1:] != ring[:-1])
    degrees, ring = degrees[kept], ring[kept]
    count = np.bincount(ring, minlength=len(rings))
    bad_ring = (count < 4) | (count > _MAX_WAY_NODES)
    bad = np.zeros(len(polygons), np.bool_)
    bad[owner[bad_ring]] = True
    used = ~bad[owner[ring]] if len(ring) else np.zeros(0, np.bool_)
    nodes, node = np.unique(degrees[used][:, ::-1], axis=0, return_inverse=True)
    ends = np.flatnonzero(np.diff(ring[used], append=-1))
    of_ring = np.split(-1 - node.reshape(-1), ends[:-1] + 1) if len(ends) else []
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write("<?xml version='1.0' encoding='UTF-8'?>\n")
        file.write("<osm version='0.6' generator='rooftrace' upload='false'>\n")
        file.write("  <changeset>\n" + "".join(map(_tag, changeset.items())) + "  </changeset>\n")
        file.writelines(
            f"  <node id='{-number}' lat='{lat:.7f}' lon='{lon:.7f}' visible='true'/>\n"
            for number, (lat, lon) in enumerate(nodes.tolist(), 1)
        )
        building = owner[ring[used][ends]] if len(ends) else np.zeros(0, np.int64)
        file.writelines(_ways(of_ring, building, -len(nodes)))
        file.write("</osm>\n")
    return len(polygons) - int(bad.sum()), int(bad.sum())


def _tag(item: tuple[str, str]) -> str:
    return f"    <tag k={quoteattr(item[0])} v={quoteattr(item[1])}/>\n"


_BUILDING = _tag(("building", "yes"))


def _ways(rings: list[Ints], building: Ints, last_id: int) -> Iterator[str]:
    """Yield a way for each ring, then a multipolygon for each building with several rings.

    Args:
        rings: Ids of the nodes of each ring.
        building: Building of each ring, ascending; its first ring is the exterior.
        last_id: Lowest id in use.
    """
    holes = np.bincount(building) > 1 if len(building) else np.zeros(0, np.bool_)
    ways: dict[int, list[int]] = {}
    for number, (nodes, own) in enumerate(zip(rings, building.tolist())):
        way = last_id - 1 - number
        references = "".join(f"    <nd ref='{one}'/>\n" for one in nodes.tolist())
        tags = "" if holes[own] else _BUILDING
        yield f"  <way id='{way}' visible='true'>\n{references}{tags}  </way>\n"
        if holes[own]:
            ways.setdefault(own, []).append(way)
    kind = _tag(("type", "multipolygon"))
    for number, members in enumerate(ways.values()):
        relation = last_id - 1 - len(rings) - number
        listed = "".join(
            f"    <member type='way' ref='{way}' role='{'inner' if place else 'outer'}'/>\n"
            for place, way in enumerate(members)
        )
        yield (
            f"  <relation id='{relation}' visible='true'>\n{listed}{kind}{_BUILDING}  </relation>\n"
        )
