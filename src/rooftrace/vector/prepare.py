"""Candidate outlines from complete regions: raw and proposed polygons, and records of them."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationError

from rooftrace.core.config import Config
from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError, PredictError
from rooftrace.core.text import first_line
from rooftrace.core.types import (
    UNKNOWN_PROVENANCE,
    BoolArray,
    Floats,
    GeoGrid,
    Ints,
    Polygons,
    ResultProvenance,
)
from rooftrace.io.gdal import environment, open_quietly, reading_errors
from rooftrace.io.make_valid import largest_parts
from rooftrace.io.reproject import crs_text
from rooftrace.vector.footprints import square_metres_per_px
from rooftrace.vector.regularize import regularize
from rooftrace.vector.simplify import SIMPLIFY_PX, resembles, simplify_staircase, unit_of
from rooftrace.vector.trace import TracedPolygons
from rooftrace.vector.watershed import (
    ATLAS_PX,
    MAX_SIDE_PX,
    LabelAtlas,
    WatershedOptions,
    batches,
    separate_by_watershed,
    trace_pieces,
)

OutlineStyle = Literal["pixel", "simplified", "regular"]
"""Outlines of buildings: along pixel edges; simplified; or of straight walls in the directions that
a building shows."""

MIN_BUILDING_PX = 9.0
"""Minimum area of a building, in pixels of the model."""

Amount = Annotated[float, Field(ge=0)]


MIN_MARKER_PX = 36.0
"""Minimum marker size in pixels of the model; smaller areas of a roof between ridges and
shadows are no buildings. With markers from 9 px on there were a sixth more pieces, and F1
of buildings was 0.03 lower.
"""


@dataclass(frozen=True)
class VectorOptions:
    """Options for making footprints from regions. Pixels are those of the mask.

    Args:
        min_area_m2: Minimum area of a footprint, measured with its holes filled.
        min_hole_m2: Minimum area of a hole in a building; smaller holes are filled. At most
            `min_area_m2`: a building inside such a hole is then too small itself, so that no
            footprint covers another.
        min_score: Minimum score of a building; one without a score stays.
        min_area_px: Minimum number of pixels of a region.
        simplify_px: Maximum distance between an outline and the pixel staircase; 0 keeps the
            staircase.
        regularize: True to give buildings straight walls in the directions that they show.
        separate: True to separate buildings that touch, by a watershed or by given markers.
        min_marker_px: Minimum number of pixels of a marker or core.
        watershed: Options of the watershed; None for given markers.
    """

    # The limits hold for what the record of a mask contains.
    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    min_area_m2: Amount | None = None
    min_hole_m2: Amount | None = None
    min_score: float = 0.0
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
            raise GeoreferenceError(
                f"A minimum area of {self.min_area_m2:g} m² was given, but the image is in "
                f"{crs_text(grid.crs)}, so that the size of its pixels on the ground is not known.",
                remedy="Give the metres per pixel with --gsd, or remove the minimum area.",
            )


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidate outlines of regions of one class, before neighbours are considered; picklable.

    Args:
        records: Their records, with offsets from the first byte of `polygons`.
        polygons: Their raw and proposed polygons, see `encode_pairs`.
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
            is_building: True to separate the regions and to make their outlines regular.
            markers: Markers inside the regions, or their cores if a watershed divides them, and
                (markers,) the region that holds each; None where neither is known.

        Raises:
            PredictError: Pixels were lost when buildings were separated.
        """
        options, pieces = self.options, regions
        if is_building and options.separate and options.watershed is not None:
            cores = None if markers is None else (markers[0].polygons, markers[1])
            pieces = separate_by_watershed(regions, options.watershed, cores)
        elif is_building and options.separate and markers is not None:
            pieces = separate_by_owner(regions, *markers)
        area_px = int(regions.area_px.sum())
        check_area(class_id, area_px, int(np.rint(shapely.area(pieces.polygons)).sum()))
        pieces = pieces.of(pieces.area_px >= options.min_area_px)
        first, whole = (
            traced.first_pixel_yx @ np.array([self.grid.width, 1]) for traced in (pieces, regions)
        )
        # Regions have different first pixels; a piece may have that of its region.
        order = np.argsort(whole)
        same = order[np.searchsorted(whole, first, sorter=order).clip(max=len(whole) - 1)]
        divided = (whole[same] != first) | (regions.area_px[same] != pieces.area_px)
        same[divided] = owners(regions, pieces.of(divided))
        proposed, accepted = self.outline(pieces.polygons, is_building=is_building, group=same)
        area_m2 = self.area_m2(proposed)
        records = np.zeros(len(pieces), RECORD)
        records["first"], records["class_id"], records["score"] = first, class_id, pieces.score
        records["accepted"], records["divided"], records["area_m2"] = accepted, divided, area_m2
        # Footprints that are dropped here do not count as neighbours.
        kept = ~(area_m2 < (options.min_area_m2 or 0))
        records = records[kept]
        pairs = encode_pairs(records, pieces.polygons[kept], proposed[kept])
        return Candidates(records, pairs, class_id, area_px)

    def outline(
        self, raw: Polygons, *, is_building: bool, group: Ints | None = None
    ) -> tuple[Polygons, BoolArray]:
        """Return (n,) outlines of regions inside the image, and (n,) True for regular ones.

        Args:
            raw: (n,) polygons along pixel edges, as `trace` makes them.
            is_building: True to fill small holes and make outlines regular.
            group: (n,) the region that each polygon is a part of; by default one each.
        """
        whole, accepted = raw, np.zeros(len(raw), np.bool_)
        tolerance = self.options.simplify_px
        if is_building:
            whole = self._filled(raw)
        if is_building and self.options.regularize:
            proposed, accepted = regularize(whole, tolerance, group)
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

    def _clipped(self, proposed: Polygons, raw: Polygons) -> tuple[Polygons, BoolArray]:
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
        # A wall that leaves the image by less than this bends there.
        inside = np.asarray(shapely.simplify(inside, 0.2 * self.options.simplify_px), np.object_)
        clipped = proposed.copy()
        clipped[beyond], reverted[beyond] = raw[beyond], True
        good = resembles(inside, raw[beyond[owner]], unit_of(self.options.simplify_px))
        kept = beyond[owner[good]]
        clipped[kept], reverted[kept] = shapely.orient_polygons(inside[good]), False
        return clipped, reverted

    def _filled(self, polygons: Polygons) -> Polygons:
        """Return polygons without the holes that are too small.

        A regular outline has no hole that is smaller than a building, either, which could not lie
        in it.
        """
        options = self.options
        holed = np.flatnonzero(shapely.get_num_interior_rings(polygons) > 0)
        smallest = np.full(len(holed), options.min_area_px if options.regularize else 0.0)
        if options.min_hole_m2:
            asked = options.min_hole_m2 / self._m2_per_px(polygons[holed])
            smallest = np.maximum(smallest, asked)
        if not smallest.any():
            return polygons
        filled = polygons.copy()
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


_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def owners(buildings: TracedPolygons, markers: TracedPolygons) -> Ints:
    """Return (markers,) the index of the building that holds each marker; -1 where none does."""
    row, col = markers.first_pixel_yx.T
    points = shapely.points(col + 0.5, row + 0.5)
    found, within = shapely.STRtree(buildings.polygons).query(points, predicate="within")
    owner = np.full(len(markers), -1, np.int64)
    owner[found] = within
    return owner


def separate_by_owner(
    buildings: TracedPolygons, markers: TracedPolygons, owner: Ints
) -> TracedPolygons:
    """Divide each building that holds several markers into one piece for each; the pieces tile it.

    Args:
        buildings: Regions of a mask, in pixels.
        markers: Regions of a part of that mask.
        owner: Result of `owners`; markers of no building are ignored.

    Returns:
        All buildings, ordered by their first pixel. A piece has the score of its marker.
    """
    held = np.bincount(owner[owner >= 0], minlength=len(buildings))
    left, top, right, bottom = shapely.bounds(buildings.polygons).T
    divided = (held > 1) & (np.maximum(bottom - top, right - left) <= MAX_SIDE_PX)
    chosen = np.flatnonzero(divided)
    around = ((bottom - top) * (right - left))[chosen].astype(np.int64)
    parts = [buildings.of(~divided)]
    for part in batches(around, ATLAS_PX):
        place = np.full(len(buildings) + 1, -1)
        place[chosen[part]] = np.arange(len(part))
        # Markers of no building have the owner -1, which is the last place.
        region = place[owner]
        inside = np.flatnonzero(region >= 0)
        atlas = LabelAtlas.of(buildings.polygons[chosen[part]])
        number = np.arange(1, len(inside) + 1)
        labels = atlas.drawn(markers.polygons[inside], region[inside], number)
        free = (atlas.number > 0) & (labels == 0)
        while free.any():
            # Where two markers arrive at the same step, the later one wins.
            grown = cv2.dilate(labels, _CROSS)
            taken = free & (grown > 0)
            labels[taken] = grown[taken]
            free &= ~taken
        origin = atlas.origin_yx[region[inside]]
        pieces = trace_pieces(labels.astype(np.int32), origin, markers.score[inside])
        # Simplified outlines depend on where rings begin: this is where they always did.
        rings = shapely.reverse(shapely.normalize(pieces.polygons))
        parts.append(replace(pieces, polygons=np.asarray(rings, np.object_)))
    return TracedPolygons.joined(parts) if divided.any() else buildings


RECORD = np.dtype(
    [
        ("first", "<i8"), ("class_id", "u1"), ("score", "<f4"), ("divided", "?"),
        ("accepted", "?"), ("refined", "?"), ("area_m2", "<f8"), ("bounds", "<f4", 4),
        ("raw", "<i8"), ("proposed", "<i8"), ("stop", "<i8"),
    ]
)  # fmt: skip
"""Numbers of a footprint whose polygons are in a spill file, 64 bytes.

first: First pixel of its region: row times the scene's width plus column.
class_id: Class index.
score: Mean probability; NaN where unknown.
divided: True for a piece of a region that was divided into buildings.
accepted: True where the proposed polygon is a regular outline.
refined: True where another network has changed the outline.
area_m2: Area of the proposed polygon; NaN where no minimum area was given.
bounds: Left, top, right, bottom of raw and proposed polygon together, rounded outwards.
raw, proposed, stop: Offsets of the start of the two polygons, and of their end.
"""

FootprintRecords = NDArray[np.void]
"""(n,) array of `RECORD`."""


def encode_pairs(
    records: FootprintRecords, raw: Polygons, proposed: Polygons, start: int = 0
) -> bytes:
    """Return polygons (n,) and their replacements (n,) as WKB, and note in the records where they
    lie; the first one at offset `start`.
    """
    pairs = shapely.to_wkb(np.stack([raw, proposed], axis=1)).reshape(-1).tolist()
    offsets = np.cumsum([start, *map(len, pairs)])
    records["raw"], records["proposed"], records["stop"] = (
        offsets[:-1:2], offsets[1::2], offsets[2::2],
    )  # fmt: skip
    bounds = np.stack([shapely.bounds(raw), shapely.bounds(proposed)], axis=1)
    low = bounds[:, :, :2].min(axis=1).astype(np.float32)
    high = bounds[:, :, 2:].max(axis=1).astype(np.float32)
    records["bounds"][:, :2] = np.nextafter(low, np.float32(-np.inf))
    records["bounds"][:, 2:] = np.nextafter(high, np.float32(np.inf))
    return b"".join(pairs)


TAG = "ROOFTRACE"
"""Name of the tag that holds the record."""

_SAME_SIZE = 0.02
"""Largest difference of pixel sizes, as a share, that a part of a mask shows: the metres of a pixel
in degrees or in Web Mercator depend on its latitude."""


class MaskRecord(Config):
    """Options from which the polygons of a mask were made.

    Args:
        polygons: See `VectorOptions`.
        gsd_m: Metres per pixel that the user gave; None for those of the georeference.
        building: Class index of the buildings.
        shape: Rows and columns of the mask as it was written.
        pixel_m: Metres of its pixels down a column and along a row; None where the georeference
            did not have them.
    """

    # Names of earlier and later versions are left out, also those of the origin.
    model_config = ConfigDict(extra="ignore")

    polygons: VectorOptions
    gsd_m: Annotated[float, Field(gt=0)] | None = None
    building: Annotated[int, Field(ge=0, le=254)]
    origin: ResultProvenance = UNKNOWN_PROVENANCE
    shape: tuple[int, int]
    pixel_m: tuple[float, float] | None = None

    @classmethod
    def read(cls, path: Path) -> MaskRecord | None:
        """Return the record of a raster; None if `rooftrace predict` has not written it."""
        with reading_errors(path, "tags"), environment(), open_quietly(path) as dataset:
            text = dataset.tags().get(TAG)
        if text is None:
            return None
        try:
            return cls.model_validate(json.loads(text))
        except (ValidationError, ValueError) as error:
            raise DataError(
                f"{path} has a damaged tag {TAG}, from which rooftrace makes its polygons: "
                f"{first_line(error)}.",
                remedy=f"Remove the tag: gdal_edit.py -unsetmd {shlex.quote(str(path))}",
            ) from error

    def tags(self) -> dict[str, str]:
        """Return the tags to write to the mask."""
        return {TAG: json.dumps(self.model_dump(mode="json"), separators=(",", ":"))}

    def is_of(self, grid: GeoGrid) -> bool:
        """Return True if a raster has the pixels for which the record was written, or some of them.

        Other programs copy the tag when they resample a mask.
        """
        found = grid.gsd_yx_m
        if self.pixel_m is None or found is None:
            return self.shape == grid.shape
        pairs = zip(self.pixel_m, found, strict=True)
        return all(abs(now / then - 1) <= _SAME_SIZE for then, now in pairs)
