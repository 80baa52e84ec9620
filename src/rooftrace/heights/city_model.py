"""CityJSON 2.0 of buildings as closed blocks (LoD1.2), written as they come.

The standard: https://www.cityjson.org/specs/2.0.1/
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, Self

import numpy as np
import shapely
from pyproj import CRS

from rooftrace.core.types import Floats, Polygons
from rooftrace.io.files import replacing

_SCALE = 0.001
"""Coordinates are whole numbers of millimetres."""

_KINDS = ("GroundSurface", "RoofSurface", "WallSurface")


class CityModelWriter:
    """Writes buildings as closed blocks from the ground to a flat top; use it in a `with` block.

    Objects and vertices go to files as they come, so memory holds none of them.

    Args:
        path: File to write, `.city.json`.
        crs: CRS of the outlines, in metres; its EPSG code is stated where it has one.
        origin: x, y and z in metres from which coordinates are counted.
        bounds: Least x, y and z, greatest x, y and z of all vertices.
    """

    def __init__(
        self, path: Path, crs: CRS, origin: tuple[float, float, float], bounds: Sequence[float]
    ) -> None:
        self._path, self._crs, self._origin, self._bounds = path, crs, origin, bounds
        self._count = 0

    def __enter__(self) -> Self:
        self._replacing = replacing(self._path)
        self._file = self._replacing.__enter__().open("w", encoding="utf-8")
        self._vertices = TemporaryFile("w+", encoding="utf-8")
        self._file.write(self._head())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._file.write('},\n"vertices":[')
            self._vertices.seek(0)
            while part := self._vertices.read(1 << 20):
                self._file.write(part)
            self._file.write("]}\n")
        self._file.close()
        self._vertices.close()
        self._replacing.__exit__(kind, error, trace)

    def _head(self) -> str:
        code = self._crs.to_epsg()
        metadata: dict[str, Any] = {"geographicalExtent": [round(v, 3) for v in self._bounds]}
        if code is not None:
            metadata["referenceSystem"] = f"https://www.opengis.net/def/crs/EPSG/0/{code}"
        head = {
            "type": "CityJSON",
            "version": "2.0",
            "transform": {"scale": [_SCALE] * 3, "translate": list(self._origin)},
            "metadata": metadata,
        }
        return json.dumps(head)[:-1] + ',\n"CityObjects":{'

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
        for name, outline, low, high, parts, values in zip(
            ids, outlines, bottom, top, levels, attributes
        ):
            geometry = [self._geometry("1.2", [(outline, high)], low)]
            if parts:
                geometry.append(self._geometry("1.3", parts, low))
            if geometry[0] is None:
                continue
            solids = [one for one in geometry if one is not None]
            thing = {"type": "Building", "attributes": values, "geometry": solids}
            self._file.write(f"{',' if self._written else ''}\n{json.dumps(name)}:")
            self._file.write(json.dumps(thing, allow_nan=False))
            self._written = True

    _written = False

    def _geometry(
        self, lod: str, parts: Sequence[tuple[shapely.Geometry, float]], low: float
    ) -> dict[str, Any] | None:
        """Return the solids of a building, or None if nothing is left of its outline."""
        blocks = [(one, high) for part, high in parts for one in shapely.get_parts(part).tolist()]
        solids = [solid for one, high in blocks if (solid := self._solid(one, low, high))]
        if not solids:
            return None
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

    def _solid(
        self, polygon: shapely.Polygon, low: float, high: float
    ) -> tuple[list[list[list[int]]], list[int]] | None:
        """Return the surfaces of a block, seen from outside anticlockwise, and their kinds.

        None for a polygon that has no area left in millimetres.
        """
        # Rings that touch after rounding to millimetres would not close.
        rounded = shapely.set_precision(
            shapely.transform(polygon, lambda xy: xy - np.asarray(self._origin[:2])), _SCALE
        )
        if rounded.is_empty or not isinstance(rounded, shapely.Polygon):
            return None
        rounded = shapely.orient_polygons(rounded)
        rings = [np.asarray(ring.coords)[:-1] for ring in (rounded.exterior, *rounded.interiors)]
        z = [round((value - self._origin[2]) / _SCALE) for value in (low, high)]
        floor, roof, walls = [], [], []
        for ring in rings:
            size, start = len(ring), self._count
            grid = np.rint(ring / _SCALE).astype(np.int64).tolist()
            points = [[x, y, level] for level in z for x, y in grid]
            text = json.dumps(points, separators=(",", ":"))[1:-1]
            self._vertices.write(f"{',' if start else ''}{text}")
            self._count += 2 * size
            lower = list(range(start, start + size))
            upper = list(range(start + size, start + 2 * size))
            floor.append(lower[::-1])
            roof.append(upper)
            for one in range(size):
                other = (one + 1) % size
                walls.append([[lower[one], lower[other], upper[other], upper[one]]])
        return [floor, roof, *walls], [0, 1, *[2] * len(walls)]
