"""Candidate outlines from complete regions, and the records of them that stay in memory.

`OutlineMaker` turns regions into raw and proposed polygons. The polygons wait in a `SpillFile`
until those of the whole scene are known; `FootprintRecords` hold a few numbers of each.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from itertools import chain

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.errors import ConfigError, GeoreferenceError, PredictError
from rooftrace.core.types import GeoGrid
from rooftrace.io.make_valid import largest_parts
from rooftrace.io.spill_file import SpillFile
from rooftrace.vector.footprints import square_metres_per_px
from rooftrace.vector.overlap_pairs import near_pairs, overlapping_pairs
from rooftrace.vector.regularize import regularize
from rooftrace.vector.separate import MIN_MARKER_PX, owners, separate_by_owner
from rooftrace.vector.simplify import acceptable, simplify_staircase
from rooftrace.vector.staircases import encode_staircases
from rooftrace.vector.trace import Bools, Floats, Ints, Polygons, TracedPolygons
from rooftrace.vector.watershed import Cores, WatershedOptions, separate_by_watershed

__all__ = [
    "MIN_BUILDING_PX",
    "SIMPLIFY_PX",
    "Candidates",
    "FootprintRecordBuffer",
    "FootprintRecords",
    "OutlineMaker",
    "RegionBatch",
    "VectorOptions",
    "check_area",
]

MIN_BUILDING_PX = 9.0
"""Minimum area of a building, in pixels of the model."""

SIMPLIFY_PX = 1.25
"""Tolerance for simplifying outlines, in pixels of the model."""


@dataclass(frozen=True)
class VectorOptions:
    """Options for making footprints from regions. Pixels are those of the mask.

    Args:
        min_area_m2: Minimum area of a footprint, measured with its holes filled.
        min_hole_m2: Minimum area of a hole in a building; smaller holes are filled. At most
            `min_area_m2`: a building inside such a hole is then too small itself, so that no
            footprint covers another.
        min_area_px: Minimum number of pixels of a region.
        simplify_px: Maximum distance between an outline and the pixel staircase; 0 keeps the
            staircase.
        regularize: True to give buildings right angles where they have them.
        separate: True to separate buildings that touch, by a watershed or else by markers.
        min_marker_px: Minimum number of pixels of a marker or core.
        watershed: Options of the watershed; None for a model that predicts markers.
    """

    min_area_m2: float | None = None
    min_hole_m2: float | None = None
    min_area_px: float = MIN_BUILDING_PX
    simplify_px: float = SIMPLIFY_PX
    regularize: bool = True
    separate: bool = True
    min_marker_px: float = MIN_MARKER_PX
    watershed: WatershedOptions | None = None

    def check(self, grid: GeoGrid, gsd_m: float | None) -> None:
        """Check the options against a grid.

        Raises:
            ConfigError: `min_hole_m2` is larger than `min_area_m2`.
            GeoreferenceError: An area in metres is given, but the size of a pixel is unknown.
        """
        if (self.min_hole_m2 or 0) > (self.min_area_m2 or 0):
            raise ConfigError(
                f"The minimum hole is {self.min_hole_m2:g} m² and the minimum area "
                f"{self.min_area_m2 or 0:g} m²; a building inside a filled hole would overlap the "
                "building around it.",
                remedy="Choose a minimum hole that is no larger than the minimum area.",
            )
        if self.min_area_m2 and gsd_m is None and grid.gsd_m is None:
            where = "no coordinate system" if grid.crs is None else f"the system {grid.crs.name!r}"
            raise GeoreferenceError(
                f"A minimum area of {self.min_area_m2:g} m² was given, but the image has "
                f"{where}, so that the size of its pixels on the ground is not known.",
                remedy="Give the metres per pixel with --gsd, or remove the minimum area.",
            )


@dataclass(frozen=True, slots=True)
class RegionBatch:
    """Complete regions of one class.

    Args:
        regions: Traced regions.
        is_building: True for the building class.
        class_id: Class index of all regions.
        markers: Markers inside the regions, or their cores if a watershed divides them; None where
            neither is known.
        owner: (markers,) region that holds each marker.
    """

    regions: TracedPolygons
    is_building: bool
    class_id: int
    markers: TracedPolygons | None = None
    owner: Ints | None = None

    def with_markers(self, markers: TracedPolygons) -> tuple[RegionBatch, TracedPolygons]:
        """Return a batch with the markers inside its regions, and the other markers."""
        owner = owners(self.regions, markers)
        inside = owner >= 0
        own = replace(self, markers=markers.of(inside), owner=owner[inside])
        return own, markers.of(~inside)

    def parts(self, size: int) -> list[RegionBatch]:
        """Return the same regions in batches of `size`."""
        batches = []
        for first in range(0, len(self.regions), size):
            stop = min(first + size, len(self.regions))
            part = replace(self, regions=self.regions.of(np.arange(first, stop)))
            if self.markers is not None and self.owner is not None:
                own = (self.owner >= first) & (self.owner < stop)
                part = replace(part, markers=self.markers.of(own), owner=self.owner[own] - first)
            batches.append(part)
        return batches


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidate outlines of a batch, before neighbours are considered; picklable.

    Args:
        records: Their records, with offsets from the first byte of `polygons`.
        polygons: Their raw and proposed polygons, see `FootprintRecords.of_pairs`.
        class_id: Class index of all of them.
        area_px: Area of all regions, including those that were too small.
        overlapping: (2, k) pairs of indices of buildings that overlap, see `overlapping_pairs`.
    """

    records: FootprintRecords
    polygons: bytes
    class_id: int
    area_px: int
    overlapping: Ints


@dataclass(frozen=True, slots=True)
class FootprintRecords:
    """Numbers of polygons whose shapes are in a spill file, 64 bytes each.

    Args:
        first: (n,) int64, first pixel of each region: row times the scene's width plus column.
        class_id: (n,) uint8.
        score: (n,) float32.
        divided: (n,) True for a piece of a region that was divided into buildings.
        accepted: (n,) True where the proposed polygon is a regular outline.
        area_m2: (n,) areas of the proposed polygons; NaN where no minimum area was given.
        bounds: (n, 4) float32: left, top, right, bottom of raw and proposed polygon, rounded
            outwards.
        raw, proposed, stop: (n,) int64 offsets of the start of the two polygons and of their end.
        refined: (n,) True where another network has changed the outline.
    """

    first: Ints
    class_id: NDArray[np.uint8]
    score: NDArray[np.float32]
    divided: Bools
    accepted: Bools
    area_m2: Floats
    bounds: NDArray[np.float32]
    raw: Ints
    proposed: Ints
    stop: Ints
    refined: Bools

    def __len__(self) -> int:
        return len(self.first)

    @staticmethod
    def of_pairs(
        raw: Polygons, proposed: Polygons, spill: SpillFile
    ) -> tuple[Ints, Ints, Ints, NDArray[np.float32]]:
        """Write polygons (n,) and their replacements (n,) to a spill file.

        The polygons are written by `encode_staircases`, the replacements as WKB.

        Returns:
            The fields `raw`, `proposed`, `stop` and `bounds` of their records.
        """
        encoded: list[bytes] = shapely.to_wkb(proposed).tolist()
        both = zip(encode_staircases(raw), encoded, strict=True)
        offsets = spill.append_bytes([*chain.from_iterable(both)])
        bounds = np.stack([shapely.bounds(raw), shapely.bounds(proposed)], axis=1)
        low, high = bounds[:, :, :2].min(axis=1), bounds[:, :, 2:].max(axis=1)
        outward = np.concatenate([_rounded(low, -np.inf), _rounded(high, np.inf)], axis=1)
        return offsets[:-1:2], offsets[1::2], offsets[2::2], outward

    @classmethod
    def none(cls) -> FootprintRecords:
        none, numbers = np.zeros(0, np.int64), np.zeros(0)
        return cls(
            none, none.astype(np.uint8), numbers.astype(np.float32), none.astype(np.bool_),
            none.astype(np.bool_), numbers, np.zeros((0, 4), np.float32), none, none, none,
            none.astype(np.bool_),
        )  # fmt: skip

    def shifted(self, offset: int) -> FootprintRecords:
        """Return the records of polygons that lie `offset` bytes further in a file."""
        return replace(
            self, raw=self.raw + offset, proposed=self.proposed + offset, stop=self.stop + offset
        )

    def of_numbers(self, chosen: Ints | Bools | slice) -> FootprintRecords:
        """Return some records; those of a slice share the memory."""
        return FootprintRecords(*(getattr(self, one.name)[chosen] for one in fields(self)))


_MIN_CAPACITY = 4096
"""Initial capacity in records."""


class FootprintRecordBuffer:
    """Records that grow by a few at a time over hours.

    They are copied into arrays that double as they fill. Thousands of small arrays would fragment
    the memory and keep whole pages of it from being freed.
    """

    def __init__(self) -> None:
        self._kept = FootprintRecords.none()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, part: FootprintRecords) -> None:
        """Copy records to the end."""
        size = self._size + len(part)
        if size > len(self._kept):
            self._kept = self._grown(max(size, 2 * len(self._kept), _MIN_CAPACITY))
        for one in fields(FootprintRecords):
            getattr(self._kept, one.name)[self._size : size] = getattr(part, one.name)
        self._size = size

    def whole(self) -> FootprintRecords:
        """Return all records in the order of arrival; they share the buffer's memory."""
        return self._kept.of_numbers(slice(self._size))

    def _grown(self, capacity: int) -> FootprintRecords:
        arrays = []
        for one in fields(FootprintRecords):
            held = getattr(self._kept, one.name)
            larger = np.empty((capacity, *held.shape[1:]), held.dtype)
            larger[: self._size] = held[: self._size]
            arrays.append(larger)
        return FootprintRecords(*arrays)


def _rounded(values: Floats, towards: float) -> NDArray[np.float32]:
    near = values.astype(np.float32)
    return np.nextafter(near, np.float32(towards))


@dataclass(frozen=True)
class OutlineMaker:
    """Makes candidate outlines of regions; thread-safe.

    Args:
        grid: Grid of the pixels.
        options: Options of the outlines.
        gsd_m: Metres per pixel; overrides the grid.
    """

    grid: GeoGrid
    options: VectorOptions
    gsd_m: float | None = None

    def make(self, batch: RegionBatch) -> Candidates:
        """Return the candidate outlines of a batch.

        Raises:
            PredictError: Pixels were lost when buildings were separated.
        """
        regions = self._separated(batch)
        area_px = int(batch.regions.area_px.sum())
        made_px = int(np.rint(shapely.area(regions.polygons)).sum())
        check_area(batch.class_id, area_px, made_px)
        large = regions.of(regions.area_px >= self.options.min_area_px)
        proposed, accepted = self.outline(large.polygons, is_building=batch.is_building)
        first = self._first_pixel(large)
        area_m2 = self.area_m2(proposed)
        # Footprints that are dropped here do not count as neighbours.
        kept = ~(area_m2 < (self.options.min_area_m2 or 0))
        spill = SpillFile(in_memory_bytes=sys.maxsize)
        raw, proposed = large.polygons[kept], proposed[kept]
        raw_at, proposed_at, stop, bounds = FootprintRecords.of_pairs(raw, proposed, spill)
        overlapping = np.zeros((2, 0), np.int64)
        if batch.is_building:
            overlapping = overlapping_pairs(raw, proposed, near_pairs(bounds))
        count = len(stop)
        records = FootprintRecords(
            first[kept], np.full(count, batch.class_id, np.uint8), large.score[kept],
            self._divided(large, batch.regions)[kept], accepted[kept], area_m2[kept], bounds,
            raw_at, proposed_at, stop, np.zeros(count, np.bool_),
        )  # fmt: skip
        return Candidates(records, spill.content(), batch.class_id, area_px, overlapping)

    def outline(self, raw: Polygons, *, is_building: bool) -> tuple[Polygons, Bools]:
        """Return (n,) outlines of regions inside the image, and (n,) True for regular ones.

        Args:
            raw: (n,) polygons along pixel edges, as `trace` makes them.
            is_building: True to fill small holes and make outlines regular.
        """
        accepted = np.zeros(len(raw), np.bool_)
        tolerance = self.options.simplify_px
        if is_building:
            whole = self._filled(raw)
            if self.options.regularize:
                regular = regularize(whole, tolerance)
                proposed, accepted = regular.polygons, regular.accepted
            else:
                proposed = simplify_staircase(whole, tolerance)
        else:
            proposed = simplify_staircase(raw, tolerance)
        proposed, reverted = self._clipped(proposed, raw)
        return proposed, accepted & ~reverted

    def area_m2(self, polygons: Polygons) -> Floats:
        """Return (n,) areas of polygons in pixels; NaN where no minimum area was given."""
        if not self.options.min_area_m2:
            return np.full(len(polygons), np.nan)
        return np.asarray(shapely.area(polygons) * self._m2_per_px(polygons), np.float64)

    def _separated(self, batch: RegionBatch) -> TracedPolygons:
        if not (batch.is_building and self.options.separate):
            return batch.regions
        options, cores = self.options.watershed, None
        if batch.markers is not None and batch.owner is not None:
            if options is None:
                return separate_by_owner(batch.regions, batch.markers, batch.owner)
            cores = Cores(batch.markers.polygons, batch.owner)
        if options is None:
            return batch.regions
        return separate_by_watershed(batch.regions, options, cores)

    def _first_pixel(self, traced: TracedPolygons) -> Ints:
        """Return (n,) numbers of first pixels, see `FootprintRecords`."""
        row, col = traced.first_pixel_yx.T
        number: Ints = row * self.grid.width + col
        return number

    def _divided(self, traced: TracedPolygons, regions: TracedPolygons) -> Bools:
        """Return (n,) True for each that is a piece of one of the regions, and not a region."""
        # Regions have different first pixels; a piece may have that of its region.
        first, of = self._first_pixel(traced), self._first_pixel(regions)
        order = np.argsort(of)
        same = order[np.searchsorted(of, first, sorter=order).clip(max=len(of) - 1)]
        divided: Bools = (of[same] != first) | (regions.area_px[same] != traced.area_px)
        return divided

    def _m2_per_px(self, polygons: Polygons) -> Floats:
        """Return (n,) the area of a pixel at each polygon; NaN where metres are unknown."""
        if self.gsd_m is not None:
            return np.full(len(polygons), self.gsd_m**2)
        return square_metres_per_px(self.grid, shapely.get_coordinates(shapely.centroid(polygons)))

    def _clipped(self, proposed: Polygons, raw: Polygons) -> tuple[Polygons, Bools]:
        """Return polygons without the parts outside of the image, where fitted corners may lie.

        Returns:
            (n,) polygons, and (n,) True where only the polygon along pixel edges is inside.
        """
        left, top, right, bottom = shapely.bounds(proposed).T
        height, width = self.grid.shape
        beyond = np.flatnonzero((left < 0) | (top < 0) | (right > width) | (bottom > height))
        reverted = np.zeros(len(proposed), np.bool_)
        if not len(beyond):
            return proposed, reverted
        inside, owner = largest_parts(
            shapely.intersection(proposed[beyond], shapely.box(0, 0, width, height))
        )
        clipped = proposed.copy()
        clipped[beyond], reverted[beyond] = raw[beyond], True
        good = acceptable(inside, raw[beyond[owner]])
        kept = beyond[owner[good]]
        clipped[kept], reverted[kept] = shapely.orient_polygons(inside[good]), False
        return clipped, reverted

    def _filled(self, polygons: Polygons) -> Polygons:
        """Return polygons without the holes that are too small."""
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
    """Raise PredictError if polygons do not have the area of their pixels."""
    if fed_px != made_px:
        raise PredictError(
            f"The polygons of class {class_id} cover {made_px} pixels, the mask {fed_px}: a bug in "
            "rooftrace.",
            remedy="Please report it, with the mask.",
        )
