"""CityJSON 2.0 of buildings as closed blocks (LoD1.2), written as they come; and a picture.

The standard: https://www.cityjson.org/specs/2.0.1/
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import shapely
from pyproj import CRS
from pyproj.crs import CompoundCRS

from rooftrace.core.arrays import in_steps
from rooftrace.core.types import Floats, Polygons
from rooftrace.heights.estimate import Heights
from rooftrace.io.files import replacing
from rooftrace.io.legend import Grades
from rooftrace.io.picture import LARGEST_PX, PAPER, draw_polygon, map_page, write_png
from rooftrace.vector.match import PackedPolygons

_SCALE = 0.001
"""Coordinates are whole numbers of millimetres."""

_KINDS = ("GroundSurface", "RoofSurface", "WallSurface")


def epsg_code(plane: CRS, vertical: CRS | None) -> int | None:
    """Return the EPSG code of a plane with heights in metres, as the standard wants it.

    It is that of the plane alone where EPSG has none for both, or the vertical CRS is not known or
    not in metres; None where the plane has none, either.
    """
    flat = next((part for part in plane.sub_crs_list if part.is_projected), plane)
    code = flat.to_epsg()
    if code and vertical is not None and vertical.axis_info[0].unit_name == "metre":
        return CompoundCRS(flat.name, [flat, vertical]).to_epsg() or code
    return code


@contextmanager
def city_model(
    path: Path, code: int | None, least: Sequence[float], greatest: Sequence[float]
) -> Iterator[CityModelWriter]:
    """Open a city model for writing, which appears under its name when it is complete.

    Args:
        path: File to write, `.city.json`.
        code: EPSG code of the CRS, see `epsg_code`; None to state no CRS.
        least, greatest: x, y and z of all vertices.

    Raises:
        ExportError: The file cannot be written.
    """
    origin = [float(np.floor(value)) for value in least]
    system = f"https://www.opengis.net/def/crs/EPSG/0/{code}"
    head = {
        "type": "CityJSON",
        "version": "2.0",
        "transform": {"scale": [_SCALE] * 3, "translate": origin},
        "metadata": {
            "geographicalExtent": [round(value, 3) for value in (*least, *greatest)],
            **({} if code is None else {"referenceSystem": system}),
        },
    }
    with (
        replacing(path) as partial,
        partial.open("w", encoding="utf-8") as file,
        TemporaryFile("w+", encoding="utf-8") as vertices,
    ):
        file.write(json.dumps(head)[:-1] + ',\n"CityObjects":{')
        yield CityModelWriter(file, vertices, origin)
        file.write('},\n"vertices":[')
        vertices.seek(0)
        shutil.copyfileobj(vertices, file)
        file.write("]}\n")


class CityModelWriter:
    """Writes buildings as closed blocks from a level bottom to a flat top, see `city_model`.

    Objects and vertices go to files as they come, so memory holds none of them.

    Args:
        objects, vertices: Files of both.
        origin: x, y and z in metres from which coordinates are counted.
    """

    def __init__(self, objects: IO[str], vertices: IO[str], origin: Sequence[float]) -> None:
        self._file, self._vertices, self._origin = objects, vertices, origin
        self._count, self._written = 0, False

    def add(
        self,
        ids: Sequence[str],
        outlines: Polygons,
        bottom: Floats,
        top: Floats,
        levels: Sequence[Sequence[tuple[shapely.Geometry, float]]],
        attributes: Sequence[Mapping[str, Any]],
    ) -> None:
        """Add buildings with a polygon or multipolygon each; every part is a solid of its own.

        Args:
            ids: (n,) names, all different in the file.
            outlines: (n,) outlines in metres in the CRS.
            bottom, top: (n,) heights in metres in the vertical datum.
            levels: (n,) parts of each outline with the height of their tops, where the roof has
                clear levels (LoD1.3); empty without.
            attributes: (n,) attributes of each.
        """
        blocks: list[tuple[int, int, shapely.Geometry, float]] = []
        for number, (outline, high, levelled) in enumerate(zip(outlines, top, levels)):
            blocks.append((number, 0, outline, high))
            blocks += [(number, 1, part, height) for part, height in levelled]
        owner, lod, geometry, highest = (np.array(column) for column in zip(*blocks))
        parts, index = shapely.get_parts(geometry, return_index=True)
        local = shapely.transform(parts, lambda xy: xy - np.asarray(self._origin[:2]))
        rounded = shapely.transform(local, lambda xy: np.rint(xy / _SCALE) * _SCALE)
        rounded = shapely.remove_repeated_points(rounded)
        # Rings that touch after rounding to millimetres would not close.
        broken = ~shapely.is_valid(rounded)
        rounded[broken] = shapely.set_precision(local[broken], _SCALE)
        rounded = shapely.orient_polygons(rounded)
        whole = shapely.get_type_id(rounded) == shapely.GeometryType.POLYGON
        whole &= ~shapely.is_empty(rounded)
        rounded, index = rounded[whole], index[whole]
        solids = self._solids(rounded, bottom[owner[index]], highest[index].astype(np.float64))
        things: dict[str, Any] = {}
        for number, level, solid in zip(owner[index].tolist(), lod[index].tolist(), solids):
            thing = things.setdefault(
                ids[number],
                {"type": "Building", "attributes": attributes[number], "geometry": [[], []]},
            )
            thing["geometry"][level].append(solid)
        for thing in things.values():
            thing["geometry"] = [
                _geometry(name, found)
                for name, found in zip(("1.2", "1.3"), thing["geometry"])
                if found
            ]
        if things:
            text = json.dumps(things, allow_nan=False, default=str, separators=(",", ":"))[1:-1]
            self._file.write(f"{',' if self._written else ''}\n{text}")
            self._written = True

    def _solids(
        self, polygons: Polygons, low: Floats, high: Floats
    ) -> list[tuple[list[list[list[int]]], list[int]]]:
        """Write the vertices of blocks; return the surfaces of each, and their kinds.

        Surfaces are seen from outside, their exterior rings anticlockwise.
        """
        rings, owner = shapely.get_rings(polygons, return_index=True)
        xy, ring = shapely.get_coordinates(rings, return_index=True)
        places = np.rint(xy / _SCALE).astype(np.int64).tolist()
        bottom, top = (
            np.rint((values - self._origin[2]) / _SCALE).astype(np.int64)[owner].tolist()
            for values in (low, high)
        )
        vertices: list[list[int]] = []
        solids: list[tuple[list[list[list[int]]], list[int]]] = [
            ([[], []], [0, 1]) for _ in polygons
        ]
        start = 0
        for block, below, above, stop in zip(
            owner.tolist(), bottom, top, np.cumsum(np.bincount(ring)).tolist()
        ):
            # The last corner of a ring repeats the first.
            corners, start = places[start : stop - 1], stop
            count, begin = len(corners), self._count + len(vertices)
            lower, upper = range(begin, begin + count), range(begin + count, begin + 2 * count)
            vertices += [[x, y, z] for z in (below, above) for x, y in corners]
            shell, kinds = solids[block]
            shell[0].append([*reversed(lower)])
            shell[1].append([*upper])
            shell += [
                [[lower[k], lower[k + 1 - count], upper[k + 1 - count], upper[k]]]
                for k in range(count)
            ]
            kinds += [2] * count
        if vertices:
            text = json.dumps(vertices, separators=(",", ":"))[1:-1]
            self._vertices.write(f"{',' if self._count else ''}{text}")
        self._count += len(vertices)
        return solids


def _geometry(
    lod: str, solids: Sequence[tuple[list[list[list[int]]], list[int]]]
) -> dict[str, Any]:
    shells, kinds = ([[one] for one in column] for column in zip(*solids))
    single = len(solids) == 1
    return {
        "type": "Solid" if single else "MultiSolid",
        "lod": lod,
        "boundaries": shells[0] if single else shells,
        "semantics": {
            "surfaces": [{"type": kind} for kind in _KINDS],
            "values": kinds[0] if single else kinds,
        },
    }


UNKNOWN, _DRAWN_AT_ONCE = (205, 205, 205), 10_000

_RAMP = (
    (253, 231, 76), (249, 173, 60), (224, 108, 82), (171, 62, 112), (106, 40, 120), (43, 24, 91)
)  # fmt: skip
"""Colours from low to high, each darker than the last, so that they differ in grey, too."""

_BREAKS_M = (0.0, 4.0, 8.0, 14.0, 25.0, 50.0)
"""Heights in metres of the colours."""

GRADES = Grades(
    "height",
    (
        ("no height", -1.0, UNKNOWN),
        *(
            (f"{low:g} to {high:g} m", high, rgb)
            for low, high, rgb in zip(_BREAKS_M, _BREAKS_M[1:], _RAMP)
        ),
        (f"{_BREAKS_M[-1]:g} m and more", 1e4, _RAMP[-1]),
    ),
)
"""Grades of a layer of heights; each has the picture's colour of its lower end."""


def heights_picture(
    path: Path, outlines: PackedPolygons, heights: Heights, title: str, source: str
) -> None:
    """Write a map as PNG: buildings coloured by height; those without a height are grey.

    Args:
        path: File to write.
        outlines: The n outlines on a plane in metres, y northwards.
        heights: Their heights.
        title: Name of the layer.
        source: Line below the picture.

    Raises:
        ExportError: The file cannot be written.
    """
    left, bottom = outlines.bounds[:, :2].min(axis=0)
    right, top = outlines.bounds[:, 2:].max(axis=0)
    metres = max(right - left, top - bottom, 1e-9) / LARGEST_PX
    size = max(round((top - bottom) / metres), 1), max(round((right - left) / metres), 1)
    picture = np.full((*size, 3), PAPER, np.uint8)
    for rows in in_steps(np.arange(len(outlines)), _DRAWN_AT_ONCE):
        tall = heights.height[rows]
        colour = np.stack([np.interp(tall, _BREAKS_M, band) for band in zip(*_RAMP)], axis=1)
        colour[np.isnan(tall)] = UNKNOWN
        for polygon, fill in zip(outlines.unpack(rows), np.rint(colour).astype(int).tolist()):
            draw_polygon(picture, polygon, (left, top), metres, fill, PAPER)
    entries = [(f"{high:g} m", fill) for high, fill in zip(_BREAKS_M, _RAMP)]
    key = [*entries, ("no height", UNKNOWN)]
    write_png(path, map_page(picture, title, "Height of buildings", key, metres, source))
