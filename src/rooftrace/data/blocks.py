"""Ground cut into square blocks, so that a split is one by place.

Lengths are measured on planes: scenes that lie within some hundred kilometres of one another share
an azimuthal equidistant projection about their middle (J. P. Snyder, Map Projections: A Working
Manual, 1987, p. 191), whose lengths are right within a thousandth up to 500 km from it. Scenes of
different planes are too far apart to come near one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from rooftrace.core.types import GeoGrid

__all__ = ["Ground", "outline_of"]

Lonlat = NDArray[np.float64]

_EDGE_POINTS = 4
"""Of each edge of an image, since what is straight in one projection is bent in another."""

_EARTH_M = 6_371_000.0
_PLANE_M = 200_000.0
"""Scenes whose cubes of this side do not touch are on planes of their own."""

_MOST_SCENES = 8
"""Along the side of a block."""

_STRETCH = 1.001
"""What lengths on a plane may be wrong by."""

_INSIDE = 2.0
"""A scene whose middle lies in one so many times as large goes with it."""


def outline_of(grid: GeoGrid) -> Lonlat | None:
    """(16, 2) longitudes and latitudes around an image; None where it lies nowhere on Earth."""
    if grid.crs is None:
        return None
    along = np.linspace(0, 1, _EDGE_POINTS, endpoint=False)
    cols = np.concatenate([along, np.ones(_EDGE_POINTS), 1 - along, np.zeros(_EDGE_POINTS)])
    rows = np.roll(cols, _EDGE_POINTS)
    xs, ys = grid.to_world(cols * grid.width, rows * grid.height)
    lonlat = np.stack(_to_lonlat(grid.crs).transform(xs, ys), axis=1)
    return lonlat if np.isfinite(lonlat).all() else None


@dataclass(frozen=True)
class Ground:
    """Where scenes lie.

    Args:
        plane: (n,) number of the plane that each is measured on.
        shapes: (n,) polygons in metres on their planes, x east and y north.
    """

    plane: NDArray[np.intp]
    shapes: NDArray[np.object_]

    @classmethod
    def of(cls, outlines: Sequence[Lonlat]) -> Ground:
        """From the outlines of all scenes, see `outline_of`."""
        rings = np.asarray(outlines, dtype=float)
        plane = _planes(_on_sphere(rings.mean(axis=1)))
        shapes = np.empty(len(rings), dtype=object)
        for number in range(int(plane.max()) + 1):
            here = plane == number
            shapes[here] = shapely.polygons(_flattened(rings[here]))
        return cls(plane, shapes)

    @cached_property
    def seat(self) -> NDArray[np.intp]:
        """(n,) what scene each goes with: the largest in which its middle lies, if that is at
        least twice as large (the same ground at another zoom), or itself.
        """
        seat = np.arange(len(self.shapes))
        area = shapely.area(self.shapes)
        # By octaves of size, since of a thousand scenes of one place each lies in all others.
        octave = np.floor(np.log2(area / (0.99 * area.min()))).astype(int)
        for number, size in product(np.unique(self.plane), np.unique(octave)[:-1]):
            here = self.plane == number
            inner = np.flatnonzero(here & (octave == size))
            outer = np.flatnonzero(here & (octave > size))
            tree = shapely.STRtree(self.shapes[outer])
            middles = shapely.centroid(self.shapes[inner])
            i, j = tree.query(middles, predicate="within")
            i, j = inner[i], outer[j]
            larger = area[j] >= _INSIDE * area[i]
            i, j = i[larger], j[larger]
            # Of several, the largest is written last, and of equal ones the first.
            order = np.lexsort((-j, area[j]))
            seat[i[order]] = j[order]
        return seat

    @property
    def side_m(self) -> NDArray[np.float64]:
        """(n,) the side of a square as large as each scene."""
        return np.sqrt(shapely.area(self.shapes))

    def block_m(self, least_blocks: float) -> float:
        """A side of blocks of which the ground fills about `least_blocks`, or more.

        It is a whole number of scenes, as large as they mostly are: large blocks lose less at
        their edges, and beyond eight scenes many blocks, more unlike one another, matter more.
        """
        seats = np.unique(self.seat)
        side = float(np.median(self.side_m[seats]))
        covered = sum(
            shapely.union_all(self.shapes[seats[self.plane[seats] == number]]).area
            for number in np.unique(self.plane)
        )
        scenes = round(float(np.sqrt(covered / least_blocks)) / side)
        return side * min(max(1, scenes), _MOST_SCENES)

    def blocks(self, block_m: float) -> list[str]:
        """(n,) the block in which each scene's middle, or that of the scene it goes with, lies."""
        middle = shapely.get_coordinates(shapely.centroid(self.shapes))[self.seat]
        for number in range(int(self.plane.max()) + 1):
            here = self.plane == number
            # From the corner of all scenes, so that blocks of whole scenes cut none.
            middle[here] -= shapely.total_bounds(self.shapes[here])[:2]
        cells = np.floor(middle / block_m).astype(int)
        return [f"{p}:{row}:{col}" for p, (col, row) in zip(self.plane.tolist(), cells.tolist())]

    def near(
        self, some: NDArray[np.bool_], others: NDArray[np.bool_], gap_m: float
    ) -> NDArray[np.bool_]:
        """(n,) which of `some` (n,) lie nearer than `gap_m` to one of `others` (n,).

        With a gap of 0 those that share ground; an edge that two have in common is none.
        """
        found = np.zeros(len(self.shapes), dtype=bool)
        for number in np.unique(self.plane):
            mine = np.flatnonzero(some & (self.plane == number))
            theirs = self.shapes[others & (self.plane == number)]
            if not len(mine) or not len(theirs):
                continue
            asked = self.shapes[mine]
            if gap_m == 0:
                asked, theirs = _shrunk(asked), _shrunk(theirs)
            # The least above 0, since shapes that touch are at 0.
            reach = max(gap_m * _STRETCH, 1e-9)
            hit, _ = shapely.STRtree(theirs).query_nearest(
                asked, max_distance=reach, all_matches=False
            )
            found[mine[hit]] = True
        return found


@lru_cache(maxsize=64)
def _to_lonlat(crs: CRS) -> Transformer:
    return Transformer.from_crs(crs, 4326, always_xy=True)


def _on_sphere(lonlat: Lonlat) -> NDArray[np.float64]:
    """(n, 2) degrees to (n, 3) metres from the middle of the Earth."""
    lon, lat = np.radians(lonlat).T
    flat = np.cos(lat)
    return _EARTH_M * np.stack([flat * np.cos(lon), flat * np.sin(lon), np.sin(lat)], axis=1)


def _planes(places: NDArray[np.float64]) -> NDArray[np.intp]:
    """(n,) numbers of the planes, from 0: scenes in cubes that touch share one."""
    cubes, member = np.unique(np.floor(places / _PLANE_M).astype(int), axis=0, return_inverse=True)
    index = {tuple(cube): number for number, cube in enumerate(cubes.tolist())}
    plane = np.full(len(cubes), -1, dtype=np.intp)
    count = 0
    for start in range(len(cubes)):
        if plane[start] >= 0:
            continue
        waiting = [start]
        while waiting:
            number = waiting.pop()
            if plane[number] >= 0:
                continue
            plane[number] = count
            x, y, z = cubes[number].tolist()
            beside = (index.get((x + i, y + j, z + k)) for i, j, k in product((-1, 0, 1), repeat=3))
            waiting += [other for other in beside if other is not None]
        count += 1
    return plane[member.reshape(-1)]


def _flattened(rings: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 16, 2) longitudes and latitudes to metres on one plane."""
    x, y, z = _on_sphere(rings.reshape(-1, 2)).mean(axis=0)
    lon, lat = np.degrees([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))])
    plane = CRS.from_proj4(f"+proj=aeqd +lat_0={lat:.6f} +lon_0={lon:.6f} +datum=WGS84 +units=m")
    to_plane = Transformer.from_crs(4326, plane, always_xy=True)
    flat = np.stack(to_plane.transform(*rings.reshape(-1, 2).T), axis=1)
    return flat.reshape(rings.shape)


def _shrunk(shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    """What is left of scenes when a thousandth of their side is taken off."""
    small: NDArray[np.object_] = shapely.buffer(
        shapes, -np.sqrt(shapely.area(shapes)) / 1000, join_style="mitre"
    )
    return small
