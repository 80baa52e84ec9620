"""What images say about statuses: which ground was seen, and which changes are sure.

Buildings on ground that was not seen are neither new nor gone, but `outside`. Of two dates of
imagery, a change counts only where the probabilities of both are sure of it: a pixel has surely
changed if its probability at one date is high, and at the other date low in all pixels around it.
Between the two limits the model is not sure. A different threshold, a shift by a pixel or another
resolution of the image are then no change.
"""

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
from pyproj import CRS

from rooftrace.core.arrays import in_steps
from rooftrace.core.errors import ConfigError, DataError, GeoreferenceError, GsdMismatch
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

_TOGETHER_PX = 256
"""Side of the squares of ground whose buildings are looked up together, in pixels."""

_MIN_PIXEL_M = 0.3
"""Minimum side in metres of the pixels in which two dates are compared: models see no more detail,
and dates do not fit more exactly."""

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
            share, shift = np.full(len(packed), np.nan), np.zeros((len(packed), 2))
            if offset is not None:
                shift = sign * offset.at(packed.centre)
            for index in in_steps(np.flatnonzero(~np.isin(status.status, (SAME, OUTSIDE))), _CHUNK):
                outlines, view = packed.unpack(index), (own, there, dates, plane, pixel_m)
                for near in _neighbours(outlines, pixel_m):
                    at = index[near]
                    share[at] = _sure_shares(outlines[near], *view, shift[at].mean(axis=0))
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


def _neighbours(outlines: Polygons, pixel_m: float) -> list[Ints]:
    """Return the numbers of (n,) buildings by squares of ground, whose pixels are read together."""
    corners = shapely.bounds(outlines).reshape(-1, 4)[:, :2] // (_TOGETHER_PX * pixel_m)
    _, square = np.unique(corners, axis=0, return_inverse=True)
    order = np.argsort(square, kind="stable")
    return np.split(order, np.cumsum(np.bincount(square))[:-1])


def _sure_shares(
    outlines: Polygons, own: RasterSource, other: RasterSource, dates: Dates, plane: CRS,
    pixel_m: float, shift: Floats,
) -> Floats:  # fmt: skip
    """Return the (n,) share of what both dates show of each building that has surely changed.

    Args:
        outlines: (n,) neighbours.
        own, other: Probabilities of the date of the buildings, and of the other date.
        pixel_m: Side of the pixels in metres.
        shift: (2,) offset in metres from the one date to the other.
    """
    size, around = pixel_m, _AROUND_PX
    low, high = np.split(shapely.bounds(outlines).reshape(-1, 4) / size, 2, axis=1)
    first, last = np.floor(low).astype(int), np.ceil(high).astype(int)
    (col, bottom), (right, row) = first.min(axis=0) - around, last.max(axis=0) + around

    def read(source: RasterSource, east: float, north: float) -> tuple[Floats, BoolArray]:
        """Return (y, x) probabilities in 0..1, 0 where invalid, and their validity."""
        place = Affine(size, 0, col * size + east, 0, -size, row * size + north)
        raster = warped(source, GeoGrid((row - bottom, right - col), place, plane))
        scale = np.float32(255 if raster.data.dtype == np.uint8 else 1)
        return np.where(raster.valid, raster.data[0] / scale, 0), raster.valid

    probability, valid = read(own, 0.0, 0.0)
    probability_other, valid_other = read(other, *shift.tolist())
    window = np.ones((2 * around + 1, 2 * around + 1), np.uint8)
    near = cv2.dilate((probability_other >= dates.low).view(np.uint8), window) > 0
    seen = valid & valid_other
    changed = seen & (probability >= dates.high) & ~near
    shares = np.zeros(len(outlines))
    for number, outline in enumerate(outlines):
        (left, low_row), (end, top) = first[number].tolist(), last[number].tolist()
        place = Affine(size, 0, left * size, 0, -size, top * size)
        inside = rasterize([outline], (top - low_row, end - left), transform=place) > 0
        part = np.s_[row - top : row - low_row, left - col : end - col]
        # A building without the centre of a pixel has no share that could be sure.
        shares[number] = (changed[part] & inside).sum() / max((seen[part] & inside).sum(), 1)
    return shares


_WHOLE_SHARE = 0.95
"""Minimum share of a building that an image shows where the building can have changed: the edge of
the imagery cuts the new outline of any other."""

_KEPT = (SAME, SPLIT, MERGED)
"""Statuses that buildings keep which such an edge cuts, see `SideStatus.is_whole`."""

_LARGE_PX, _OVERVIEW_PX = 2**30, (2**25, 2**27)
"""Number of pixels beyond which an overview, where there is one, tells the ground that an image
shows; and minimum and maximum number of pixels of the overview."""

_READ_PX = 2048
_MOST_CORNERS = 256
_LEAST_HOLE_PX = 64
"""Minimum number of pixels of nodata that can hide a building, such as a white roof."""


def shown_ground(
    images: Sequence[RasterSource], progress: Progress
) -> tuple[shapely.Geometry, list[str]]:
    """Return the ground that images show, in degrees, without specks of valid pixels or nodata.

    A note says where damage hides some.

    Raises:
        GeoreferenceError: An image has no coordinate system.
        DataError: Nothing of an image can be read.
    """
    grounds: list[shapely.Geometry] = [shapely.Polygon()]
    notes: list[str] = []
    for number, image in enumerate(images):
        whole, grid, raster = Window.whole(image.grid.shape), image.grid, None
        if grid.crs is None:
            raise GeoreferenceError(
                f"{image.name} has no coordinate system, so it does not say what was seen.",
                remedy=f"Draw the area that was seen, --area FILE. {placed_by(image)}",
            )
        overview = getattr(innermost(image), "read_overview", None)
        if overview is not None and whole.area_px > _LARGE_PX:
            raster = overview(*_OVERVIEW_PX)
        if raster is not None:
            rows, cols = raster.valid.shape
            grid = grid.resampled((rows, cols), (whole.height / rows, whole.width / cols))
        outline = ValidOutline(grid, _LEAST_HOLE_PX)
        blocks = [*Window.whole(grid.shape).blocks(_READ_PX, _READ_PX)]
        damage: list[DataError] = []
        for at, window in enumerate(blocks, 1):
            try:
                part = image.read(window).valid if raster is None else raster.valid[window.slices()]
            except DataError as error:
                part = np.zeros(window.shape_yx, np.bool_)
                damage.append(error)
            outline.feed(window, np.where(part, np.uint8(0), np.uint8(NODATA)))
            progress(number * len(blocks) + at, len(images) * len(blocks))
        close_source(image)
        if len(damage) == len(blocks):
            raise damage[0]
        if damage:
            count = plural(len(damage), "block")
            notes.append(f"{damage[0].message} The ground of {count} counts as not seen.")
        polygons = np.asarray(shapely.get_parts(outline.finish()), np.object_)
        if len(polygons):
            grounds.append(area_in_degrees(Area(polygons, grid.crs, image.name)))
    return shapely.union_all(grounds), notes


def mark_outside(
    new: Side,
    old: Side,
    plane: CRS,
    shown: shapely.Geometry | None,
    area: shapely.Geometry | None,
    shift: LayerOffset | None,
    before: shapely.Geometry | None = None,
    *,
    joined: bool = False,
) -> bool:
    """Set the status of buildings on ground that was not seen.

    Args:
        new, old: Buildings and statuses of both layers; the statuses are changed.
        shown: Ground that the later date shows, in degrees.
        area: Ground that is compared, in degrees.
        shift: Offset of the shown ground from the old layer.
        before: Ground that the earlier date shows, in degrees.
        joined: Whether to find the whole outlines of buildings that are the same or divided, too,
            for one layer of both.

    Returns:
        True if the earlier date does not show a building of the new layer, or shows it in part.
    """
    inside, seen_now, seen_before = (
        None if ground is None else shapely.STRtree(_pieces(ground))
        for ground in (area, shown, before)
    )
    if inside is not None:
        for index in in_steps(np.flatnonzero(new[1].status == NEW), _CHUNK):
            share = _share_inside(inside, plane, new[0].unpack(index))
            new[1].status[index[share < _SEEN_SHARE]] = OUTSIDE
        # Matches beyond the area count as little as misses there.
        for index in in_steps(np.arange(len(old[0])), _CHUNK):
            share = _share_inside(inside, plane, old[0].unpack(index))
            old[1].status[index[share < _SEEN_SHARE]] = OUTSIDE
        linked = np.flatnonzero((new[1].partner >= 0) & (new[1].status != NEW))
        beyond = old[1].status[new[1].partner[linked]] == OUTSIDE
        new[1].status[linked[beyond]] = OUTSIDE

    def seen_share(index: Ints) -> Floats:
        outlines = old[0].unpack(index)
        seen = np.ones(len(index))
        if inside is not None:
            seen = _share_inside(inside, plane, outlines)
        if shift is not None:
            outlines = shifted(outlines, shift.at(old[0].centre[index]))
        if seen_now is None:
            return seen
        return np.minimum(seen, _share_inside(seen_now, plane, outlines))

    if seen_now is not None or inside is not None:
        _set_seen(old[1], GONE, seen_share, joined=joined)
    _set_cut(new[1], old[1], old[1].status == OUTSIDE)
    if seen_before is None:
        return False
    unseen = _set_seen(
        new[1],
        NEW,
        lambda index: _share_inside(seen_before, plane, new[0].unpack(index)),
        joined=joined,
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


def ground_on(plane: CRS, grounds: Sequence[shapely.Geometry]) -> Polygons:
    """Return (n,) the ground on a plane that all of several in degrees have in common.

    Parts that have no place there are left out.
    """
    common = np.asarray(shapely.get_parts(shapely.intersection_all(grounds)), np.object_)
    moved = reprojected(common, CRS84, plane, BEND_M)
    finite = np.isfinite(shapely.bounds(moved).reshape(-1, 4)).all(axis=1)
    parts = shapely.get_parts(shapely.union_all(shapely.make_valid(moved[finite])))
    return np.asarray(parts[shapely.area(parts) > 0], np.object_)


def mark_outside_bounds(new: Side, old: Side) -> None:
    """Set the status of old buildings without a match outside the bounds of the new layer."""
    if not len(new[0]):
        return
    low, high = new[0].bounds[:, :2].min(axis=0), new[0].bounds[:, 2:].max(axis=0)
    gone = np.flatnonzero(old[1].status == GONE)
    inside = ((old[0].centre[gone] >= low) & (old[0].centre[gone] <= high)).all(axis=1)
    old[1].status[gone[~inside]] = OUTSIDE


def _pieces(ground: shapely.Geometry) -> Polygons:
    """Return ground as polygons of few corners, each of which is intersected fast."""
    pieces, rest = [], np.asarray(shapely.get_parts(ground), np.object_)
    while len(rest):
        few = shapely.get_num_coordinates(rest) <= _MOST_CORNERS
        pieces.append(rest[few])
        rest = rest[~few]
        left, bottom, right, top = shapely.bounds(rest).reshape(-1, 4).T
        wide = right - left > top - bottom
        x, y = np.where(wide, (left + right) / 2, right), np.where(wide, top, (bottom + top) / 2)
        halves = (
            shapely.box(left, bottom, x, y),
            shapely.box(np.where(wide, x, left), np.where(wide, bottom, y), right, top),
        )
        cut = np.concatenate([shapely.intersection(rest, half) for half in halves])
        rest = np.asarray(shapely.get_parts(cut), np.object_)
        rest = rest[shapely.area(rest) > 0]
    return np.concatenate([np.zeros(0, np.object_), *pieces])


def _share_inside(ground: shapely.STRtree, plane: CRS, geometry: Polygons) -> Floats:
    """Return (n,) share of each building on the plane that lies in pieces of ground in degrees.

    The plane of the buildings has no place for ground that is far from them, such as the other half
    of the world, so that they are compared in degrees.
    """
    degrees = split_at_180(reprojected(geometry, plane, CRS84, crs_units(BEND_M, CRS84)))
    finite = np.flatnonzero(np.isfinite(shapely.bounds(degrees).reshape(-1, 4)).all(axis=1))
    own, piece = ground.query(degrees[finite], "intersects")
    own = finite[own]
    common = shapely.area(shapely.intersection(degrees[own], ground.geometries[piece]))
    # Of a building that is seen whole, sums of parts may be less than 1 by rounding.
    return np.bincount(own, common, len(degrees)) / shapely.area(degrees)
