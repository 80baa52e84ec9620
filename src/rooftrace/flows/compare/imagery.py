"""What images say about statuses: which ground was seen, and which changes are sure.

Buildings on ground that was not seen are neither new nor gone, but `outside`. Of two dates of
imagery, a change counts only where the probabilities of both are sure of it: a pixel has surely
changed if its probability at one date is high, and at the other date low in all pixels around it.
Between the two limits the model is not sure. A different threshold, a shift by a pixel or another
resolution of the image are then no change.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.arrays import in_steps
from rooftrace.core.errors import ConfigError, GeoreferenceError, GsdMismatch, TooLargeError
from rooftrace.core.text import PLACE_IMAGE, plural
from rooftrace.core.types import (
    BoolArray,
    Floats,
    GeoGrid,
    Ints,
    Polygons,
    Progress,
    RasterSource,
    Window,
)
from rooftrace.flows.compare.inputs import BuildingLayer, date_of, no_crs, read_buildings_layer
from rooftrace.flows.vectorize import DEFAULT_THRESHOLD
from rooftrace.io.area import Area, area_in_degrees
from rooftrace.io.files import check_exists
from rooftrace.io.gdal import is_raster, rasterize
from rooftrace.io.georeferenced import close_source, innermost, placed_by, provenance_of
from rooftrace.io.legend import NODATA
from rooftrace.io.masks import mask_sink
from rooftrace.io.raster import open_image, open_raster
from rooftrace.io.reproject import (
    BEND_M,
    CRS84,
    crs_units,
    in_pixels,
    outline_bounds,
    reprojected,
    split_at_180,
)
from rooftrace.io.resample import warped
from rooftrace.predict.block import Block
from rooftrace.predict.model_set import ModelSet
from rooftrace.predict.outputs import OutputPaths
from rooftrace.predict.plan import SceneOptions, ScenePlan, plan_scene
from rooftrace.predict.predictor import Predictor
from rooftrace.vector.compare import CHANGED, GONE, MERGED, NEW, OUTSIDE, SAME, SPLIT, SideStatus
from rooftrace.vector.footprints import ValidOutline
from rooftrace.vector.layer_offset import LayerOffset
from rooftrace.vector.match import PackedPolygons, shifted

PROBABILITY_FILES = ("new_probability.tif", "old_probability.tif")
"""Files of the probabilities of two images."""

Side = tuple[PackedPolygons, SideStatus]
"""Buildings of one date at their own place, and their statuses."""

_SURE_SHARE = 0.5
"""Minimum share of a new or gone building over which the change is sure."""

_CHANGED_SHARE = 0.25
"""Minimum share of one outline over which the change is sure, of buildings in both dates."""

_SEEN_SHARE = 0.5
"""Minimum share of a building that an image shows, or the other date, where it can be new or
gone."""

_AROUND_PX = 2
"""Distance in pixels up to which places count as the same."""

_MIN_PIXEL_M = 0.3
"""Minimum side in metres of the pixels in which two dates are compared: models see no more detail,
and dates do not fit more exactly."""

_BLOCK_PX = 128
_CHUNK = 50_000


@dataclass(frozen=True)
class Dates:
    """Probabilities of two dates.

    Args:
        new, old: Rasters of building probabilities; bytes are 255ths.
        threshold: Probability from which a pixel is a building.
    """

    new: Path
    old: Path
    threshold: float

    @property
    def low(self) -> float:
        """Probability below which the model is sure that there is no building."""
        return self.threshold / 2

    @property
    def high(self) -> float:
        """Probability from which the model is sure that there is a building."""
        return (1 + self.threshold) / 2

    def to_json(self) -> dict[str, Any]:
        return {name: round(getattr(self, name), 4) for name in ("threshold", "low", "high")}


def predict_dates(
    new: Path,
    old: Path,
    models: ModelSet,
    threshold: float | None,
    out: Path,
    step: Callable[[], None],
) -> tuple[BuildingLayer, BuildingLayer, Dates]:
    """Predict two images, and write the probabilities of each to a folder.

    Args:
        threshold: Probability from which a pixel is a building; None for the model's own.
        out: Folder for `PROBABILITY_FILES`.
        step: Function that is called after each image.

    Returns:
        The buildings of both dates, and the probabilities.

    Raises:
        ConfigError: An input is not an image, or the model has more than two classes.
        GeoreferenceError: An image has no coordinate system.
        RooftraceError: An image cannot be predicted, see `Predictor.predict`.
    """
    for name, path in (("NEW", new), ("OLD", old)):
        check_exists(path)
        if path.is_dir() or not is_raster(path):
            raise ConfigError(
                f"-m predicts two images, but {name}, {path}, is not an image.",
                remedy="Give two images, or leave out -m to compare layers of buildings: NEW may "
                "be the folder of rooftrace predict.",
            )
    spec = models.bundles[0].spec
    if not spec.is_binary:
        raise ConfigError(
            f"The model {spec.name!r} has {len(spec.classes)} classes; two dates are compared by "
            "the probabilities of a model of two classes.",
            remedy="Predict both images, and compare their polygons.",
        )
    predictor = models.ready()
    spec = predictor.bundle.spec
    options = SceneOptions(threshold=threshold, outputs=("polygons",))
    files = [out / name for name in PROBABILITY_FILES]
    layers = []
    with ExitStack() as opened:
        plans = []
        # Both images are checked before the first one is predicted.
        for path in (new, old):
            source = open_image(path)
            opened.callback(close_source, source)
            if source.grid.crs is None:
                raise no_crs(source)
            try:
                plans.append(plan_scene(source, spec, options))
            except GsdMismatch as error:
                raise GsdMismatch(
                    error.message,
                    remedy="Give images near the resolution of the model, or correct the "
                    f"georeference: {PLACE_IMAGE}",
                ) from error
        for path, plan, file in zip((new, old), plans, files):
            layers.append(_predicted(path, plan, predictor, file))
            step()
    limit = plans[0].threshold
    assert limit is not None
    return layers[0], layers[1], Dates(files[0], files[1], limit)


def probabilities_of(new: Path, old: Path, threshold: float | None) -> Dates | None:
    """Return the probabilities that two inputs are; None if one of them is something else.

    Fractions are probabilities, and so are bytes where a threshold is given, as for `open_mask`.
    """
    for path in (new, old):
        is_read = not path.is_dir() and is_raster(path)
        if not is_read or (threshold is None and open_raster(path).dtype.kind != "f"):
            return None
    return Dates(new, old, DEFAULT_THRESHOLD if threshold is None else threshold)


def _predicted(image: Path, plan: ScenePlan, predictor: Predictor, file: Path) -> BuildingLayer:
    """Predict an image, write its probabilities to a file, and return its buildings."""
    with TemporaryDirectory() as folder:
        paths = OutputPaths.of(Path(folder), "date", plan.source.grid, plan.spec.legend)
        with mask_sink(file, plan.source.grid, coloured=False) as sink:

            def keep(block: Block) -> None:
                # The highest byte is that of nodata.
                score = np.minimum(block.score, np.uint8(NODATA - 1))
                sink.write(block.window, np.where(block.mask == NODATA, block.mask, score))

            predictor.predict_plan(plan, paths, on_block=keep)
        layer = read_buildings_layer(paths.polygons, file.parent, attributes=["cut"])
    stated = provenance_of(plan.source).imagery_date
    return replace(
        layer, name=str(image), notes=plan.notes, mask=image, seen=open_raster(file),
        date=date_of(image, stated),
    )  # fmt: skip


def keep_certain_changes(
    new: Side, old: Side, dates: Dates, plane: CRS, offset: LayerOffset | None
) -> tuple[tuple[Floats, Floats], list[str]]:
    """Set the statuses of all changes of which the probabilities are not sure.

    A new or gone building is sure if at least half of its pixels have surely changed. The statuses
    of buildings in both dates are kept if at least a quarter of an outline has: of the building, of
    its partner, or of a piece of either. All others become `same`, without a partner if they were
    new or gone.

    Args:
        new, old: Buildings and statuses of both dates; the statuses are changed.
        plane: Coordinate system of the buildings, in metres.
        offset: Offset of the new date from the old one; None for none.

    Returns:
        (n,) and (k,) share of each building that has surely changed, NaN where it was the same
        before; and notes.

    Raises:
        GeoreferenceError: A raster has no coordinate system.
    """
    with ExitStack() as opened:
        after, before = (open_raster(path, palette="indices") for path in (dates.new, dates.old))
        # That of the coarser raster.
        pixel_m = _MIN_PIXEL_M
        for source in (after, before):
            opened.callback(close_source, source)
            if source.grid.gsd_m is None:
                raise no_crs(source)
            pixel_m = max(pixel_m, source.grid.gsd_m)
        shares = []
        for (packed, status), own, there, sign in (
            (new, after, before, -1), (old, before, after, 1),
        ):  # fmt: skip
            view = _DateProbabilities(own, there, dates, plane, pixel_m, offset, sign)
            share = np.full(len(packed), np.nan)
            changed = np.flatnonzero(~np.isin(status.status, (SAME, OUTSIDE)))
            for index in in_steps(changed, _CHUNK):
                share[index] = view.shares(packed.unpack(index))
            shares.append(share)
    unsure = [0, 0]
    # One that replaces another one is as sure as that.
    replaced = [share.copy() for share in shares]
    sides = new[1], old[1]
    for number, side in enumerate(sides):
        index = np.flatnonzero(np.isin(side.status, (NEW, GONE)) & side.is_linked)
        index = index[np.isin(sides[1 - number].status[side.partner[index]], (NEW, GONE))]
        of_partner = shares[1 - number][side.partner[index]]
        replaced[number][index] = np.maximum(shares[number][index], of_partner)
    spread = _with_partners(sides, shares)
    for number, (status, share, value) in enumerate(zip(sides, replaced, spread)):
        single = np.isin(status.status, (NEW, GONE))
        # A remnant may be left of a building that is not surely gone.
        remains = single & status.is_linked & (share < _SURE_SHARE)
        status.status[remains] = CHANGED
        single &= ~remains
        is_certain = np.where(single, share >= _SURE_SHARE, value >= _CHANGED_SHARE)
        kept = is_certain | np.isin(status.status, (SAME, OUTSIDE))
        alone = np.flatnonzero(single & ~kept)
        nothing = np.zeros(len(alone))
        status.put(alone, SAME, np.full(len(alone), -1), (nothing, nothing, nothing))
        status.status[~kept] = SAME
        unsure[number] = int((~kept).sum())
    one, other = plural(unsure[0], "building"), f"{unsure[1]:,}"
    note = f"{one} of NEW and {other} of OLD differ, but not surely: they count as the same."
    return (shares[0], shares[1]), [note] if any(unsure) else []


def _with_partners(sides: tuple[SideStatus, SideStatus], shares: Sequence[Floats]) -> list[Floats]:
    """Return the largest share among each building, its partner and all pieces of either."""
    certain = [np.nan_to_num(share) for share in shares]
    has = [np.flatnonzero((side.partner >= 0) & (side.status != SAME)) for side in sides]
    pieces = [share.copy() for share in certain]
    for number, linked in enumerate(has):
        np.maximum.at(pieces[1 - number], sides[number].partner[linked], certain[number][linked])
    spread = [share.copy() for share in pieces]
    for number, linked in enumerate(has):
        of_partner = pieces[1 - number][sides[number].partner[linked]]
        spread[number][linked] = np.maximum(spread[number][linked], of_partner)
    return spread


@dataclass(frozen=True)
class _DateProbabilities:
    """The probabilities of two dates on one grid, block by block of ground.

    `own` is the raster of the date that the buildings are from, `plane` the coordinate system of
    the grid in metres, and `sign` that of the offset, from the one date to the other.
    """

    own: RasterSource
    other: RasterSource
    dates: Dates
    plane: CRS
    pixel_m: float
    offset: LayerOffset | None
    sign: int

    def shares(self, outlines: NDArray[np.object_]) -> Floats:
        """Return (n,) shares of what both dates show of (n,) buildings that have surely changed."""
        counts = np.zeros((2, len(outlines)), np.int64)
        side = _BLOCK_PX * self.pixel_m
        blocks: dict[tuple[int, int], list[int]] = defaultdict(list)
        spans = np.floor(shapely.bounds(outlines).reshape(-1, 4) / side).astype(np.int64)
        for number, (left, bottom, right, top) in enumerate(spans.tolist()):
            for row in range(bottom, top + 1):
                for col in range(left, right + 1):
                    blocks[row, col].append(number)
        for (row, col), numbers in sorted(blocks.items()):
            here = np.array(numbers)
            counts[:, here] += self._counted((col * side, (row + 1) * side), outlines[here])
        changed, seen = counts
        # A building without the centre of a pixel has no share that could be sure.
        return np.asarray(changed / np.maximum(seen, 1))

    def _counted(self, corner: tuple[float, float], outlines: NDArray[np.object_]) -> Ints:
        """Return (2, n) pixels of each building: surely changed, and seen at both dates."""
        size = self.pixel_m
        around = _AROUND_PX
        px = _BLOCK_PX + 2 * around
        left, top = corner[0] - around * size, corner[1] + around * size
        inner = np.s_[around:-around, around:-around]
        middle = np.array([[left + px * size / 2, top - px * size / 2]])
        east, north = (0, 0) if self.offset is None else self.sign * self.offset.at(middle)[0]
        probability, valid = self._read(self.own, (left, top), px)
        other, valid_other = self._read(self.other, (left + east, top + north), px)
        window = np.ones((2 * around + 1, 2 * around + 1), np.uint8)
        near = cv2.dilate((other >= self.dates.low).view(np.uint8), window) > 0
        seen = (valid & valid_other)[inner]
        changed = seen & (probability >= self.dates.high)[inner] & ~near[inner]
        numbers = rasterize(
            zip(outlines, range(1, len(outlines) + 1)), seen.shape, dtype=np.int32,
            transform=Affine(size, 0, corner[0], 0, -size, corner[1]),
        )  # fmt: skip
        count = len(outlines) + 1
        counts = [np.bincount(numbers[mask], minlength=count)[1:] for mask in (changed, seen)]
        return np.array(counts)

    def _read(
        self, source: RasterSource, corner: tuple[float, float], px: int
    ) -> tuple[NDArray[np.float32], BoolArray]:
        """Return (y, x) probabilities in 0..1 of a square, 0 where invalid, and their validity."""
        size = self.pixel_m
        grid = GeoGrid((px, px), Affine(size, 0, corner[0], 0, -size, corner[1]), self.plane)
        raster = warped(source, grid)
        scale = np.float32(255 if raster.data.dtype == np.uint8 else 1)
        return np.where(raster.valid, raster.data[0] / scale, 0).astype(np.float32), raster.valid


_WHOLE_SHARE = 0.95
"""Minimum share of a building's pixels that an image shows where the building can have changed: the
edge of the imagery cuts the new outline of any other."""

_KEPT = (SAME, SPLIT, MERGED)
"""Statuses that buildings keep which such an edge cuts, see `SideStatus.is_whole`."""

_SEAM_PX = 64
"""Pixels along each side of the bounds of a building that several images show in part."""

_DRAWN_PX, _MOST_PX = 2**24, 2**31
"""Number of pixels beyond which an overview, where there is one, is enough to draw the ground that
an image shows; and of those that are read at most where there is none."""

_READ_PX = 2048


@dataclass(frozen=True)
class ShownGround:
    """Ground that one date shows: valid pixels of images, or polygons.

    Args:
        images: Images; none where polygons tell it.
        observed: Polygons in degrees.
    """

    images: Sequence[RasterSource] = ()
    observed: shapely.Geometry | None = None

    @classmethod
    def of(cls, layer: BuildingLayer) -> ShownGround | None:
        """Return the ground that lies beside a layer; None where it is not known."""
        if layer.seen is not None:
            return cls((layer.seen,))
        return None if layer.observed is None else cls((), area_in_degrees(layer.observed))

    def close(self) -> None:
        """Close the images; a later read opens them again."""
        for image in self.images:
            close_source(image)

    def share(self, plane: CRS, outlines: Polygons) -> Floats:
        """Return (n,) share of each building on a plane that is seen."""
        if self.observed is not None:
            return _share_inside(self.observed, plane, outlines)
        return _seen_by_any(self.images, plane, outlines)

    def drawn(self, plane: CRS, advance: Callable[[int], None]) -> shapely.Geometry:
        """Return the ground on a plane, without specks of valid pixels or nodata."""
        if self.observed is not None:
            return _placed(self.observed, CRS84, plane)
        return shapely.union_all([_outline(image, plane, advance) for image in self.images])


def mark_outside(
    new: Side,
    old: Side,
    plane: CRS,
    shown: ShownGround | None,
    area_drawn: Area | None,
    shift: LayerOffset | None,
    before: ShownGround | None = None,
    *,
    joined: bool = False,
) -> bool:
    """Set the status of buildings on ground that was not seen.

    Args:
        new, old: Buildings and statuses of both layers; the statuses are changed.
        shown: Ground that the later date shows.
        shift: Offset of that ground from the old layer.
        before: Ground that the earlier date shows.
        joined: Whether to find the whole outlines of buildings that are the same or divided, too,
            for one layer of both.

    Returns:
        True if the earlier date does not show a building of the new layer, or shows it in part.
    """
    area = None if area_drawn is None else area_in_degrees(area_drawn)
    if area is not None:
        shapely.prepare(area)
        for index in in_steps(np.flatnonzero(new[1].status == NEW), _CHUNK):
            share = _share_inside(area, plane, new[0].unpack(index))
            new[1].status[index[share < _SEEN_SHARE]] = OUTSIDE
        # Matches beyond the area count as little as misses there.
        for index in in_steps(np.arange(len(old[0])), _CHUNK):
            share = _share_inside(area, plane, old[0].unpack(index))
            old[1].status[index[share < _SEEN_SHARE]] = OUTSIDE
        linked = np.flatnonzero((new[1].partner >= 0) & (new[1].status != NEW))
        beyond = old[1].status[new[1].partner[linked]] == OUTSIDE
        new[1].status[linked[beyond]] = OUTSIDE

    def seen_share(index: Ints) -> Floats:
        outlines = old[0].unpack(index)
        seen = np.ones(len(index))
        if area is not None:
            seen = _share_inside(area, plane, outlines)
        if shift is not None:
            outlines = shifted(outlines, shift.at(old[0].centre[index]))
        return seen if shown is None else np.minimum(seen, shown.share(plane, outlines))

    if shown is not None or area is not None:
        _set_seen(old[1], GONE, seen_share, joined=joined)
    _set_cut(new[1], old[1], old[1].status == OUTSIDE)
    if before is None:
        return False
    unseen = _set_seen(
        new[1], NEW, lambda index: before.share(plane, new[0].unpack(index)), joined=joined
    )
    # Outlines of NEW that were cut above hide nothing of OLD.
    _set_cut(old[1], new[1], unseen)
    return bool(unseen.any())


def _set_seen(
    side: SideStatus, alone: int, seen_share: Callable[[Ints], Floats], *, joined: bool
) -> BoolArray:
    """Set the status of buildings of which the other date shows too little; return (n,) which.

    Args:
        side: Statuses; they are changed.
        alone: `NEW` or `GONE`.
        seen_share: Function that returns the share of buildings that the other date shows.
    """
    unseen = np.zeros(len(side.status), np.bool_)
    for code, least in ((alone, _SEEN_SHARE), (CHANGED, _WHOLE_SHARE)):
        for index in in_steps(np.flatnonzero(side.status == code), _CHUNK):
            unseen[index] = seen_share(index) < least
    side.status[unseen] = OUTSIDE
    kept = np.isin(side.status, _KEPT) & side.is_linked & (side.overlap < _WHOLE_SHARE)
    for index in in_steps(np.flatnonzero(kept & joined), _CHUNK):
        side.is_whole[index] = seen_share(index) < _WHOLE_SHARE
    return unseen


def _set_cut(side: SideStatus, other: SideStatus, unseen: BoolArray) -> None:
    """Set the status of outlines that the edge of an image cuts: their partners are `unseen`."""
    part = np.isin(side.status, (NEW, GONE)) & side.is_covered
    index = np.flatnonzero(part | (side.status == CHANGED))
    index = index[unseen[side.partner[index]]]
    side.status[index] = OUTSIDE
    other.is_whole[side.partner[index[side.is_covered[index]]]] = True


def ground_of_both(
    dates: Sequence[ShownGround], area: Area | None, plane: CRS, progress: Progress
) -> Polygons:
    """Return (n,) the ground on a plane that all dates and the area show.

    Raises:
        RooftraceError: An image cannot be read, or has too many pixels and no overview.
    """
    shapes = [Window.whole(image.grid.shape) for date in dates for image in date.images]
    total, done = sum(shape.area_px for shape in shapes), 0

    def advance(px: int) -> None:
        nonlocal done
        done += px
        progress(done, total)

    grounds = [date.drawn(plane, advance) for date in dates]
    if area is not None:
        grounds.append(_placed(area_in_degrees(area), CRS84, plane))
    common = shapely.get_parts(shapely.intersection_all(grounds))
    return np.asarray(common[shapely.area(common) > 0], np.object_)


def _placed(ground: shapely.Geometry, crs: CRS, plane: CRS) -> shapely.Geometry:
    """Return ground on a plane, without parts that have no place there."""
    moved = reprojected(np.asarray(shapely.get_parts(ground), np.object_), crs, plane, BEND_M)
    finite = np.isfinite(shapely.bounds(moved).reshape(-1, 4)).all(axis=1)
    return shapely.union_all(shapely.make_valid(moved[finite]))


def _outline(source: RasterSource, plane: CRS, advance: Callable[[int], None]) -> shapely.Geometry:
    """Return the ground on a plane that an image shows; a large one by an overview."""
    whole, grid = Window.whole(source.grid.shape), source.grid
    overview = getattr(innermost(source), "read_overview", None)
    raster = None
    if overview is not None and whole.area_px > 4 * _DRAWN_PX:
        raster = overview(_DRAWN_PX, 8 * _DRAWN_PX)
    if raster is not None:
        rows, cols = raster.valid.shape
        grid = grid.resampled((rows, cols), (whole.height / rows, whole.width / cols))
    elif whole.area_px > _MOST_PX:
        raise TooLargeError(
            f"{source.name} has {whole.height:,} × {whole.width:,} pixels and no overviews.",
            remedy="Add overviews: gdaladdo IMAGE",
        )
    outline = ValidOutline(grid)
    for window in Window.whole(grid.shape).blocks(_READ_PX, _READ_PX):
        valid = source.read(window).valid if raster is None else raster.valid[window.slices()]
        outline.feed(window, np.where(valid, np.uint8(0), np.uint8(NODATA)))
        if raster is None:
            advance(window.area_px)
    assert grid.crs is not None
    return _placed(outline.finish(), grid.crs, plane)


def mark_outside_bounds(new: Side, old: Side) -> None:
    """Set the status of old buildings without a match outside the bounds of the new layer."""
    if not len(new[0]):
        return
    low, high = new[0].bounds[:, :2].min(axis=0), new[0].bounds[:, 2:].max(axis=0)
    gone = np.flatnonzero(old[1].status == GONE)
    inside = ((old[0].centre[gone] >= low) & (old[0].centre[gone] <= high)).all(axis=1)
    old[1].status[gone[~inside]] = OUTSIDE


def _share_inside(area: shapely.Geometry, plane: CRS, geometry: Polygons) -> Floats:
    """Return (n,) share of each building on the plane that lies in an area in degrees.

    The plane of the buildings has no place for ground that is far from them, such as the other half
    of the world, so that they are compared in degrees.
    """
    degrees = split_at_180(reprojected(geometry, plane, CRS84, crs_units(BEND_M, CRS84)))
    share = np.zeros(len(geometry))
    finite = np.flatnonzero(np.isfinite(shapely.bounds(degrees).reshape(-1, 4)).all(axis=1))
    share[finite] = shapely.contains_properly(area, degrees[finite])
    edge = finite[(share[finite] == 0) & shapely.intersects(area, degrees[finite])]
    common = shapely.area(shapely.intersection(degrees[edge], area))
    share[edge] = common / shapely.area(degrees[edge])
    return share


def _seen_by_any(sources: Sequence[RasterSource], plane: CRS, geometry: Polygons) -> Floats:
    """Return (n,) share of each building on the plane that at least one of the images shows."""
    shares = np.stack([_seen_share(source, plane, geometry) for source in sources])
    seen: Floats = shares.max(axis=0)
    # On the seam of images, each of them shows another part.
    for one in np.flatnonzero((seen < _WHOLE_SHARE) & ((shares > 0).sum(axis=0) > 1)).tolist():
        left, bottom, right, top = shapely.bounds(geometry[one]).tolist()
        transform = Affine((right - left) / _SEAM_PX, 0, left, 0, (bottom - top) / _SEAM_PX, top)
        grid = GeoGrid((_SEAM_PX, _SEAM_PX), transform, plane)
        drawn = rasterize([geometry[one]], grid.shape, transform=transform, all_touched=True) > 0
        parts = [sources[at] for at in np.flatnonzero(shares[:, one]).tolist()]
        visible = np.any([warped(part, grid, nearest=True).valid for part in parts], axis=0)
        seen[one] = max(seen[one], visible[drawn].mean())
    return seen


def _seen_share(source: RasterSource, plane: CRS, geometry: Polygons) -> Floats:
    """Return (n,) share of the pixels of each building on the plane that an image shows.

    Only the blocks of the image in which there are buildings are read. Nodata shows nothing.
    """
    grid = source.grid
    if grid.crs is None:
        raise GeoreferenceError(
            f"{source.name} has no coordinate system, so it does not say what was seen.",
            remedy=f"Draw the area that was seen, --area FILE. {placed_by(source)}",
        )
    seen, whole = np.zeros(len(geometry)), Window.whole(grid.shape)
    if outline_bounds(grid, plane) is None:
        return seen
    pixels = in_pixels(geometry, plane, grid)
    bounds = shapely.bounds(pixels).reshape(-1, 4)
    near = np.flatnonzero(
        np.isfinite(bounds).all(axis=1)
        & (bounds[:, 0] < grid.width) & (bounds[:, 2] > 0)
        & (bounds[:, 1] < grid.height) & (bounds[:, 3] > 0)
    )  # fmt: skip
    tree, is_across = shapely.STRtree(pixels[near]), np.ones(len(near), np.bool_)
    for window in whole.blocks(_READ_PX, _READ_PX):
        frame = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
        here = tree.query(frame, "covers")
        if not len(here):
            continue
        valid, is_across[here] = source.read(window).valid, False
        # Most images show most of their buildings as a whole; these need not be drawn.
        seen[near[here]] = 1.0
        for one in () if valid.all() else near[here].tolist():
            around = _around(bounds[one], window)
            seen[one] = _valid_share(valid[around.slices(window)], around, pixels[one])
    for one in near[is_across].tolist():
        around = _around(bounds[one], whole)
        seen[one] = _valid_share(source.read(around).valid, around, pixels[one])
    return seen


def _around(bounds: Floats, whole: Window) -> Window:
    """Return the pixels of a window that overlap the bounds of a building."""
    left, top, right, bottom = bounds.tolist()
    row, col = int(top), int(left)
    around = Window(row, col, math.ceil(bottom) - row + 1, math.ceil(right) - col + 1)
    inside = around.intersection(whole)
    assert inside is not None
    return inside


def _valid_share(valid: BoolArray, window: Window, outline: shapely.Geometry) -> float:
    """Return the valid share of a building's pixels, of which those beyond the window are not."""
    place = Affine.translation(window.col, window.row)
    drawn = rasterize([outline], window.shape_yx, transform=place, all_touched=True) > 0
    # Of a small building every pixel counts.
    pixels = max(int(drawn.sum()), math.floor(shapely.area(outline) * 0.95), 1)
    return int((valid & drawn).sum()) / pixels
