"""Heights of a whole layer: its buildings by groups, each with what the sources show of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS

from rooftrace.core.parallel import in_order
from rooftrace.core.types import BoolArray, Floats, GeoGrid, Ints, Polygons, Progress
from rooftrace.heights.estimate import RING_M, Heights, estimate_heights
from rooftrace.heights.surface import RoofOffset, Samples, Surface
from rooftrace.io.elevation import PointFile, Points
from rooftrace.io.georeferenced import ArraySource
from rooftrace.io.reproject import transform_points
from rooftrace.io.spill_file import SpillFile
from rooftrace.vector.footprints import metres_per_px
from rooftrace.vector.match import PackedPolygons, shifted

_GROUP_PX, _GROUP_M = 512, 250.0
"""Sides of the squares whose buildings are measured together: in pixels, so that their samples fit
the cache of a processor core, and in metres for points."""

_MOST_TOGETHER = 2000
"""Maximum number of buildings in a group."""

_SOME_GROUPS = 24
"""Maximum number of groups by which offsets of outlines and of the ground are estimated."""

_CELL_M = 1.0
"""Side in metres of the cells in which points show the offset of outlines."""

_VEGETATION = (3, 4, 5)
_GROUND, _BUILDING = 2, 6

_LEAST_CLASSIFIED = 0.3
"""Share of the points inside an outline that are classified as building from which only they
count."""

_ROW = np.dtype([("owner", "i8"), ("xyz", "f8", 3), ("apart", "f4"), ("kind", "u1")])


@dataclass(frozen=True)
class Places:
    """Buildings on a plane.

    Args:
        packed: The n outlines.
        crs: Projected CRS of the plane, in any unit of length.
    """

    packed: PackedPolygons
    crs: CRS

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def metre(self) -> float:
        """Units of the plane for one metre."""
        return 1 / float(self.crs.axis_info[0].unit_conversion_factor)

    def groups(self, side_m: float) -> list[Ints]:
        """Return the buildings of each square of a side, by their centres, those with any.

        A square with more than `_MOST_TOGETHER` has several groups.
        """
        square = np.floor(self.packed.centre / (side_m * self.metre)).astype(np.int64)
        order = np.lexsort(square.T)
        is_first = np.diff(square[order], axis=0).any(axis=1)
        squares = np.split(order, np.flatnonzero(is_first) + 1)
        return [
            some
            for square in squares
            for some in np.array_split(square, ceil(len(square) / _MOST_TOGETHER))
        ]

    @cached_property
    def _by_bottom(self) -> tuple[Ints, Floats, Floats]:
        """Buildings by the bottoms of their bounds, these, and the highest top up to each."""
        order = np.argsort(self.packed.bounds[:, 1], kind="stable")
        _, bottom, _, top = self.packed.bounds[order].T
        return order, bottom.copy(), np.maximum.accumulate(top)

    def near(self, bounds: Floats, margin_m: float) -> Ints:
        """Return the buildings whose bounds lie within a distance of a rectangle."""
        margin = margin_m * self.metre
        order, bottoms, tops = self._by_bottom
        first = np.searchsorted(tops, bounds[1] - margin, side="right")
        some = np.sort(order[first : np.searchsorted(bottoms, bounds[3] + margin)])
        left, _, right, top = self.packed.bounds[some].T
        meets = (left < bounds[2] + margin) & (right > bounds[0] - margin)
        return np.asarray(some[meets & (top > bounds[1] - margin)])

    def local(self, outlines: Polygons, centre: Floats) -> Polygons:
        """Return outlines in metres to the east and north of their centres."""
        xy, owner = shapely.get_coordinates(outlines, return_index=True)
        metres = np.einsum("nij,nj->ni", metres_of(self.crs, centre)[owner], xy - centre[owner])
        return np.asarray(shapely.set_coordinates(outlines.copy(), metres), np.object_)

    def placed(self, local: Polygons, centre: Floats) -> Polygons:
        """Return polygons in metres from places (n, 2) as polygons of the plane, see `local`."""
        metres, owner = shapely.get_coordinates(local, return_index=True)
        steps = np.linalg.solve(metres_of(self.crs, centre)[owner], metres[:, :, None])[:, :, 0]
        xy = centre[owner] + steps
        return np.asarray(shapely.set_coordinates(local.copy(), xy), np.object_)


class Survey(ABC):
    """Buildings that are measured by groups.

    Args:
        places: The buildings.
        side_m: Side of the groups in metres.
        progress: See `Progress`; groups are counted.
    """

    def __init__(self, places: Places, side_m: float, progress: Progress | None = None) -> None:
        self.places, self.groups = places, places.groups(side_m)
        self._progress = progress
        # Up to `_SOME_GROUPS` groups, evenly over the layer, show what holds for all.
        self.some = range(0, len(self.groups), ceil(len(self.groups) / _SOME_GROUPS))

    @abstractmethod
    def surface(self, number: int) -> Surface | None:
        """Return the surface at the buildings of a group; None where there is none."""

    @abstractmethod
    def measured(self, number: int, with_planes: bool = False) -> Heights:
        """Return the heights of the buildings of a group, and their roof planes if wanted."""

    def offset(self) -> RoofOffset | None:
        """Return how outlines must be moved onto the roofs; None where the surface shows none."""
        offsets = []
        for number in self.some:
            surface = self.surface(number)
            if surface is None:
                continue
            outlines = self.places.packed.unpack(self.groups[number])
            offset = surface.offset_m(surface.place(outlines, self.places.crs))
            if offset is not None:
                offsets.append(offset)
        return RoofOffset.of(offsets)

    def heights(self, on_planes: Callable[[Ints, Heights], None] | None = None) -> Heights:
        """Return the heights of all buildings, in their order.

        `on_planes` takes the rows of a group and its heights with their roof planes, which the
        result does not have: the polygons of a country would fill the memory.
        """
        columns: dict[str, np.ndarray] = {}
        calls = ((number, on_planes is not None) for number in range(len(self.groups)))
        found = in_order(self.measured, calls)
        for done, (rows, some) in enumerate(zip(self.groups, found), 1):
            if on_planes is not None:
                on_planes(rows, some)
                some = replace(some, planes=some.planes[:, :0], faces=some.faces[:, :0])
            for name, values in vars(some).items():
                if name not in columns:
                    columns[name] = np.zeros((len(self.places), *values.shape[1:]), values.dtype)
                columns[name][rows] = values
            if self._progress is not None:
                self._progress(done, len(self.groups))
        return Heights(**columns)


class RasterSurvey(Survey):
    """Buildings on a surface model; memory holds the pixels of a few groups.

    Args:
        places: The buildings.
        surface: Surface model.
        terrain: Terrain model; without, the ground is looked for around each building.
        progress: See `Survey`.
    """

    def __init__(
        self,
        places: Places,
        surface: Surface,
        terrain: Surface | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._surface, self._terrain = surface, terrain
        super().__init__(places, _GROUP_PX * surface.resolution_m, progress)

    def surface(self, number: int) -> Surface:
        return self._surface

    def above_terrain_m(self, heights: Heights) -> float:
        """Return the median metres from the terrain model up to the ground that the surface shows.

        It is about 0 for two models of the same ground, and where no ground is seen.

        Args:
            heights: Result of `heights`, whose ground is that of the terrain model.
        """
        alone = RasterSurvey(self.places, self._surface)
        above = [alone.measured(n).ground - heights.ground[self.groups[n]] for n in self.some]
        known = np.concatenate(above)
        known = known[np.isfinite(known)]
        return float(np.median(known)) if len(known) else 0.0

    def measured(self, number: int, with_planes: bool = False) -> Heights:
        rows, packed = self.groups[number], self.places.packed
        bounds = packed.bounds[rows]
        around = np.concatenate([bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)])
        others = np.setdiff1d(self.places.near(around, RING_M), rows)
        outlines, centre = packed.unpack(np.concatenate([rows, others])), packed.centre[rows]

        def samples(
            model: Surface, some: Ints, ring_m: float, *, is_terrain: bool = False
        ) -> tuple[Samples, Floats, BoolArray]:
            first = np.append(some, np.delete(np.arange(len(outlines)), some))
            placed = model.place(outlines[first], self.places.crs)
            there = transform_points(centre[some], self.places.crs, model.crs)
            pixels = model.source.grid.to_pixels(there)
            return model.samples(placed, len(some), pixels, ring_m, is_terrain=is_terrain)

        each = np.arange(len(rows))
        surface, covered, hidden = samples(self._surface, each, 0.0 if self._terrain else RING_M)
        terrain = None
        if self._terrain is not None:
            terrain = samples(self._terrain, each, 0.0, is_terrain=True)[0]
            bare = np.setdiff1d(each, terrain.owner)
            # Terrain models such as AHN have holes below buildings.
            if len(bare):
                ring = samples(self._terrain, bare, RING_M, is_terrain=True)[0]
                terrain = Samples.joined([terrain, replace(ring, owner=bare[ring.owner])])
        return estimate_heights(
            surface, self.places.local(outlines[: len(rows)], centre), self._surface.resolution_m,
            covered, terrain=terrain, hidden=hidden, with_planes=with_planes,
        )  # fmt: skip


class PointSurvey(Survey):
    """Buildings in laser scans, which are measured without a grid.

    Each file is read once, a million points at a time; those near a building go to a temporary
    file by group. Vegetation is left out. Where points inside an outline are classified as
    building, only they count, else the last returns.

    Args:
        places: The buildings, in the plane of the points' CRS.
        files: Laser scans of one CRS.
        unit_m: Metres per unit of their heights.
        folder: Folder of the temporary files.
        progress: See `Progress`; points are counted.
    """

    def __init__(
        self,
        places: Places,
        files: Sequence[PointFile],
        unit_m: float,
        folder: Path,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(places, _GROUP_M)
        self._spill = SpillFile(folder)
        self._pieces: list[list[tuple[int, int]]] = [[] for _ in self.groups]
        group_of = np.zeros(len(places), np.int64)
        for number, rows in enumerate(self.groups):
            group_of[rows] = number
        total, done = sum(file.count for file in files), 0
        for file in files:
            rows = places.near(np.array(file.bounds_xy), RING_M)
            tree = shapely.STRtree(places.packed.unpack(rows)) if len(rows) else None
            for points in file.chunks():
                done += len(points.xyz)
                if progress is not None:
                    progress(min(done, total), total)
                if tree is not None:
                    near = _near_points(points, tree, rows, RING_M * places.metre)
                    near["xyz"][:, 2] *= unit_m
                    self._keep(near, group_of[near["owner"]])

    def _keep(self, near: np.ndarray, group: Ints) -> None:
        order = np.argsort(group, kind="stable")
        numbers, start = np.unique(group[order], return_index=True)
        parts = np.split(near[order], start[1:]) if len(start) else []
        offsets = self._spill.append_bytes([part.tobytes() for part in parts]).tolist()
        for number, first, last in zip(numbers.tolist(), offsets[:-1], offsets[1:]):
            self._pieces[number].append((first, last))

    def _points(self, number: int) -> np.ndarray:
        if not self._pieces[number]:
            return np.zeros(0, _ROW)
        start, stop = np.array(self._pieces[number], np.int64).T
        pieces = self._spill.read_bytes(start, stop).tolist()
        return np.concatenate([np.frombuffer(piece, _ROW) for piece in pieces])

    def surface(self, number: int) -> Surface | None:
        xyz = self._points(number)["xyz"]
        if not len(xyz):
            return None
        side = _CELL_M * self.places.metre
        col, row = np.floor(xyz[:, :2] / side * (1, -1)).astype(np.int64).T
        left, top = col.min() * side, -row.min() * side
        col, row = col - col.min(), row - row.min()
        height = np.full((row.max() + 1, col.max() + 1), -np.inf)
        np.maximum.at(height, (row, col), xyz[:, 2])
        grid = GeoGrid(height.shape, Affine(side, 0, left, 0, -side, top), self.places.crs)
        return Surface(ArraySource(height[None], grid, np.isfinite(height)))

    def measured(self, number: int, with_planes: bool = False) -> Heights:
        rows, near = self.groups[number], self._points(number)
        outlines, centre = self.places.packed.unpack(rows), self.places.packed.centre[rows]
        # The buildings of a group ascend.
        owner = np.searchsorted(rows, near["owner"])
        xyz = near["xyz"].copy()
        jacobian = metres_of(self.places.crs, centre)[owner]
        xyz[:, :2] = np.einsum("nij,nj->ni", jacobian, xyz[:, :2] - centre[owner])
        apart = near["apart"].astype(np.float64) / self.places.metre
        inside, is_building = apart == 0, near["kind"] == _BUILDING
        local = self.places.local(outlines, centre)
        step_m = min(float(np.sqrt(shapely.area(local).sum() / max(inside.sum(), 1))), 2.0)
        covered = _covered(local, owner[inside], xyz[inside, :2], step_m)
        classified = np.bincount(owner[inside & is_building], minlength=len(rows))
        enough = classified >= _LEAST_CLASSIFIED * np.bincount(owner[inside], minlength=len(rows))
        enough &= classified > 0
        keep: BoolArray = np.where(
            inside,
            is_building | ~enough[owner],
            ~is_building & (apart > 1.0),
        )
        samples = Samples.grouped(
            owner[keep], xyz[keep], apart[keep], near["kind"][keep] == _GROUND
        )
        return estimate_heights(
            samples, local, step_m, covered, gridded=False, is_roof=enough,
            with_planes=with_planes,
        )  # fmt: skip


def _covered(outlines_m: Polygons, owner: Ints, xy: Floats, step_m: float) -> Floats:
    """Return (n,) the share of each outline in the convex hull of its points.

    A scan that ends within an outline shows so; gaps, as below trees and on wet roofs, do not.

    Args:
        outlines_m: (n,) outlines in metres from their centres.
        owner: (m,) outline of each point inside.
        xy: (m, 2) metres of these from its centre.
        step_m: Distance in metres between points.
    """
    order = np.argsort(owner, kind="stable")
    hulls = np.full(len(outlines_m), shapely.Polygon(), np.object_)
    shapely.multipoints(xy[order], indices=owner[order], out=hulls)
    hulls = shapely.buffer(shapely.convex_hull(hulls), 1.5 * step_m)
    return shapely.area(shapely.intersection(hulls, outlines_m)) / shapely.area(outlines_m)


def _near_points(points: Points, tree: shapely.STRtree, rows: Ints, most: float) -> np.ndarray:
    """Return the points in or near an outline, each with the nearest one, as rows of `_ROW`."""
    use = ~np.isin(points.kind, _VEGETATION) & (points.last | (points.kind == _BUILDING))
    xyz, kind = points.xyz[use], points.kind[use]
    (point, outline), apart = tree.query_nearest(
        shapely.points(xyz[:, 0], xyz[:, 1]),
        max_distance=most,
        return_distance=True,
        all_matches=False,
    )
    near = np.zeros(len(point), _ROW)
    near["owner"], near["xyz"] = rows[outline], xyz[point]
    near["apart"], near["kind"] = apart, kind[point]
    return near


def metres_of(crs: CRS, places: Floats) -> Floats:
    """Return (n, 2, 2) metres to the east and north for a step of one unit of a CRS."""
    return metres_per_px(GeoGrid((1, 1), crs=crs), places)


def moved(outlines: Polygons, crs: CRS, offset: RoofOffset) -> Polygons:
    """Return outlines of a CRS moved by an offset in metres."""
    centre = shapely.get_coordinates(shapely.centroid(outlines))
    steps = np.linalg.solve(metres_of(crs, centre), np.array([offset.east_m, offset.north_m]))
    return shifted(outlines, steps)
