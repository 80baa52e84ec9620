"""Outlines of the buildings of city models: CityGML 1 to 3, and CityJSON 1 and 2.

GDAL (3.12) reads the walls of CityGML, or nothing where a solid refers to its surfaces, and does
not read CityJSON.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import shapely
from pyproj import CRS

from rooftrace.core.errors import GeoreferenceError
from rooftrace.io.make_valid import made_valid
from rooftrace.io.reproject import degrees_off

_Building = tuple[Mapping[str, Any], Any]
"""Attributes and outline of a building; None without an outline."""


class CityModel(NamedTuple):
    """Buildings in a CRS of a map, easting or longitude first, and notes for the user."""

    buildings: Sequence[_Building]
    epsg: int
    notes: tuple[str, ...]


_FOOTPRINT, _ROOF_EDGE, _GROUND, _OTHER = _RANKS = range(4)
"""Kinds of surfaces, the best outline first."""

_Face = tuple[int, Sequence[Any]]
"""Kind and rings of a surface."""

_GML_RANKS = {
    "lod0FootPrint": _FOOTPRINT, "lod0RoofEdge": _ROOF_EDGE, "lod0MultiSurface": _ROOF_EDGE,
    "GroundSurface": _GROUND,
}  # fmt: skip
"""Kinds of the surfaces within elements of CityGML."""


def read_city_gml(path: Path, epsg: int | None, *, is_urn: bool) -> CityModel:
    """Return the buildings of CityGML in the CRS of a code.

    Args:
        is_urn: Whether the code was stated in full, `urn:…` or `http:…`: by the rules of GML the
            axes then have the order of the code, not of `EPSG:2180`.

    Raises:
        GeoreferenceError: There is no code.
    """
    buildings: list[_Building] = []
    parts: list[list[_Face]] = []
    # Python's parser expands no external entities and stops at entity expansion attacks.
    for _, one in ElementTree.iterparse(path):  # noqa: S314  # nosec B314
        kind = _local(one)
        if kind == "BuildingPart":
            parts.append([*_gml_faces(one)])
            one.clear()
        elif kind == "Building":
            plain = {_local(value): value.text for value in one if not len(value)}
            plain["gml_id"] = next(iter(one.attrib.values()), None)
            buildings.append((plain, _outline([*_gml_faces(one)], parts)))
            parts = []
        elif kind in ("cityObjectMember", "appearanceMember"):
            one.clear()
    return _placed(path, buildings, epsg, as_defined=is_urn)


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _gml_faces(element: ElementTree.Element, rank: int = _OTHER) -> Iterator[_Face]:
    """Yield the surfaces within an element, each of the best kind that an element around it has."""
    for inner in element:
        if _local(inner) in ("Polygon", "PolygonPatch", "Triangle"):
            yield rank, [_points(one) for one in inner.iter() if _local(one) == "LinearRing"]
        else:
            yield from _gml_faces(inner, min(rank, _GML_RANKS.get(_local(inner), _OTHER)))


def _points(ring: ElementTree.Element) -> Any:
    """Return the points (n, 2) of a ring; they have three dimensions if it does not say so."""
    lists = [one for one in ring.iter() if _local(one) in ("posList", "pos")]
    numbers = np.array(" ".join(one.text or "" for one in lists).split(), np.float64)
    return numbers.reshape(-1, int(lists[0].get("srsDimension", 3)))[:, :2]


def read_city_json(path: Path, models: Sequence[Mapping[str, Any]], epsg: int | None) -> CityModel:
    """Return the buildings of objects of CityJSON, the first of which states the scale.

    Raises:
        GeoreferenceError: There is no code.
    """
    move = models[0].get("transform") or {}
    buildings: list[_Building] = []
    for model in models:
        points = np.array(model["vertices"], np.float64).reshape(-1, 3)
        points = (points * move.get("scale", 1) + move.get("translate", 0))[:, :2]
        things = model["CityObjects"]
        for name, thing in things.items():
            if thing["type"] == "Building":
                children = [things.get(child, {}) for child in thing.get("children", ())]
                parts = [one for one in children if one.get("type") == "BuildingPart"]
                own, *others = ([*_json_faces(one, points)] for one in (thing, *parts))
                plain = {"city_id": name, **thing.get("attributes", {})}
                buildings.append((plain, _outline(own, others)))
    return _placed(path, buildings, epsg)


def _json_faces(thing: Mapping[str, Any], points: Any) -> Iterator[_Face]:
    for geometry in thing.get("geometry", ()):
        if "Surface" in geometry["type"] or "Solid" in geometry["type"]:
            semantics = geometry.get("semantics") or {}
            is_flat = str(geometry.get("lod")).startswith("0")
            for index, rings in _leaves(geometry["boundaries"], semantics.get("values")):
                kind = "" if index is None else semantics["surfaces"][index]["type"]
                rank = _GROUND if kind == "GroundSurface" else _OTHER
                if is_flat:
                    rank = _ROOF_EDGE if kind == "RoofSurface" else _FOOTPRINT
                yield rank, [points[ring] for ring in rings]


def _leaves(nested: list[Any], values: Any) -> Iterator[tuple[int | None, list[list[int]]]]:
    """Yield the surfaces below nested boundaries, with their numbers among the semantics."""
    if nested and nested[0] and isinstance(nested[0][0], int):
        yield values, nested
        return
    for number, inner in enumerate(nested):
        yield from _leaves(inner, values[number] if isinstance(values, list) else values)


def _outline(own: Sequence[_Face], parts: Iterable[Sequence[_Face]]) -> Any:
    """Return the outline of a building, or the ground below it and its parts; None without."""
    shape = _joined(own, [_FOOTPRINT, _ROOF_EDGE])
    if shape.is_empty:
        shape = shapely.union_all([_joined(unit, _RANKS) for unit in (own, *parts)])
    return None if shape.is_empty else shape


def _joined(faces: Sequence[_Face], ranks: Iterable[int]) -> Any:
    """Return the ground below surfaces of the best kind that has an area from above."""
    for rank in ranks:
        rings = [[ring for ring in face if len(ring) > 2] for kind, face in faces if kind == rank]
        shapes = [shapely.Polygon(one[0], one[1:]) for one in rings if one]
        # Walls have no area from above.
        flat = made_valid(shapes, method="structure", keep_collapsed=False) if shapes else ()
        if not (shape := shapely.union_all(flat)).is_empty:
            return shape
    return shapely.Polygon()


def _placed(
    path: Path, buildings: Sequence[_Building], epsg: int | None, *, as_defined: bool = False
) -> CityModel:
    """Return buildings in the order of a map.

    Many writers keep easting first in a CRS that has northing first, or latitude first in CityJSON:
    where the buildings then are says so. Where both are possible, latitude is first, and northing
    if `as_defined`.
    """
    if epsg is None:
        raise GeoreferenceError(
            f"{path} states no EPSG code of a CRS.",
            remedy="Write it into the file: cjio IN crs_assign CODE save OUT, or srsName='EPSG:…'.",
        )
    crs = CRS.from_epsg(epsg)
    # With heights it is a compound of two.
    crs = next(iter(crs.sub_crs_list), crs).to_2d()
    epsg = crs.to_epsg() or epsg
    outlines = np.array([outline for _, outline in buildings], np.object_)
    x, y = np.reshape(shapely.total_bounds(outlines), (2, 2)).mean(axis=0)
    as_it_is, swapped = degrees_off(crs, x, y), degrees_off(crs, y, x)
    is_open = swapped == as_it_is and crs.axis_info[0].direction == "north" and len(outlines) > 0
    is_north = crs.is_geographic or as_defined
    first = "latitude" if crs.is_geographic else "northing" if is_north else "easting"
    note = f"{path.name}: {first} is read first; its place in EPSG:{epsg} allows both orders."
    if swapped < as_it_is or (is_open and is_north):
        outlines = shapely.transform(outlines, lambda xy: xy[:, ::-1])
    return CityModel(
        [(of, one) for (of, _), one in zip(buildings, outlines)], epsg, (note,) * is_open
    )
