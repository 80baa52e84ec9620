"""Candidate outlines from complete regions: raw and proposed polygons, and records of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import shapely
from pydantic import ConfigDict, Field

from rooftrace.core.errors import ConfigError, GeoreferenceError, PredictError
from rooftrace.core.types import GeoGrid
from rooftrace.io.make_valid import largest_parts
from rooftrace.io.spill_file import SpillFile
from rooftrace.vector.footprints import square_metres_per_px
from rooftrace.vector.records import RECORD, FootprintRecords, store_pairs
from rooftrace.vector.regularize import regularize
from rooftrace.vector.separate import MIN_MARKER_PX, separate_by_owner
from rooftrace.vector.simplify import acceptable, simplify_staircase
from rooftrace.vector.trace import Bools, Floats, Ints, Polygons, TracedPolygons
from rooftrace.vector.watershed import Cores, WatershedOptions, separate_by_watershed

OutlineStyle = Literal["pixel", "simplified", "regular"]
"""Outlines of buildings: along pixel edges; simplified; or simplified and with right angles where
the walls have them."""

MIN_BUILDING_PX = 9.0
"""Minimum area of a building, in pixels of the model."""

SIMPLIFY_PX = 1.25
"""Tolerance for simplifying outlines, in pixels of the model."""


Amount = Annotated[float, Field(ge=0)]


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

    # The limits hold for what the record of a mask contains.
    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    min_area_m2: Amount | None = None
    min_hole_m2: Amount | None = None
    min_area_px: Amount = MIN_BUILDING_PX
    simplify_px: Amount = SIMPLIFY_PX
    regularize: bool = True
    separate: bool = True
    min_marker_px: Amount = MIN_MARKER_PX
    watershed: WatershedOptions | None = None

    def drawn(self, outline: OutlineStyle) -> VectorOptions:
        """Return the options for outlines of a style."""
        simplify_px = 0.0 if outline == "pixel" else self.simplify_px or SIMPLIFY_PX
        return replace(self, regularize=outline == "regular", simplify_px=simplify_px)

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
class Candidates:
    """Candidate outlines of regions of one class, before neighbours are considered; picklable.

    Args:
        records: Their records, with offsets from the first byte of `polygons`.
        polygons: Their raw and proposed polygons, see `store_pairs`.
        class_id: Class index of all of them.
        area_px: Area of all regions, including those that were too small.
    """

    records: FootprintRecords
    polygons: bytes
    class_id: int
    area_px: int


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

    def make(
        self,
        regions: TracedPolygons,
        class_id: int,
        is_building: bool,
        markers: tuple[TracedPolygons, Ints] | None = None,
    ) -> Candidates:
        """Return the candidate outlines of complete regions of one class.

        Args:
            regions: Traced regions.
            class_id: Class index of all regions.
            is_building: True to separate the regions and to make their outlines regular.
            markers: Markers inside the regions, or their cores if a watershed divides them, and
                (markers,) the region that holds each; None where neither is known.

        Raises:
            PredictError: Pixels were lost when buildings were separated.
        """
        options, pieces = self.options, regions
        if is_building and options.separate and options.watershed is not None:
            cores = None if markers is None else Cores(markers[0].polygons, markers[1])
            pieces = separate_by_watershed(regions, options.watershed, cores)
        elif is_building and options.separate and markers is not None:
            pieces = separate_by_owner(regions, *markers)
        area_px = int(regions.area_px.sum())
        check_area(class_id, area_px, int(np.rint(shapely.area(pieces.polygons)).sum()))
        pieces = pieces.of(pieces.area_px >= options.min_area_px)
        proposed, accepted = self.outline(pieces.polygons, is_building=is_building)
        area_m2 = self.area_m2(proposed)
        records = np.zeros(len(pieces), RECORD)
        first, whole = (
            traced.first_pixel_yx @ np.array([self.grid.width, 1]) for traced in (pieces, regions)
        )
        # Regions have different first pixels; a piece may have that of its region.
        order = np.argsort(whole)
        same = order[np.searchsorted(whole, first, sorter=order).clip(max=len(whole) - 1)]
        records["divided"] = (whole[same] != first) | (regions.area_px[same] != pieces.area_px)
        records["first"], records["class_id"], records["score"] = first, class_id, pieces.score
        records["accepted"], records["area_m2"] = accepted, area_m2
        # Footprints that are dropped here do not count as neighbours.
        kept = ~(area_m2 < (options.min_area_m2 or 0))
        records = records[kept]
        spill = SpillFile(in_memory_bytes=sys.maxsize)
        store_pairs(records, pieces.polygons[kept], proposed[kept], spill)
        return Candidates(records, spill.content(), class_id, area_px)

    def outline(self, raw: Polygons, *, is_building: bool) -> tuple[Polygons, Bools]:
        """Return (n,) outlines of regions inside the image, and (n,) True for regular ones.

        Args:
            raw: (n,) polygons along pixel edges, as `trace` makes them.
            is_building: True to fill small holes and make outlines regular.
        """
        whole, accepted = raw, np.zeros(len(raw), np.bool_)
        tolerance = self.options.simplify_px
        if is_building:
            whole = self._filled(raw)
        if is_building and self.options.regularize:
            proposed, accepted = regularize(whole, tolerance)
        else:
            proposed = simplify_staircase(whole, tolerance)
        proposed, reverted = self._clipped(proposed, raw)
        return proposed, accepted & ~reverted

    def area_m2(self, polygons: Polygons) -> Floats:
        """Return (n,) areas of polygons in pixels; NaN where no minimum area was given."""
        if not self.options.min_area_m2:
            return np.full(len(polygons), np.nan)
        return np.asarray(shapely.area(polygons) * self._m2_per_px(polygons), np.float64)

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
