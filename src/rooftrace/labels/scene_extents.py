"""Extents of scenes on the ground: square blocks of ground, scenes that contain others, and gaps.

Lengths are measured on planes: scenes within some hundred kilometres of one another share an
azimuthal equidistant projection about their centre (J. P. Snyder, Map Projections: A Working
Manual, 1987, p. 191), whose lengths are accurate to a thousandth up to 500 km from it. Scenes of
different planes are too distant from one another to be neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.arrays import components
from rooftrace.core.types import BoolArray, Floats, GeoGrid, Polygons
from rooftrace.io.reproject import CRS84, transformer

Lonlat = NDArray[np.float64]

_EDGE_POINTS = 4
"""Number of points on each edge of an image, since reprojected edges are curved."""

_EARTH_M = 6_371_000.0
_PLANE_M = 200_000.0
"""Side in metres of cubes on the globe; scenes share a plane if their cubes touch."""

_MOST_SCENES = 8
"""Maximum number of scenes along the side of a block that is chosen automatically."""

_STRETCH = 1.001
"""Maximum error of lengths on a plane, as a factor."""

_INSIDE = 2.0
"""Minimum ratio of areas at which a scene is kept with a larger scene that has its centre."""


def outline_of(grid: GeoGrid) -> Lonlat | None:
    """Return (16, 2) longitudes and latitudes around an image; None without georeference."""
    if grid.crs is None:
        return None
    along = np.linspace(0, 1, _EDGE_POINTS, endpoint=False)
    cols = np.concatenate([along, np.ones(_EDGE_POINTS), 1 - along, np.zeros(_EDGE_POINTS)])
    rows = np.roll(cols, _EDGE_POINTS)
    xs, ys = grid.to_world(cols * grid.width, rows * grid.height)
    lonlat = np.stack(transformer(grid.crs, CRS84).transform(xs, ys), axis=1)
    return lonlat if np.isfinite(lonlat).all() else None


@dataclass(frozen=True)
class SceneExtents:
    """Extents of scenes on the ground.

    Args:
        plane: (n,) number of the plane on which each scene is measured.
        shapes: (n,) polygons in metres on their planes, x east and y north.
    """

    plane: NDArray[np.intp]
    shapes: Polygons

    @classmethod
    def of(cls, outlines: Sequence[Lonlat]) -> SceneExtents:
        """Compute extents from the outlines of all scenes, see `outline_of`."""
        rings = np.asarray(outlines, dtype=float)
        plane = _planes(_on_sphere(rings.mean(axis=1)))
        shapes = np.empty(len(rings), dtype=object)
        for number in range(int(plane.max()) + 1):
            here = plane == number
            shapes[here] = shapely.polygons(_flattened(rings[here]))
        return cls(plane, shapes)

    @cached_property
    def host(self) -> NDArray[np.intp]:
        """(n,) index of the scene with which each scene is kept together.

        It is the largest scene that contains the centre, if it is at least twice as large (the same
        ground at another zoom); otherwise the scene itself.
        """
        host = np.arange(len(self.shapes))
        area = shapely.area(self.shapes)
        middles = shapely.centroid(self.shapes)
        for number in np.unique(self.plane):
            here = np.flatnonzero(self.plane == number)
            i, j = here[shapely.STRtree(self.shapes[here]).query(middles[here], "within")]
            larger = area[j] >= _INSIDE * area[i]
            i, j = i[larger], j[larger]
            # The largest of several is written last; of equal ones, the first.
            order = np.lexsort((-j, area[j]))
            host[i[order]] = j[order]
        return host

    @property
    def side_m(self) -> Floats:
        """(n,) side in metres of a square with the area of each scene."""
        return np.sqrt(shapely.area(self.shapes))

    def suggest_block_m(self, least_blocks: float) -> float:
        """Return a side in metres such that the ground fills about `least_blocks` blocks or more.

        The side is a whole number of median scene sides. Large blocks lose less at their edges;
        beyond eight scenes, more and different blocks matter more.
        """
        hosts = np.unique(self.host)
        side = float(np.median(self.side_m[hosts]))
        covered = sum(
            shapely.union_all(self.shapes[hosts[self.plane[hosts] == number]]).area
            for number in np.unique(self.plane)
        )
        scenes = round(float(np.sqrt(covered / least_blocks)) / side)
        return side * min(max(1, scenes), _MOST_SCENES)

    def blocks(self, block_m: float) -> list[str]:
        """Return (n,) the block that contains the centre of each scene's host."""
        middle = shapely.get_coordinates(shapely.centroid(self.shapes))[self.host]
        for number in range(int(self.plane.max()) + 1):
            here = self.plane == number
            # Blocks start at the corner of all scenes, so that blocks of whole scenes cut none.
            middle[here] -= shapely.total_bounds(self.shapes[here])[:2]
        cells = np.floor(middle / block_m).astype(int)
        return [f"{p}:{row}:{col}" for p, (col, row) in zip(self.plane.tolist(), cells.tolist())]

    def near(self, some: BoolArray, others: BoolArray, gap_m: float) -> BoolArray:
        """Return (n,) which of `some` (n,) lie closer than `gap_m` to one of `others` (n,).

        With a gap of 0, these are scenes that share ground; a common edge does not count.
        """
        return np.asarray(self.nearest(some, others, gap_m) >= 0)

    def nearest(self, some: BoolArray, others: BoolArray, gap_m: float) -> NDArray[np.intp]:
        """Return (n,) the nearest of `others` for each of those that are `near`, else -1."""
        found = np.full(len(self.shapes), -1, np.intp)
        for number in np.unique(self.plane):
            mine, theirs = (np.flatnonzero(of & (self.plane == number)) for of in (some, others))
            if not len(mine) or not len(theirs):
                continue
            asked, beside = self.shapes[mine], self.shapes[theirs]
            if gap_m == 0:
                asked, beside = _shrunk(asked), _shrunk(beside)
            # The reach is above 0, since touching shapes have distance 0.
            reach = max(gap_m * _STRETCH, 1e-9)
            hit, of = shapely.STRtree(beside).query_nearest(
                asked, max_distance=reach, all_matches=False
            )
            found[mine[hit]] = theirs[of]
        return found


def _on_sphere(lonlat: Lonlat) -> Floats:
    """Convert (n, 2) degrees to (n, 3) metres from the centre of the Earth."""
    lon, lat = np.radians(lonlat).T
    flat = np.cos(lat)
    return _EARTH_M * np.stack([flat * np.cos(lon), flat * np.sin(lon), np.sin(lat)], axis=1)


def _planes(places: Floats) -> NDArray[np.intp]:
    """Return (n,) plane numbers from 0; scenes in cubes that touch share a plane."""
    cubes, member = np.unique(np.floor(places / _PLANE_M).astype(int), axis=0, return_inverse=True)
    index = {tuple(cube): number for number, cube in enumerate(cubes.tolist())}
    beside = [
        (number, index.get((x + i, y + j, z + k), number))
        for number, (x, y, z) in enumerate(cubes.tolist())
        for i, j, k in product((-1, 0, 1), repeat=3)
    ]
    _, plane = np.unique(components(len(cubes), *np.array(beside).T), return_inverse=True)
    return plane[member.reshape(-1)]


def _flattened(rings: Floats) -> Floats:
    """Project (n, 16, 2) longitudes and latitudes to metres on one plane."""
    x, y, z = _on_sphere(rings.reshape(-1, 2)).mean(axis=0)
    lon, lat = np.degrees([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))])
    plane = CRS.from_proj4(f"+proj=aeqd +lat_0={lat:.6f} +lon_0={lon:.6f} +datum=WGS84 +units=m")
    flat = np.stack(transformer(CRS84, plane).transform(*rings.reshape(-1, 2).T), axis=1)
    return flat.reshape(rings.shape)


def _shrunk(shapes: Polygons) -> Polygons:
    """Return scenes shrunk by a thousandth of their side at each edge."""
    small: Polygons = shapely.buffer(
        shapes, -np.sqrt(shapely.area(shapes)) / 1000, join_style="mitre"
    )
    return small
