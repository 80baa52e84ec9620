"""Heights of a whole layer: its buildings by groups, each with what the sources show of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Protocol

import numpy as np
import shapely
from pyproj import CRS

from rooftrace.core.parallel import in_order
from rooftrace.core.types import BoolArray, Floats, GeoGrid, Ints, Polygons, Progress
from rooftrace.heights.estimate import Heights, estimate_heights
from rooftrace.heights.ground import RING_M
from rooftrace.heights.samples import Samples
from rooftrace.heights.shift import RoofOffset
from rooftrace.heights.surface import Surface
from rooftrace.io.elevation import PointFile, Points
from rooftrace.io.reproject import reprojected, transform_points
from rooftrace.io.spill_file import SpillFile
from rooftrace.vector.footprints import metres_per_px

_GROUP_PX = 1024
"""Side in pixels of the squares whose buildings are measured together."""

_OFFSET_GROUPS = 24
"""Maximum number of groups by which the offset of outlines is estimated."""

_GROUP_M = 250.0
"""The same in metres, for points."""

_VEGETATION = (3, 4, 5)
_GROUND, _BUILDING = 2, 6

_LEAST_CLASSIFIED = 0.3
"""Share of the points inside an outline that are classified as building from which only they
count."""

_ROW = np.dtype([("owner", "i8"), ("xyz", "f8", 3), ("apart", "f4"), ("kind", "u1")])


class Outlines(Protocol):
    """Outlines of which some are read at a time; `SpilledPolygons` is one."""

    def __len__(self) -> int: ...
    def unpack(self, index: Ints) -> Polygons: ...


@dataclass(frozen=True)
class Places:
    """Outlines of a layer and where they lie.

    Args:
        outlines: The n outlines.
        crs: Their CRS.
        bounds: (n, 4) left, bottom, right and top in a plane.
        metre: Units of the plane for one metre.
    """

    outlines: Outlines
    crs: CRS
    bounds: Floats
    metre: float

    def groups(self, side_m: float) -> Iterator[Ints]:
        """Yield the buildings of each square of a side, by their centres, those with any."""
        centre = (self.bounds[:, :2] + self.bounds[:, 2:]) / 2
        col, row = np.floor(centre / (side_m * self.metre)).astype(np.int64).T
        order = np.lexsort((col, row))
        new = np.flatnonzero((np.diff(row[order]) != 0) | (np.diff(col[order]) != 0)) + 1
        yield from np.split(order, new) if len(order) else ()

    def near(self, rows: Ints, tree: shapely.STRtree, margin_m: float) -> Ints:
        """Return the other buildings whose bounds lie within a distance of some of them."""
        left, bottom = self.bounds[rows, :2].min(axis=0) - margin_m * self.metre
        right, top = self.bounds[rows, 2:].max(axis=0) + margin_m * self.metre
        return np.setdiff1d(tree.query(shapely.box(left, bottom, right, top)), rows)


def survey_rasters(
    places: Places,
    surfaces: Sequence[Surface],
    terrains: Sequence[Surface],
    progress: Progress | None = None,
) -> Heights:
    """Return the heights of all buildings from surface models.

    Memory holds the outlines and the pixels of a few groups, and a few numbers of each building.

    Args:
        places: The buildings.
        surfaces: Surface models; several are tiles of one.
        terrains: Terrain models; without, the ground is looked for around each building.
        progress: See `Progress`.
    """
    step_m = max(surface.resolution_m for surface in surfaces)
    boxes = np.asarray(shapely.box(*places.bounds.T), np.object_)
    tree = shapely.STRtree(boxes)
    groups = list(places.groups(_GROUP_PX * step_m))
    ring_m = 0.0 if terrains else RING_M

    def measure(rows: Ints) -> Heights:
        others = places.near(rows, tree, RING_M)
        outlines = places.outlines.unpack(np.concatenate([rows, others]))
        centre = _centre(outlines[: len(rows)])

        def samples(models: Sequence[Surface], ring: float) -> Samples:
            parts = []
            for model in models:
                crs = model.source.grid.crs
                assert crs is not None
                there = model.source.grid.to_pixels(transform_points(centre, places.crs, crs))
                parts.append(
                    model.samples(model.place(outlines, places.crs), len(rows), there, ring)
                )
            return parts[0] if len(parts) == 1 else Samples.joined(parts).regrouped()

        return estimate_heights(
            samples(surfaces, ring_m),
            _local(outlines[: len(rows)], centre, places.crs),
            step_m,
            terrain=samples(terrains, 0.0) if terrains else None,
        )

    found = []
    for number, heights in enumerate(in_order(measure, ((rows,) for rows in groups))):
        found.append(heights)
        if progress is not None:
            progress(number + 1, len(groups))
    return _ordered(found, groups, len(places.outlines))


def roof_offset(places: Places, surfaces: Sequence[Surface]) -> RoofOffset | None:
    """Return how outlines must be moved onto the roofs of a surface; None where that shows none.

    Up to `_OFFSET_GROUPS` groups of buildings are looked at, evenly over the layer.
    """
    groups = list(places.groups(_GROUP_PX / 2 * max(one.resolution_m for one in surfaces)))
    groups = groups[:: ceil(len(groups) / _OFFSET_GROUPS)]
    offsets = []
    for rows in groups:
        outlines = places.outlines.unpack(rows)
        for surface in surfaces:
            offset = surface.offset_m(surface.place(outlines, places.crs))
            if offset is not None:
                offsets.append(offset)
    return RoofOffset.of(offsets)


def moved(outlines: Polygons, crs: CRS, offset: RoofOffset) -> Polygons:
    """Return outlines moved by an offset in metres."""
    centre = shapely.get_coordinates(shapely.centroid(outlines))
    steps = np.linalg.solve(_metres(centre, crs), np.array([offset.east_m, offset.north_m]))
    xy, owner = shapely.get_coordinates(outlines, return_index=True)
    return np.asarray(shapely.set_coordinates(outlines.copy(), xy + steps[owner]), np.object_)


def survey_points(
    places: Places,
    files: Sequence[PointFile],
    unit_m: float,
    folder: Path,
    progress: Progress | None = None,
) -> Heights:
    """Return the heights of all buildings from laser scans, without a grid.

    Each file is read once, a million points at a time; those near a building go to a temporary
    file by group. Vegetation is left out. Where points inside an outline are classified as
    building, only they count, else the last returns.

    Args:
        places: The buildings, in the plane of the points' CRS.
        files: Laser scans of one CRS.
        unit_m: Metres per unit of their heights.
        folder: Folder of the temporary files.
        progress: See `Progress`.
    """
    groups = list(places.groups(_GROUP_M))
    group_of = np.zeros(len(places.outlines), np.int64)
    for number, rows in enumerate(groups):
        group_of[rows] = number
    spill = SpillFile(folder)
    pieces: list[list[tuple[int, int]]] = [[] for _ in groups]
    total, done = sum(file.count for file in files), 0
    for file in files:
        rows = _inside_bounds(places, file)
        tree = shapely.STRtree(places.outlines.unpack(rows)) if len(rows) else None
        for points in file.chunks():
            done += len(points.xyz)
            if progress is not None:
                progress(min(done, total), total)
            if tree is None:
                continue
            near = _near_points(points, tree, rows, RING_M * places.metre)
            near["xyz"][:, 2] *= unit_m
            near = near[np.argsort(group_of[near["owner"]], kind="stable")]
            group, start = np.unique(group_of[near["owner"]], return_index=True)
            parts = np.split(near, start[1:]) if len(start) else []
            offsets = spill.append_bytes([part.tobytes() for part in parts])
            for number, first, last in zip(group.tolist(), offsets[:-1], offsets[1:]):
                pieces[number].append((int(first), int(last)))
    found = [
        _of_points(places, rows, _stored(spill, pieces[number]))
        for number, rows in enumerate(groups)
    ]
    return _ordered(found, groups, len(places.outlines))


def _inside_bounds(places: Places, file: PointFile) -> Ints:
    left, bottom, right, top = file.bounds_xy
    margin = RING_M * places.metre
    one = places.bounds
    return np.flatnonzero(
        (one[:, 0] < right + margin)
        & (one[:, 2] > left - margin)
        & (one[:, 1] < top + margin)
        & (one[:, 3] > bottom - margin)
    )


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


def _stored(spill: SpillFile, pieces: Sequence[tuple[int, int]]) -> np.ndarray:
    if not pieces:
        return np.zeros(0, _ROW)
    start, stop = np.array(pieces, np.int64).T
    return np.concatenate(
        [np.frombuffer(one, _ROW) for one in spill.read_bytes(start, stop).tolist()]
    )


def _of_points(places: Places, rows: Ints, near: np.ndarray) -> Heights:
    outlines = places.outlines.unpack(rows)
    centre = _centre(outlines)
    sorter = np.argsort(rows)
    owner = sorter[np.searchsorted(rows, near["owner"], sorter=sorter)]
    jacobian = _metres(centre, places.crs)
    xyz = near["xyz"].copy()
    xyz[:, :2] = np.einsum("nij,nj->ni", jacobian[owner], xyz[:, :2] - centre[owner])
    apart = near["apart"] / places.metre
    inside = apart == 0
    count = len(rows)
    classified = np.bincount(owner[inside & (near["kind"] == _BUILDING)], minlength=count)
    enough = classified >= _LEAST_CLASSIFIED * np.bincount(owner[inside], minlength=count)
    keep: BoolArray = np.where(
        inside,
        (near["kind"] == _BUILDING) | ~(enough & (classified > 0))[owner],
        (near["kind"] != _BUILDING) & (apart > 1.0),
    )
    samples = Samples.grouped(
        owner[keep], xyz[keep], apart[keep].astype(np.float64), near["kind"][keep] == _GROUND
    )
    local = _local(outlines, centre, places.crs)
    number = max(int((samples.distance == 0).sum()), 1)
    step_m = float(np.sqrt(shapely.area(local).sum() / number))
    return estimate_heights(samples, local, min(step_m, 2.0), gridded=False)


def _centre(outlines: Polygons) -> Floats:
    return shapely.get_coordinates(shapely.centroid(outlines))


def _metres(centre: Floats, crs: CRS) -> Floats:
    """Return (n, 2, 2) metres to the east and north for a step of one unit of a CRS."""
    return metres_per_px(GeoGrid((1, 1), crs=crs), centre)


def _local(outlines: Polygons, centre: Floats, crs: CRS) -> Polygons:
    """Return outlines in metres to the east and north of their centres."""
    xy, owner = shapely.get_coordinates(outlines, return_index=True)
    metres = np.einsum("nij,nj->ni", _metres(centre, crs)[owner], xy - centre[owner])
    return np.asarray(shapely.set_coordinates(outlines.copy(), metres), np.object_)


def _ordered(found: Sequence[Heights], groups: Sequence[Ints], count: int) -> Heights:
    """Return the heights of all buildings in the order of the layer."""
    joined = Heights.joined(found)
    place = np.empty(count, np.int64)
    place[np.concatenate([np.zeros(0, np.int64), *groups])] = np.arange(count)
    return joined.of(place)


def places_of(outlines: Outlines, crs: CRS, plane: CRS, chunks: Iterator[Polygons]) -> Places:
    """Return where the outlines of a layer lie in a plane.

    Args:
        outlines: The n outlines.
        crs: Their CRS.
        plane: CRS of the plane, in any unit of length.
        chunks: The outlines in their order.
    """
    bounds = [np.zeros((0, 4))]
    bounds += [shapely.bounds(reprojected(part, crs, plane, np.inf)) for part in chunks]
    unit = float(plane.axis_info[0].unit_conversion_factor) if plane.axis_info else 1.0
    return Places(outlines, crs, np.concatenate(bounds), 1 / unit)
