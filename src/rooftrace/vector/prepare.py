"""Complete regions to polygons and the few numbers of each that stay in memory."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.errors import PredictError
from rooftrace.core.types import GeoGrid
from rooftrace.vector.corners import Ints
from rooftrace.vector.footprints import square_metres_per_px
from rooftrace.vector.necks import separate_at_necks
from rooftrace.vector.options import VectorOptions
from rooftrace.vector.polygonize import TracedPolygons
from rooftrace.vector.regularize import regularize
from rooftrace.vector.separate import separate_by_owner
from rooftrace.vector.simplify import simplify_staircase
from rooftrace.vector.spool import Spool

__all__ = ["Candidates", "GrowingRecords", "Maker", "Records", "Task", "check_area"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Polygons = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Task:
    """Complete regions of one class.

    Args:
        regions: as they were traced.
        is_building: whether they are of the building class.
        class_id: of all of them.
        cores: that lie in them; None where the model does not tell buildings apart.
        owner: (cores,) the region that each lies in.
    """

    regions: TracedPolygons
    is_building: bool
    class_id: int
    cores: TracedPolygons | None = None
    owner: Ints | None = None

    def parts(self, size: int) -> list[Task]:
        """The same in tasks of so many regions."""
        tasks = []
        for first in range(0, len(self.regions), size):
            stop = min(first + size, len(self.regions))
            part = replace(self, regions=self.regions.of(np.arange(first, stop)))
            if self.cores is not None and self.owner is not None:
                own = (self.owner >= first) & (self.owner < stop)
                part = replace(part, cores=self.cores.of(own), owner=self.owner[own] - first)
            tasks.append(part)
        return tasks


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a task became, before neighbours were looked at.

    Args:
        raw: (n,) polygons along pixel edges.
        proposed: (n,) what they are to become.
        accepted: (n,) True where that is a regular outline.
        score: (n,) float32.
        first: (n,) row times the scene's width plus column of each one's first pixel.
        class_id: of all of them.
        area_px: of all regions, those that were too small included.
        area_m2: (n,) of the proposed polygons; NaN where no smallest area was asked for.
    """

    raw: Polygons
    proposed: Polygons
    accepted: Bools
    score: NDArray[np.float32]
    first: Ints
    class_id: int
    area_px: int
    area_m2: Floats


@dataclass(frozen=True, slots=True)
class Records:
    """Numbers of polygons that lie in a spool, 62 bytes for each.

    Args:
        first: (n,) int64 as in `Candidates`.
        class_id: (n,) uint8.
        score: (n,) float32.
        accepted: (n,) bool.
        area_m2: (n,) of the proposed polygon; NaN where no smallest area was asked for.
        bounds: (n, 4) float32: left, top, right, bottom of raw and proposed polygon, or a little
            more.
        raw, proposed, stop: (n,) int64, where the two polygons begin, and where the second ends.
    """

    first: Ints
    class_id: NDArray[np.uint8]
    score: NDArray[np.float32]
    accepted: Bools
    area_m2: Floats
    bounds: NDArray[np.float32]
    raw: Ints
    proposed: Ints
    stop: Ints

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of(cls, made: Candidates, spool: Spool) -> Records:
        """Of polygons that are laid in a spool."""
        both = np.stack([made.raw, made.proposed], axis=1).ravel()
        offsets = spool.append(both)
        bounds = shapely.bounds(both).reshape(-1, 2, 4)
        low, high = bounds[:, :, :2].min(axis=1), bounds[:, :, 2:].max(axis=1)
        return cls(
            made.first,
            np.full(len(made.first), made.class_id, np.uint8),
            made.score,
            made.accepted,
            made.area_m2,
            np.concatenate([_rounded(low, -np.inf), _rounded(high, np.inf)], axis=1),
            offsets[:-1:2],
            offsets[1::2],
            offsets[2::2],
        )

    @classmethod
    def none(cls) -> Records:
        none, numbers = np.zeros(0, np.int64), np.zeros(0)
        return cls(
            none, none.astype(np.uint8), numbers.astype(np.float32), none.astype(np.bool_),
            numbers, np.zeros((0, 4), np.float32), none, none, none,
        )  # fmt: skip

    def of_slice(self, chosen: slice) -> Records:
        """Some of them, which share the memory."""
        return Records(*(getattr(self, one.name)[chosen] for one in fields(self)))

    def of_numbers(self, chosen: Ints | Bools) -> Records:
        """Some of them."""
        return Records(*(getattr(self, one.name)[chosen] for one in fields(self)))


_FEWEST = 4096
"""Records that there is room for from the beginning on."""


class GrowingRecords:
    """Records that are added to, a few at a time, over hours.

    They are copied into arrays that double as they fill. Kept as they come, thousands of small
    arrays would lie between what is given back meanwhile, and hold whole pages of it.
    """

    def __init__(self) -> None:
        self._kept = Records.none()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, part: Records) -> None:
        """Copy some to the end."""
        size = self._size + len(part)
        if size > len(self._kept):
            self._kept = self._grown(max(size, 2 * len(self._kept), _FEWEST))
        for one in fields(Records):
            getattr(self._kept, one.name)[self._size : size] = getattr(part, one.name)
        self._size = size

    def whole(self) -> Records:
        """All, in the order they came; shares their memory."""
        return self._kept.of_slice(slice(self._size))

    def _grown(self, capacity: int) -> Records:
        arrays = []
        for one in fields(Records):
            held = getattr(self._kept, one.name)
            larger = np.empty((capacity, *held.shape[1:]), held.dtype)
            larger[: self._size] = held[: self._size]
            arrays.append(larger)
        return Records(*arrays)


def _rounded(values: Floats, towards: float) -> NDArray[np.float32]:
    near = values.astype(np.float32)
    return np.nextafter(near, np.float32(towards))


@dataclass(frozen=True)
class Maker:
    """Makes candidates of regions; from several threads at once.

    Args:
        grid: where pixels lie.
        options: what is made.
        gsd_m: metres per pixel, in place of what the grid says.
    """

    grid: GeoGrid
    options: VectorOptions
    gsd_m: float | None = None

    def make(self, task: Task) -> Candidates:
        """The polygons of a task.

        Raises:
            PredictError: pixels were lost when buildings were cut apart.
        """
        regions = self._cut_apart(task)
        area_px = int(task.regions.area_px.sum())
        made_px = int(np.rint(shapely.area(regions.polygons)).sum())
        check_area(task.class_id, area_px, made_px)
        large = regions.of(regions.area_px >= self.options.min_area_px)
        accepted = np.zeros(len(large), np.bool_)
        tolerance = self.options.simplify_px
        if task.is_building:
            whole = self._filled(large.polygons)
            if self.options.regularize:
                regular = regularize(whole, tolerance)
                proposed, accepted = regular.polygons, regular.accepted
            else:
                proposed = simplify_staircase(whole, tolerance)
        else:
            proposed = simplify_staircase(large.polygons, tolerance)
        row, col = large.first_pixel_yx.T
        area_m2 = self.area_m2(proposed)
        # Nobody is kept from being filled by what is left out itself.
        kept = ~(area_m2 < (self.options.min_area_m2 or 0))
        return Candidates(
            large.polygons[kept],
            proposed[kept],
            accepted[kept],
            large.score[kept],
            (row * self.grid.width + col)[kept],
            task.class_id,
            area_px,
            area_m2[kept],
        )

    def area_m2(self, polygons: Polygons) -> Floats:
        """(n,) of polygons in pixels; NaN where no smallest area was asked for."""
        if not self.options.min_area_m2:
            return np.full(len(polygons), np.nan)
        return np.asarray(shapely.area(polygons) * self._m2_per_px(polygons), np.float64)

    def _cut_apart(self, task: Task) -> TracedPolygons:
        if not (task.is_building and self.options.separate):
            return task.regions
        if task.cores is not None and task.owner is not None:
            return separate_by_owner(task.regions, task.cores, task.owner)
        if self.options.necks is not None:
            return separate_at_necks(task.regions, self.options.necks)
        return task.regions

    def _m2_per_px(self, polygons: Polygons) -> Floats:
        """(n,) the area of a pixel at each polygon; NaN where metres are not known."""
        if self.gsd_m is not None:
            return np.full(len(polygons), self.gsd_m**2)
        return square_metres_per_px(self.grid, shapely.get_coordinates(shapely.centroid(polygons)))

    def _filled(self, polygons: Polygons) -> Polygons:
        """Without the holes that are too small."""
        holed = np.flatnonzero(shapely.get_num_interior_rings(polygons) > 0)
        if not self.options.min_hole_m2 or not len(holed):
            return polygons
        filled = polygons.copy()
        smallest = self.options.min_hole_m2 / self._m2_per_px(polygons[holed])
        for index, limit in zip(holed.tolist(), smallest.tolist()):
            polygon = polygons[index]
            kept = [ring for ring in polygon.interiors if shapely.Polygon(ring).area >= limit]
            filled[index] = shapely.Polygon(polygon.exterior, kept)
        return filled


def check_area(class_id: int, fed_px: int, made_px: int) -> None:
    """Raises PredictError where polygons do not have the area of the pixels they stand for."""
    if fed_px != made_px:
        raise PredictError(
            f"The polygons of class {class_id} cover {made_px} pixels, the mask {fed_px}: a fault "
            "of rooftrace.",
            remedy="Please report it, with the mask.",
        )
