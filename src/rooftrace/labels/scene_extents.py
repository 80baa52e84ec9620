"""Extents of scenes on the ground: square blocks of ground, scenes that contain others, and gaps.

Lengths are measured in the Mercator projection, which is conformal: around a scene they are those
on the ground times the scale factor of its latitude (J. P. Snyder, Map Projections: A Working
Manual, 1987, p. 45).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Geod

from rooftrace.core.types import BoolArray, Floats, GeoGrid, Polygons
from rooftrace.io.reproject import CRS84, transformer

Lonlat = NDArray[np.float64]

_EDGE_POINTS = 4
"""Number of points on each edge of an image, since reprojected edges are curved."""

_MERCATOR = CRS.from_epsg(3395)
_EARTH = Geod(ellps="WGS84")
_DEGREE_M = 111_000.0

_MOST_SCENES = 8
"""Maximum number of scenes along the side of a block that is chosen automatically."""

_STRETCH = 1.001
"""Maximum error of lengths, as a factor."""

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
        shapes: (n,) polygons in metres of the projection, x east and y north.
        centre: (n, 2) longitude and latitude in degrees; longitudes of neighbours differ little,
            also across longitude 180.
    """

    shapes: Polygons
    centre: Lonlat

    @classmethod
    def of(cls, outlines: Sequence[Lonlat]) -> SceneExtents:
        """Compute extents from the outlines of all scenes, see `outline_of`."""
        rings = np.array(outlines, dtype=float)
        lon, lat = rings[..., 0], rings[..., 1]
        lon -= 360 * np.round((lon - lon[:1, :1]) / 360)
        lon -= 360 * np.round((lon - lon[:, :1]) / 360)
        _, y = transformer(CRS84, _MERCATOR).transform(np.zeros_like(lat), lat)
        x = np.radians(lon) * _EARTH.a
        return cls(np.asarray(shapely.polygons(np.stack([x, y], -1))), rings.mean(axis=1))

    @cached_property
    def factor(self) -> Floats:
        """(n,) length in the projection of a metre in each scene."""
        return _scale_factor(self.centre[:, 1])

    @cached_property
    def host(self) -> NDArray[np.intp]:
        """(n,) index of the scene with which each scene is kept together.

        It is the largest scene that contains the centre, if it is at least twice as large (the same
        ground at another zoom); otherwise the scene itself.
        """
        host = np.arange(len(self.shapes))
        area = shapely.area(self.shapes)
        i, j = shapely.STRtree(self.shapes).query(shapely.centroid(self.shapes), "within")
        larger = area[j] >= _INSIDE * area[i]
        i, j = i[larger], j[larger]
        # The largest of several is written last; of equal ones, the first.
        order = np.lexsort((-j, area[j]))
        host[i[order]] = j[order]
        return host

    @property
    def side_m(self) -> Floats:
        """(n,) side in metres of a square with the area of each scene."""
        return np.sqrt(shapely.area(self.shapes)) / self.factor

    def suggest_block_m(self, least_blocks: float) -> float:
        """Return a side in metres such that the ground fills about `least_blocks` blocks or more.

        The side is a whole number of median scene sides. Large blocks lose less at their edges;
        beyond eight scenes, more and different blocks matter more.
        """
        hosts = np.unique(self.host)
        side = float(np.median(self.side_m[hosts]))
        covered = sum(
            shapely.union_all(self.shapes[some]).area / float(np.median(self.factor[some])) ** 2
            for some in (hosts[here[hosts]] for here in self._places)
            if len(some)
        )
        scenes = round(float(np.sqrt(covered / least_blocks)) / side)
        return side * min(max(1, scenes), _MOST_SCENES)

    @cached_property
    def _places(self) -> list[BoolArray]:
        """(n,) scenes of each square degree, in which lengths have one factor."""
        cells, member = np.unique(np.floor(self.centre), axis=0, return_inverse=True)
        return [member.reshape(-1) == number for number in range(len(cells))]

    def blocks(self, block_m: float) -> list[str]:
        """Return (n,) the block that contains the centre of each scene's host."""
        middle = shapely.get_coordinates(shapely.centroid(self.shapes))
        names = np.empty(len(middle), np.object_)
        for number, here in enumerate(self._places):
            # Blocks start at the corner of all scenes, so that blocks of whole scenes cut none.
            away = middle[here] - shapely.total_bounds(self.shapes[here])[:2]
            cells = np.floor(away / (block_m * np.median(self.factor[here]))).astype(int)
            names[here] = [f"{number}:{row}:{col}" for col, row in cells.tolist()]
        return list(names[self.host])

    def near(self, some: BoolArray, others: BoolArray, gap_m: float) -> BoolArray:
        """Return (n,) which of `some` (n,) lie closer than `gap_m` to one of `others` (n,).

        With a gap of 0, these are scenes that share ground; a common edge does not count.
        """
        return np.asarray(self.nearest(some, others, gap_m) >= 0)

    def nearest(self, some: BoolArray, others: BoolArray, gap_m: float) -> NDArray[np.intp]:
        """Return (n,) one of `others` for each of those that are `near`, else -1."""
        found = np.full(len(self.shapes), -1, np.intp)
        mine, theirs = np.flatnonzero(some), np.flatnonzero(others)
        asked, beside = self.shapes[mine], self.shapes[theirs]
        if gap_m == 0:
            asked, beside = _shrunk(asked), _shrunk(beside)
        # The factor grows towards the poles. The reach is above 0, as touching shapes are at 0.
        far = _scale_factor(np.abs(self.centre[mine, 1]) + gap_m / _DEGREE_M)
        reach = np.maximum(gap_m * _STRETCH * far, 1e-9)
        hit, of = shapely.STRtree(beside).query(asked, "dwithin", distance=reach)
        found[mine[hit]] = theirs[of]
        return found


def _scale_factor(latitude: Floats) -> Floats:
    """Return lengths of the projection divided by those on the ground, by latitudes in degrees."""
    angle = np.radians(latitude)
    return np.asarray(np.sqrt(1 - _EARTH.es * np.sin(angle) ** 2) / np.cos(angle))


def _shrunk(shapes: Polygons) -> Polygons:
    """Return scenes shrunk by a thousandth of their side at each edge."""
    small: Polygons = shapely.buffer(
        shapes, -np.sqrt(shapely.area(shapes)) / 1000, join_style="mitre"
    )
    return small
