"""Results of `rooftrace compare`: layers with statuses, one layer of both, and the page."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shapely
from affine import Affine
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image, ImageColor
from pyproj import CRS

from rooftrace.core.arrays import in_steps
from rooftrace.core.errors import RooftraceError
from rooftrace.core.parallel import core_count
from rooftrace.core.text import plural
from rooftrace.core.types import BoolArray, Floats, GeoGrid, Ints, Polygons, Raster, RasterSource
from rooftrace.flows.compare.inputs import ORIGINS, BuildingLayer
from rooftrace.flows.compare.options import Keep
from rooftrace.io.gdal import rasterize
from rooftrace.io.html import render_page
from rooftrace.io.legend import STATUS_COLOURS
from rooftrace.io.make_valid import make_polygons_valid, valid_by_structure
from rooftrace.io.picture import PAPER, as_rgb, data_url, encoded, map_page
from rooftrace.io.reproject import BEND_M, crs_units, reprojected
from rooftrace.io.resample import warped
from rooftrace.io.vector_exports import TO_ADD
from rooftrace.io.vector_layers import text_column
from rooftrace.io.vector_write import free_names, write_layer
from rooftrace.io.vector_writers import LayerChunk, LayerSettings
from rooftrace.vector.compare import (
    CHANGED,
    GONE,
    MAP_WORDS,
    MERGED,
    MOVED,
    NEW,
    OUTSIDE,
    SAME,
    SPLIT,
    STATUSES,
    SideStatus,
)
from rooftrace.vector.deduplicate import SAME_SHARE, keep_best
from rooftrace.vector.match import PackedPolygons, find_overlaps

REVIEWED = (CHANGED, MOVED, SPLIT, MERGED, NEW, GONE)
"""Statuses of buildings that need a look; a changed one has both outlines."""

COLOURS = {name: STATUS_COLOURS[name] for name in STATUSES}

_CHUNK = 50_000
_RESERVED = ("fid", "geom", "geometry")
_OWN_COLUMNS = ("compare_layer", "compare_status", "compare_old_id", "compare_score", *ORIGINS)
_PAIRED = (SAME, CHANGED, MOVED)


@dataclass(frozen=True)
class ComparedSide:
    """One of two layers, with the statuses of its buildings.

    Args:
        name: `new` or `old`.
        packed: Its buildings on the plane of the comparison, without the offset if it was removed.
        change_share: (n,) share of each building that has surely changed, of two dates of imagery.
    """

    name: Literal["new", "old"]
    layer: BuildingLayer
    packed: PackedPolygons
    statuses: SideStatus
    is_shifted: bool = False
    change_share: Floats | None = None


@dataclass(frozen=True)
class Compared:
    """Two layers of buildings with their statuses.

    Args:
        plane: The plane of the comparison, in metres.
        is_map: True if the old layer is a map of the same time, see `MAP_WORDS`.
    """

    new: ComparedSide
    old: ComparedSide
    plane: CRS
    is_map: bool = False

    def word(self, status: str) -> str:
        """Return the name of a status in the results."""
        return MAP_WORDS.get(status, status) if self.is_map else status

    @property
    def crs(self) -> CRS:
        """Coordinate system of the results: that of the old layer, if it has buildings."""
        return self.old.layer.crs if len(self.old.layer) else self.new.layer.crs

    @property
    def is_multi(self) -> bool:
        """True if a building is a multipolygon."""
        layers = [side.layer for side in (self.new, self.old)]
        shifted = (self.new.packed,) if self.new.is_shifted else ()
        return any(layer.outlines.is_multi.any() for layer in (*layers, *shifted))

    @cached_property
    def to_add(self) -> BoolArray:
        """(n,) True for buildings of NEW that a map lacks: new, not upon one of the map, not cut by
        the edge of the imagery unless a review kept it, and the best one of several outlines.
        """
        added: BoolArray = (self.new.statuses.status == NEW) & ~self.new.statuses.is_linked
        if (cut := self.new.layer.column("cut", "b")) is not None:
            at = np.flatnonzero(added & np.ma.filled(cut, False))
            added[at] = False
            if "review" in self.new.layer.attributes:
                review = self.new.layer.values("review", at)
                added[at] = np.isin(review, ("accepted", "changed", "added"))
        chosen = np.flatnonzero(added)
        added[chosen] = ~_is_repeated(self, chosen)
        return added

    def outlines(self, side: ComparedSide, index: Ints) -> Polygons:
        """Return some buildings of a side in the coordinate system of the results.

        Those that were neither shifted nor reprojected have their own coordinates.
        """
        if side.is_shifted:
            geometry, crs = side.packed.unpack(index), self.plane
        else:
            geometry, crs = side.layer.outlines.unpack(index), side.layer.crs
        placed = reprojected(geometry, crs, self.crs, crs_units(BEND_M, self.crs))
        multi = shapely.get_type_id(placed) == shapely.GeometryType.MULTIPOLYGON
        invalid = multi & ~shapely.is_valid(placed)
        placed[invalid] = valid_by_structure(placed[invalid])
        placed[~multi] = make_polygons_valid(placed[~multi])
        return placed

    def columns(self, side: ComparedSide, index: Ints) -> dict[str, NDArray[Any]]:
        """Return the attributes of some buildings of a side."""
        packed, status, is_new = side.packed, side.statuses, side.name == "new"
        other = self.old if is_new else self.new
        partner = status.partner[index]
        has, is_pair = partner >= 0, np.isin(status.status[index], _PAIRED)
        partner_id = np.full(len(index), None, np.object_)
        partner_id[has] = other.layer.ids_of(partner[has])
        ratio, east, north = (np.full(len(index), np.nan) for _ in range(3))
        area, area_other = packed.area[index[has]], other.packed.area[partner[has]]
        ratio[has] = area / area_other if is_new else area_other / area
        pair = np.flatnonzero(has & is_pair)
        shift = packed.centre[index[pair]] - other.packed.centre[partner[pair]]
        east[pair], north[pair] = (shift if is_new else -shift).T
        overlaps = {
            name: np.where(has, getattr(status, name)[index], np.nan)
            for name in ("iou", "overlap", "overlap_other")
        }
        share = side.change_share
        nothing = np.ma.MaskedArray(np.zeros(len(index), np.bool_), True)
        flags = {
            name: flag[index] if is_new else nothing
            for name, flag in (("cut", self.new.layer.column("cut", "b")), (TO_ADD, self.to_add))
            if flag is not None
        }
        pair_heights: dict[str, NDArray[Any]] = {}
        tall, tall_other = (one.layer.column("height", "iuf") for one in (side, other))
        if tall is not None and tall_other is not None:
            own = np.ma.filled(tall[index].astype(np.float64), np.nan)
            change = np.full(len(index), np.nan)
            change[has] = own[has] - np.ma.filled(tall_other[partner[has]].astype(float), np.nan)
            change = (change if is_new else -change).round(2) + 0.0
            pair_heights = {"height": own, "height_change": change}
        return {
            "side": np.full(len(index), side.name, np.object_), "id": side.layer.ids_of(index),
            "status": np.array([*map(self.word, STATUSES)], np.object_)[status.status[index]],
            "partner_id": partner_id, **overlaps, "offset_m": np.hypot(east, north),
            "offset_east_m": east, "offset_north_m": north, "area_m2": packed.area[index],
            "area_ratio": ratio, "score": side.layer.score[index].astype(np.float64), **flags,
            **pair_heights, **({} if share is None else {"change_share": share[index]}),
        }  # fmt: skip

    def chunks(self, statuses: Sequence[int]) -> Iterator[LayerChunk]:
        """Yield the buildings with one of the statuses, first those of the new layer."""
        # So that a layer without buildings has its columns.
        yield LayerChunk(np.zeros(0, np.object_), self.columns(self.new, np.zeros(0, np.int64)))
        for side in (self.new, self.old):
            chosen = np.flatnonzero(np.isin(side.statuses.status, statuses))
            for index in in_steps(chosen, _CHUNK):
                yield LayerChunk(self.outlines(side, index), self.columns(side, index))


def write_sides(path: Path, compared: Compared, statuses: Sequence[int]) -> None:
    """Write the buildings of both layers that have one of the statuses."""
    settings = LayerSettings(compared.crs, multi=compared.is_multi, colours=COLOURS)
    write_layer(path, settings, compared.chunks(statuses))


def write_conflated(
    path: Path, compared: Compared, keep: Keep
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Write one layer of both without duplicates, with the old layer's attributes.

    Returns:
        Number of buildings with the outline of each layer; and notes on new ones left out because
        a better one of the new layer shows the same building, and on ids without a row of their
        own.
    """
    from_new, from_old = _chosen(compared, keep)
    repeated = _is_repeated(compared, np.flatnonzero(from_new))
    from_new[np.flatnonzero(from_new)[repeated]] = False
    old, new = compared.old, compared.new
    joined = _joined(compared, from_new, from_old)

    def chunks() -> Iterator[LayerChunk]:
        nothing = np.zeros(0, np.int64)
        yield LayerChunk(np.zeros(0, np.object_), _attributes(compared, old, nothing, joined))
        for side, chosen in ((old, from_old), (new, from_new)):
            for index in in_steps(np.flatnonzero(chosen), _CHUNK):
                columns = _attributes(compared, side, index, joined)
                yield LayerChunk(compared.outlines(side, index), columns)

    settings = LayerSettings(compared.crs, multi=compared.is_multi, colours=COLOURS)
    write_layer(path, settings, chunks())
    rows = np.bincount(_old_of(new, np.flatnonzero(from_new)) + 1, minlength=1)[1:]
    buildings = "building of {0} is", "buildings of {0} are"
    said = (
        (repeated.sum(), "NEW", "left out: better outlines of NEW show the same"),
        (sum(map(len, joined.values())), "OLD",
         "joined with another one in an outline of NEW; compare_old_id lists all ids"),
        ((rows > 1).sum(), "OLD", "divided by NEW; the rows of the pieces have the same id"),
    )  # fmt: skip
    notes = tuple(
        f"{path.name}: {plural(int(count), *buildings).format(side)} {what}."
        for count, side, what in said
        if count
    )
    return {"old": int(from_old.sum()), "new": int(from_new.sum())}, notes


def _joined(compared: Compared, from_new: BoolArray, from_old: BoolArray) -> dict[int, list[int]]:
    """Return further old buildings that a written new outline replaces, beside its partner."""
    status = compared.old.statuses
    partner = status.partner
    lies_in = (status.status != GONE) | status.is_covered
    gone = np.flatnonzero(~from_old & lies_in & (partner >= 0))
    gone = gone[from_new[partner[gone]]]
    joined: dict[int, list[int]] = {}
    for old in gone[_old_of(compared.new, partner[gone]) != gone].tolist():
        joined.setdefault(int(partner[old]), []).append(old)
    return joined


def _old_of(new: ComparedSide, index: Ints) -> Ints:
    """Return the old building whose attributes each of some new ones has; -1 without one."""
    status = new.statuses
    has_old = np.isin(status.status[index], (SAME, CHANGED, MOVED, SPLIT, MERGED))
    has_old |= status.is_whole[index]
    return np.where(has_old, status.partner[index], -1)


def _is_repeated(compared: Compared, chosen: Ints) -> BoolArray:
    """Return (n,) True for new buildings that a better one of the chosen ones shows, too.

    Two show the same building if they share at least half of the smaller one. A building with a
    partner of its own in the old layer comes before one without, then the one with the higher
    score, then the larger one. Those with such a partner are never left out, so that a layer that
    overlaps itself on both sides loses no id.
    """
    packed, status = compared.new.packed, compared.new.statuses
    packed = packed.take(chosen)
    pairs = find_overlaps(packed, packed, core_count())
    pairs = pairs.where(np.maximum(pairs.share, pairs.share_other) >= SAME_SHARE)
    one, other = pairs.one, pairs.other
    partner = status.partner[chosen]
    has = partner >= 0
    paired = has & (status.status[chosen] == SPLIT)
    paired[has] |= compared.old.statuses.partner[partner[has]] == chosen[has]
    rank = np.empty(len(chosen), np.int64)
    score = np.nan_to_num(compared.new.layer.score[chosen], nan=-1.0)
    rank[np.lexsort((-packed.area, -score, ~paired))] = np.arange(len(chosen))
    contested = ~(paired[one] & paired[other])
    best = keep_best(rank, one[contested], other[contested])
    return np.asarray(best != np.arange(len(chosen)))


def _chosen(compared: Compared, keep: Keep) -> tuple[BoolArray, BoolArray]:
    """Return the buildings whose outlines are written, of the new and of the old layer."""
    new, old = compared.new.statuses, compared.old.statuses
    # The edge of one date's image cuts an outline that the other layer has as a whole.
    cut = ((new.status == OUTSIDE) & new.is_linked) | _has_whole(new, old)
    cut &= ~new.is_whole
    part = _has_whole(old, new) & old.is_covered
    added = (new.status == NEW) | ((new.status == OUTSIDE) & ~cut)
    if keep == "old":
        # A new hall over an old shed, or a house in the place of a hall, would lie upon it.
        return added & ~new.is_linked, np.ones(len(old.status), np.bool_)
    if keep == "new":
        # Of two dates, a building of the old one alone may still be there.
        kept = (old.status == OUTSIDE) | ((old.status == SAME) & (old.partner < 0)) | old.is_whole
        has = np.flatnonzero((old.partner >= 0) & (old.status != GONE))
        kept[has] |= cut[old.partner[has]]
        return ~cut, kept & ~part
    # A building may have changed into one that is the same as yet another one: it is not replaced.
    # Nor is one of several that a new one covers in part.
    has = np.flatnonzero(new.partner >= 0)
    mutual = np.zeros(len(new.status), np.bool_)
    mutual[has] = (old.partner[new.partner[has]] == has) & (old.status[new.partner[has]] != GONE)
    written = added | np.isin(new.status, (MOVED, SPLIT, MERGED))
    written |= ((new.status == CHANGED) & mutual) | new.is_whole
    written &= ~cut
    replaced = np.isin(old.status, (CHANGED, MOVED, SPLIT, MERGED))
    # One that is gone is replaced by those that stand in its place, and by one above it.
    replaced |= (old.status == GONE) & old.is_covered
    replaced[replaced] = written[old.partner[replaced]]
    above = np.flatnonzero((new.status == NEW) & new.is_covered)
    replaced[new.partner[above]] = True
    return written, ~(replaced | part)


def _has_whole(side: SideStatus, other: SideStatus) -> BoolArray:
    """Return (n,) True for buildings of which the other layer has the whole outline, or a piece."""
    has = side.partner >= 0
    has[has] = other.is_whole[side.partner[has]]
    whole = np.flatnonzero(other.is_whole & (other.partner >= 0))
    has[other.partner[whole]] = True
    return has


_NULLS = {"f": np.nan, "M": np.datetime64("NaT"), "O": None}
"""Null by kind of values; null is masked where a kind has none."""


def _attributes(
    compared: Compared, side: ComparedSide, index: Ints, joined: Mapping[int, list[int]]
) -> dict[str, NDArray[Any]]:
    """Return the attributes of the old layer; a new building has those of its partner.

    Its `compare_old_id` has the ids of those that it replaces beside the partner, too.
    """
    status, old = side.statuses, compared.old.layer
    of_old = index if side.name == "old" else _old_of(side, index)
    is_old = of_old >= 0
    columns: dict[str, NDArray[Any]] = {}
    # Columns of an earlier comparison are replaced, so that repeated ones add no columns.
    repeated = [name for name in old.attributes if name in _OWN_COLUMNS]
    others = [name for name in old.attributes if name not in _OWN_COLUMNS]
    names = dict(zip(repeated, repeated))
    names |= free_names(others, {*_RESERVED, *_OWN_COLUMNS}, "old_")
    for name, values in old.attributes.items():
        column = old.values(name, of_old if len(values) else np.zeros(0, np.int64))
        # Without an old building, there is no row to take.
        column = column if len(values) else np.zeros(len(of_old), column.dtype)
        if column.dtype.kind in "ib":
            column = np.ma.MaskedArray(column, np.ma.getmaskarray(column) | ~is_old)
        else:
            column[~is_old] = _NULLS[column.dtype.kind]
            if old.building and name == old.building[0]:
                # Without it, a new building would not be read as one.
                column[~is_old] = old.building[1]
        columns[names[name]] = column
    old_id = np.full(len(index), None, np.object_)
    old_id[is_old] = old.ids_of(of_old[is_old])
    if side.name == "new":
        for row in np.flatnonzero(np.isin(index, [*joined])).tolist():
            further = old.ids_of(np.array(joined[int(index[row])])).tolist()
            old_id[row] = ";".join(filter(None, [old_id[row], *further]))
    for name, attribute in ORIGINS.items():
        new = compared.new.layer
        is_known = attribute in new.attributes
        if not is_known and name not in columns and name != "compare_source":
            continue
        # An old outline keeps the origin that an earlier comparison gave it; a new one has its own.
        if side.name == "new":
            unknown = np.full(len(index), Path(new.name).name if name == "compare_source" else None)
            columns[name] = new.values(attribute, index) if is_known else unknown
        columns[name] = _origin_texts(columns.get(name, np.full(len(index), None)))
    return columns | {
        "compare_layer": np.full(len(index), side.name, np.object_),
        "compare_status": np.array(STATUSES, np.object_)[status.status[index]],
        "compare_old_id": old_id,
        "compare_score": side.layer.score[index].astype(np.float64),
    }


def _origin_texts(values: NDArray[Any]) -> NDArray[np.object_]:
    """Return dates and sources as texts or None: GDAL reads dates in a GeoJSON as such."""
    texts = text_column(values.astype("M8[D]") if values.dtype.kind == "M" else values)
    texts[texts == ""] = None
    return texts


@dataclass(frozen=True)
class StatusRow:
    """Buildings with one status.

    Args:
        new_m2, old_m2: Their area in square metres.
    """

    new: int
    old: int
    new_m2: float
    old_m2: float


def status_table(compared: Compared) -> dict[str, StatusRow]:
    """Return the numbers and areas of the buildings by status."""
    sides = [(side.statuses.status, side.packed.area) for side in (compared.new, compared.old)]
    counts = [np.bincount(codes, minlength=len(STATUSES)) for codes, _ in sides]
    areas = [np.bincount(*side, len(STATUSES)).round(1) for side in sides]
    return dict(zip(STATUSES, map(StatusRow, *(one.tolist() for one in (*counts, *areas)))))


MEANINGS = {
    "same": "in both layers, mostly on the same ground; extensions may be among them",
    "changed": "in both layers, with another outline",
    "moved": "in both layers, with one shape at another place",
    "split": "one old building, several new ones",
    "merged": "several old buildings, one new one",
    "new": "in the new layer only, for more than 80 % of its area, or in place of one that is gone",
    "gone": "in the old layer only, for more than 80 % of it, or replaced, on ground that was seen",
    "outside": "on ground that was not seen, or that was seen in part",
}

MAP_MEANINGS = {
    "split": "one building of the map, several found",
    "merged": "several buildings of the map, one found",
    "new": "found, and not in the map, or less than 20 % of it",
    "gone": "in the map, and not found on ground that was seen, or less than 20 % of it",
}

_LONGEST_PX = 1600

_EXAMPLES = 6
"""Maximum number of buildings of each status that are drawn."""

_EXAMPLE_PX = 150
_UNSEEN = np.uint8(110)
"""Grey of nodata in examples, on which the outlines of every status are seen."""

_MIN_EXAMPLE_M = 25.0
"""Minimum side of the ground that an example shows, in metres."""

_MAX_NEIGHBOURS = 60
_LOOKED_AT = 100
_WHITE = 200
"""Smallest of red, green and blue from which ground looks like a cloud."""

_MARGIN = 0.02


def comparison_page(
    figures: Mapping[str, Any], compared: Compared, images: Sequence[RasterSource] = ()
) -> str:
    """Return the whole page as a string for UTF-8."""
    titles = [Path(figures[side]).name for side in ("new", "old")]
    layers = (compared.new.layer, compared.old.layer)
    origins = (", ".join(filter(None, (one.source, one.date))) for one in layers)
    shown = [f"{title}: {origin}" for title, origin in zip(titles, origins) if origin]
    return render_page(
        "compare.html",
        {},
        figures=figures,
        titles=titles,
        origins=shown,
        colours=COLOURS,
        meanings=MEANINGS | (MAP_MEANINGS if compared.is_map else {}),
        word=compared.word,
        sides=["found", "map"] if compared.is_map else ["new layer", "old layer"],
        map=_map(compared, " compared with ".join(titles), "; ".join(shown)),
        examples=_examples(compared, images),
    )


def _examples(compared: Compared, images: Sequence[RasterSource]) -> list[tuple[str, list[Markup]]]:
    """Return drawings of the largest buildings of each status that needs a look."""
    new, old, examples = compared.new, compared.old, []
    for code, side in (
        (NEW, new), (GONE, old), (CHANGED, new), (MOVED, new), (SPLIT, old), (MERGED, new),
    ):  # fmt: skip
        largest = _largest_first(side, (code,))[:_EXAMPLES]
        if len(largest):
            drawn = [_example(compared, bounds, images) for bounds in side.packed.bounds[largest]]
            examples.append((compared.word(STATUSES[code]), drawn))
    return examples


def _largest_first(side: ComparedSide, statuses: Sequence[int]) -> Ints:
    """Return the buildings with one of the statuses."""
    chosen = np.flatnonzero(np.isin(side.statuses.status, statuses))
    return chosen[np.argsort(-side.packed.area[chosen], kind="stable")]


def _example(compared: Compared, bounds: Floats, images: Sequence[RasterSource]) -> Markup:
    """Draw the buildings of both layers around the bounds of one of them, over the image."""
    middle = (bounds[:2] + bounds[2:]) / 2
    side_m = max(float((bounds[2:] - bounds[:2]).max()) * 1.5, _MIN_EXAMPLE_M)
    low, high = middle - side_m / 2, middle + side_m / 2
    parts = [_backdrop(images, compared.plane, low, side_m)]
    for side, kind in ((compared.new, "now"), (compared.old, "before")):
        packed, status = side.packed, side.statuses.status
        near = (packed.bounds[:, :2] < high).all(axis=1) & (packed.bounds[:, 2:] > low).all(axis=1)
        index = np.flatnonzero(near)[:_MAX_NEIGHBOURS]
        for outline, code in zip(packed.unpack(index), status[index].tolist()):
            path = ""
            for ring in shapely.get_rings(shapely.get_parts(outline)):
                share = (shapely.get_coordinates(ring) - low) / side_m * _EXAMPLE_PX
                path += f"M{' '.join(f'{x:.1f},{_EXAMPLE_PX - y:.1f}' for x, y in share)}Z"
            colour = COLOURS[STATUSES[code]]
            style = f"fill:{colour}" if kind == "now" else f"stroke:{colour}"
            parts.append(f'<path class="{kind}" style="{style}" d="{path}"/>')
    # Made from numbers and this module's own colours.
    return Markup(  # noqa: S704  # nosec B704
        f'<svg class="example" viewBox="0 0 {_EXAMPLE_PX} {_EXAMPLE_PX}" role="img" '
        f'aria-label="{side_m:.0f} m around {middle[0]:.0f}, {middle[1]:.0f}">'
        f"<title>{side_m:.0f} m around {middle[0]:.0f}, {middle[1]:.0f}</title>"
        f"{''.join(parts)}</svg>"
    )


def _backdrop(images: Sequence[RasterSource], plane: CRS, low: Floats, side_m: float) -> str:
    """Return what the first image that shows a square of ground shows there; "" if none does."""
    try:
        raster = _shown(images, plane, low, side_m, 2 * _EXAMPLE_PX)
    except RooftraceError:
        return '<text x="4" y="12">image cannot be read here</text>'
    if raster is None:
        return ""
    rgb = as_rgb(raster.data, raster.valid)
    picture = Image.fromarray(np.where(raster.valid[..., None], rgb, _UNSEEN))
    size = f'width="{_EXAMPLE_PX}" height="{_EXAMPLE_PX}"'
    return f'<image {size} href="{data_url(encoded(picture, "jpeg", quality=75))}"/>'


def _shown(
    images: Sequence[RasterSource], plane: CRS, low: Floats, side_m: float, px: int
) -> Raster | None:
    """Return a square of ground in the first image that shows some of it; None if none does."""
    transform = Affine(side_m / px, 0, low[0], 0, -side_m / px, low[1] + side_m)
    placed = (image for image in images if image.grid.crs is not None)
    read = (warped(image, GeoGrid((px, px), transform, plane)) for image in placed)
    return next((raster for raster in read if raster.valid.any()), None)


def cloud_notes(compared: Compared, images: Sequence[RasterSource]) -> list[str]:
    """Return a note if a tenth of the gone buildings lie where the new image is white."""
    gone = np.flatnonzero(compared.old.statuses.status == GONE)
    gone, white = gone[:: 1 + len(gone) // _LOOKED_AT], 0
    # From north to south: reading a JPEG or PNG upwards decodes it again.
    for box in sorted(compared.old.packed.bounds[gone], key=lambda one: -one[3]):
        side_m = float((box[2:] - box[:2]).min())
        raster = None
        # The picture says where an image cannot be read.
        with suppress(RooftraceError):
            raster = _shown(images, compared.plane, (box[:2] + box[2:] - side_m) / 2, side_m, 16)
        if raster is not None and raster.data.dtype == np.uint8:
            white += bool(np.median(raster.data[:3].min(axis=0)[raster.valid]) >= _WHITE)
    note = (
        f"The image is white at {white} of {plural(len(gone), 'building')} looked at that are "
        f"{compared.word('gone')}. If a cloud or snow hides them, leave it out with --area."
    )
    return [note] if white and white >= len(gone) / 10 else []


def _extent(compared: Compared) -> tuple[float, float, float, float]:
    """Return the rectangle of the map: all buildings that were compared."""
    new, old = compared.new.packed.bounds, compared.old.packed.bounds
    boxes = np.concatenate([new, old[compared.old.statuses.status != OUTSIDE]])
    boxes = boxes if len(boxes) else old
    left, bottom = boxes[:, :2].min(axis=0).tolist()
    right, top = boxes[:, 2:].max(axis=0).tolist()
    margin = _MARGIN * max(right - left, top - bottom)
    return left - margin, bottom - margin, right + margin, top + margin


def _map(compared: Compared, title: str, source: str) -> str:
    """Return the map as a data URL."""
    left, bottom, right, top = _extent(compared)
    metres = max(right - left, top - bottom) / _LONGEST_PX
    shape = max(1, round((top - bottom) / metres)), max(1, round((right - left) / metres))
    codes = np.zeros(shape, np.uint8)
    # What needs a look lies on top.
    for side, wanted in (
        (compared.old, (OUTSIDE, GONE)),
        (compared.new, (OUTSIDE, SAME)),
        (compared.new, (SPLIT, MERGED, CHANGED, MOVED, NEW)),
    ):
        packed, status, chosen = side.packed, side.statuses.status, _largest_first(side, wanted)
        for index in in_steps(chosen, _CHUNK):
            rasterize(
                zip(packed.unpack(index), (status[index] + 1).tolist()), out=codes,
                transform=Affine(metres, 0, left, 0, -metres, top), all_touched=True,
            )  # fmt: skip
    palette = np.array([PAPER, *map(ImageColor.getrgb, COLOURS.values())], np.uint8)
    key = [(compared.word(name), ImageColor.getrgb(colour)[:3]) for name, colour in COLOURS.items()]
    page = map_page(palette[codes], title, "Buildings by status", key, metres, source)
    return data_url(encoded(page, "png", optimize=True), "png")
