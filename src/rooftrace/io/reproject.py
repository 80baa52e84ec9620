"""Transform polygons from one coordinate system to another, with bent edges where necessary."""

import warnings
from functools import lru_cache, partial

import numpy as np
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from pyproj.transformer import AreaOfInterest, TransformerGroup

from rooftrace.core.errors import GeoreferenceError
from rooftrace.core.text import ASSIGN_CRS
from rooftrace.core.types import Bounds, Floats, GeoGrid, Polygons, full_turn

CRS84 = CRS.from_user_input("OGC:CRS84")
"""Degrees of longitude and latitude on WGS 84, in this order."""

METRES_PER_DEGREE = 111_320.0
"""Length in metres of a degree along the equator of WGS 84: 2π × 6,378,137 m / 360, rounded.

A degree of latitude has 110,574 to 111,694 m. The constant serves for tolerances and pixel sizes.
"""

BEND_M = 0.01
"""Maximum error in metres at the middle of a reprojected edge."""

BEND_PX = 0.1
"""Maximum error in pixels at the middle of a reprojected edge."""

_LONG_EDGE = 1e4
"""Length of an edge, in tolerances, from which it can have an inflection of importance."""

_NEAR_180_DEG = 0.01
"""Distance in degrees within which geometry counts as near longitude 180."""

_HUBS = (4283, 4258, 4269, 4326)
"""Codes of systems that lead from one datum to another: GDA94, ETRS89, NAD83 and WGS 84."""

_NOTED_M = 0.5
"""Difference of accuracies in metres from which a missing grid is noted."""

_SAME_DATUM_M = 3.0
"""Distance in metres up to which two datums count as one, as the realisations of NAD83 do."""

_OF_SATELLITES = "GRS 1980", "WGS 84"
"""Ellipsoids whose datums differ by less than 3 m."""

_OUTLINE_POINTS = 21
"""Number of points along each side of a rectangle whose outline is transformed."""


def utm_zone(lon: float, lat: float) -> CRS:
    """Return the UTM zone of a place in degrees."""
    return CRS.from_epsg((32600 if lat >= 0 else 32700) + int((lon + 180) // 6) % 60 + 1)


@lru_cache(maxsize=64)
def epsg_of(crs: CRS) -> int | None:
    """Return the EPSG code of a coordinate system; None if it has none.

    To PROJ, a system without a datum is any that shares its ellipsoid: UTM zone 36 on Clarke 1880
    is Adindan. Only the datums of satellite positioning are that close to one another.
    """
    code = crs.to_epsg()
    if code is None or code == crs.to_epsg(min_confidence=90):
        return code
    is_close = crs.ellipsoid is not None and crs.ellipsoid.name in _OF_SATELLITES
    known = CRS.from_epsg(code)
    return code if is_close or known.equals(crs, ignore_axis_order=True) else None


def crs_text(crs: CRS | None) -> str:
    """Return a short description of a coordinate system."""
    if crs is None:
        return "no coordinate system"
    if epsg := epsg_of(crs):
        return f"EPSG:{epsg} ({crs.name})"
    if crs.name != "unknown":
        return str(crs.name)
    # A projection made for one place has no name.
    with warnings.catch_warnings(action="ignore"):
        return str(crs.to_proj4())


def reprojected(geometry: Polygons, source: CRS, target: CRS, tolerance: float) -> Polygons:
    """Transform geometry to another coordinate system.

    A straight edge is bent in another projection. If the middle of an edge, or of a half of a long
    one, would deviate by more than `tolerance`, the edge gets vertices: the deviation falls at
    least with the square of its length. Longitudes jump by a full turn across 180°; see
    `split_at_180`.

    Args:
        geometry: (n,) shapely polygons and multipolygons in `source`.
        tolerance: Maximum deviation in units of `target`.

    Returns:
        (n,) geometry in `target`; coordinates outside its range are infinite.

    Raises:
        GeoreferenceError: no transformation between the two is known.
    """
    if not len(geometry) or source.equals(target, ignore_axis_order=True):
        return geometry
    length = _edge_lengths(geometry, source, target, tolerance)
    bent = np.isfinite(length)
    if bent.any():
        geometry = geometry.copy()
        geometry[bent] = shapely.segmentize(geometry[bent], length[bent])
    projected = shapely.transform(geometry, lambda xy: transform_points(xy, source, target))
    return np.asarray(projected, np.object_)


def split_at_180(geometry: Polygons) -> Polygons:
    """Divide polygons that lie across longitude 180, as RFC 7946 (section 3.1.9) asks.

    Args:
        geometry: (n,) polygons and multipolygons in degrees; their longitudes may jump by a full
            turn, or go on beyond ±180.

    Returns:
        (n,) geometry whose longitudes are from -180 to 180. What lies across 180 is a valid
        multipolygon with pieces on both sides; the rest is unchanged.
    """
    return _divided(geometry, unwrapped(geometry))


def degrees_box(bounds: Bounds) -> shapely.Geometry:
    """Return a box of west, south, east and north in degrees, divided at longitude 180.

    The east of a box across longitude 180 is more than 180, or the west less than -180.
    """
    box = np.array([shapely.box(*bounds)], np.object_)
    divided: shapely.Geometry = _divided(box, box)[0]
    return divided


def _divided(geometry: Polygons, whole: Polygons) -> Polygons:
    """Return (n,) `geometry`, with the pieces of `whole`, where that goes on beyond ±180."""
    west, south, east, north = shapely.bounds(whole).T
    with np.errstate(invalid="ignore"):
        beyond = np.isfinite(east - west) & ((west < -180) | (east > 180))
    if not beyond.any():
        return geometry
    divided = geometry.copy()
    for index in np.flatnonzero(beyond).tolist():
        valid = shapely.make_valid(whole[index], method="structure", keep_collapsed=False)
        pieces = []
        for middle in (-360.0, 0.0, 360.0):
            low, high = south[index] - 1, north[index] + 1
            around = shapely.box(middle - 180, low, middle + 180, high)
            inside = shapely.intersection(valid, around)
            moved = shapely.transform(inside, partial(np.add, (-middle, 0)))
            pieces += [one for one in shapely.get_parts(moved) if one.area > 0]
        one = pieces[0] if len(pieces) == 1 else shapely.multipolygons(pieces)
        divided[index] = shapely.orient_polygons(one)
    return divided


def unwrapped(geometry: Polygons, turn: float = 360) -> Polygons:
    """Return (n,) geometry in degrees whose longitudes go on beyond 180 instead of jumping.

    This is how each geometry is drawn that becomes narrower by it; the others are unchanged.
    `turn` is the `full_turn` of a coordinate system that is not in degrees.
    """
    west, _, east, _ = shapely.bounds(geometry).T
    with np.errstate(invalid="ignore"):
        wide = np.isfinite(east - west) & (east - west > turn / 2)
    if not wide.any():
        return geometry
    whole = geometry.copy()
    for index in np.flatnonzero(wide).tolist():
        turned = shapely.transform(whole[index], lambda xy: xy + (xy < 0) * (turn, 0))
        left, _, right, _ = turned.bounds
        # A box around the whole Earth would have no width.
        if 1e-9 < right - left < east[index] - west[index]:
            whole[index] = turned
    return whole


def bounds_of(geometry: Polygons, crs: CRS) -> Floats:
    """Return (n, 4) left, bottom, right and top; beyond 180 degrees for what lies across it."""
    turn = full_turn(crs)
    whole = geometry if turn is None else unwrapped(geometry, turn)
    return shapely.bounds(whole).reshape(-1, 4)


def joint_bounds(bounds: Floats, crs: CRS) -> Bounds:
    """Return left, bottom, right and top around (n, 4) `bounds_of` geometry; NaN around none.

    What lies on both sides of longitude 180 has the right side beyond it, where it is narrower so.
    """
    # Geometry without a point has no bounds.
    bounds = bounds[~np.isnan(bounds).any(axis=1)]
    if not len(bounds):
        return (np.nan,) * 4
    left, bottom, right, top = bounds.T
    turn = full_turn(crs)
    if turn is not None and turn / 2 < right.max() - left.min() < np.inf:
        low, high = _widest_gap(left, right, turn)
        if low < high:
            # The middle of the gap, since an end may be a rounding error away from its range.
            first = (low + high) / 2
            moved = (left - first) % turn + first
            left, right = moved, moved + right - left
    edges = np.min(left), np.min(bottom), np.max(right), np.max(top)
    west, south, east, north = map(float, edges)
    return west, south, east, north


def _widest_gap(left: Floats, right: Floats, turn: float) -> tuple[float, float]:
    """Return the ends of the widest gap between ranges (n,) of a circle.

    The second one is from -turn/2 to turn/2; the first one is not smaller if they leave no gap.
    """
    start = (left + turn / 2) % turn
    order = np.argsort(start)
    start, width = start[order], (right - left)[order]
    reached = np.maximum.accumulate(start + width)
    before = np.concatenate([[reached[-1] - turn], reached[:-1]])
    widest = int((start - before).argmax())
    return float(before[widest]) - turn / 2, float(start[widest]) - turn / 2


def bounds_meet(one: Bounds, other: Bounds, crs: CRS) -> bool:
    """Return whether two rectangles have a point in common, or would after full turns."""
    left, bottom, right, top = other
    turn = full_turn(crs)
    if turn is not None and np.isfinite(left + right + one[0] + one[2]):
        moved = turn * np.round((one[0] + one[2] - left - right) / 2 / turn)
        left, right = left + moved, right + moved
    return bool(shapely.box(*one).intersects(shapely.box(left, bottom, right, top)))


def first_longitude(geometry: Polygons) -> float:
    """Return a longitude from which `counted_from` counts, so that none of (n,) geometry jumps.

    It is -180 if no geometry is near longitude 180, and else the middle of the widest gap.
    """
    west, _, east, _ = shapely.bounds(unwrapped(geometry)).T
    finite = np.isfinite(east - west)
    west, east = west[finite], east[finite]
    if not (np.abs(np.stack([west, east])) > 180 - _NEAR_180_DEG).any():
        return -180.0
    return float(np.mean(_widest_gap(west, east, 360)))


def counted_from(first: float, geometry: Polygons) -> Polygons:
    """Return (n,) geometry in degrees whose longitudes go on from `first` without a jump."""
    whole = unwrapped(geometry)
    turns = np.floor((shapely.bounds(whole)[:, 0] - first) / 360)
    moved = np.flatnonzero(np.isfinite(turns) & (turns != 0))
    if not len(moved):
        return whole
    made = whole.copy()
    for index in moved.tolist():
        made[index] = shapely.transform(whole[index], partial(np.add, (-360 * turns[index], 0)))
    return made


def outline_bounds(grid: GeoGrid, target: CRS) -> Bounds | None:
    """Return (left, bottom, right, top) of a grid in another system; None if it lies outside it.

    Raises:
        GeoreferenceError: no transformation between the two is known.
    """
    xy = outline_points(grid, target)
    if not len(xy):
        return None
    (left, bottom), (right, top) = xy.min(axis=0), xy.max(axis=0)
    return float(left), float(bottom), float(right), float(top)


def outline_boxes(grid: GeoGrid, target: CRS) -> Polygons:
    """Return boxes (n,) of another system in which a grid lies; none if it lies outside of it.

    Where x repeats after a full turn, there is one for each turn that maps use.
    """
    bounds = outline_bounds(grid, target)
    if bounds is None:
        return np.zeros(0, np.object_)
    left, bottom, right, top = bounds
    turn = full_turn(target)
    moves = np.zeros(1) if turn is None else np.array([-turn, 0, turn])
    return np.array([shapely.box(left + x, bottom, right + x, top) for x in moves], np.object_)


def pixels_apart(one: GeoGrid, other: GeoGrid) -> float:
    """Return the largest distance of the corners of two grids of equal shape, in pixels.

    It is infinite where one lies outside the range of the other's coordinate system. Both have one.
    """
    assert one.crs is not None
    assert other.crs is not None
    height, width = one.shape
    corners = np.array([(0.0, 0.0), (width, 0.0), (0.0, height), (width, height)])
    world = np.stack(one.to_world(*corners.T), axis=1)
    if not one.crs.equals(other.crs, ignore_axis_order=True):
        world = transform_points(world, one.crs, other.crs)
    there = other.to_pixels(world)
    return float(np.hypot(*(there - corners).T).max()) if np.isfinite(there).all() else np.inf


def crs_units(metres: float, crs: CRS) -> float:
    """Return a length in the units of a coordinate system, for tolerances and pixel sizes.

    A degree has its length along the equator.
    """
    if crs.is_geographic:
        return metres / METRES_PER_DEGREE
    return metres / (crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0)


def outline_points(grid: GeoGrid, target: CRS) -> Floats:
    """Return points (n, 2) of another system along a grid's outline, without those outside it."""
    assert grid.crs is not None
    side = np.linspace(0, 1, _OUTLINE_POINTS)
    start, end = np.zeros_like(side), np.ones_like(side)
    cols = np.concatenate([side, end, side, start]) * grid.width
    rows = np.concatenate([start, side, end, side]) * grid.height
    xy = transform_points(np.stack(grid.to_world(cols, rows), axis=1), grid.crs, target)
    return xy[np.isfinite(xy).all(axis=1)]


def degrees_off(crs: CRS, x: float, y: float) -> float:
    """Return how far a point lies outside of the area of use of a CRS, in degrees."""
    if crs.area_of_use is None or crs.geodetic_crs is None:
        return 0.0
    west, south, east, north = crs.area_of_use.bounds
    lon, lat = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(x, y)
    if not np.isfinite((lon, lat)).all():
        return np.inf
    # Areas may lie across longitude 180.
    eastward, width = (lon - west) % 360, (east - west) % 360 or 360
    return float(
        np.hypot(min(max(eastward - width, 0), 360 - eastward), max(south - lat, lat - north, 0))
    )


_FAR_DEG, _SWAPPED_DEG = 15.0, 1.0
"""Distance in degrees from the area of use of a CRS beyond which a position is doubted, since
Norway maps all of its land in one UTM zone; and likewise where swapped ones lie in the area."""


def position_note(name: str, crs: CRS | None, bounds: Bounds) -> str:
    """Return a note, without a remedy, on a position outside of the area of its CRS; "" if it fits.

    Args:
        bounds: Left, bottom, right and top in the CRS.
    """
    if crs is None or not np.isfinite(bounds).all():
        return ""
    x, y = (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2
    off = degrees_off(crs, x, y)
    if off <= _SWAPPED_DEG:
        return ""
    is_swapped = crs.utm_zone is None and degrees_off(crs, y, x) == 0
    if not is_swapped and off <= _FAR_DEG:
        return ""
    where = f"{name} lies far outside of the area of {crs_text(crs)}: {degrees_text(bounds, crs)}."
    return f"{where} Its x and y look swapped." if is_swapped else where


def layer_position_notes(name: str, crs: CRS | None, bounds: Bounds) -> list[str]:
    """Return the note on the position of a layer of polygons, see `position_note`."""
    note = position_note(name, crs, bounds)
    remedy = (
        "Assign the right CRS (ogr2ogr -a_srs EPSG:… OUT IN), or swap its axes (in QGIS: Swap X "
        "and Y coordinates)"
    )
    return [f"{note} {remedy}."] if note else []


def degrees_text(bounds: Bounds, crs: CRS) -> str:
    """Return bounds as a text of longitude and latitude, for a message."""
    left, bottom, right, top = bounds
    corners = np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
    try:
        xy = transform_points(corners, crs, CRS.from_epsg(4326))
    except GeoreferenceError:
        xy = np.full((4, 2), np.inf)
    if not np.isfinite(xy).all():
        return f"{left:.10g} to {right:.10g} and {bottom:.10g} to {top:.10g} in {crs_text(crs)}"
    # Adding 0 leaves no sign before a rounded zero.
    (west, south), (east, north) = xy.min(axis=0).round(5) + 0, xy.max(axis=0).round(5) + 0
    return f"longitude {west:.5f} to {east:.5f}, latitude {south:.5f} to {north:.5f}"


def in_pixels(
    geometry: Polygons, source: CRS, grid: GeoGrid, tolerance_px: float = BEND_PX
) -> Polygons:
    """Return polygons in the pixels of an image that has a CRS; see `reprojected`.

    Args:
        tolerance_px: Maximum deviation of an edge in pixels.
    """
    assert grid.crs is not None
    pixel = float(np.sqrt(abs(grid.transform.determinant)))
    placed = reprojected(geometry, source, grid.crs, tolerance_px * pixel)
    return np.asarray(shapely.transform(placed, grid.to_pixels), np.object_)


def _edge_lengths(geometry: Polygons, source: CRS, target: CRS, tolerance: float) -> Floats:
    """Return (n,) the maximum edge length of each geometry; infinite if no edge is too long."""
    parts, owner = shapely.get_parts(geometry, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    xy, ring = shapely.get_coordinates(rings, return_index=True)
    within = ring[1:] == ring[:-1]
    start, stop, edge_of = xy[:-1][within], xy[1:][within], owner[part[ring[1:][within]]]
    ends = transform_points(xy, source, target)
    first, last = ends[:-1][within], ends[1:][within]

    middle = transform_points((start + stop) / 2, source, target)
    off = _deviation(first, middle, last, target)
    with np.errstate(invalid="ignore"):
        long = np.hypot(*(last - first).T) > _LONG_EDGE * tolerance
    if long.any():
        # The middle of an edge that is symmetric about an inflection does not deviate, but those of
        # its halves do. The deviation of a half is a quarter of that of an evenly bent edge.
        quarters = (
            transform_points(start[long] + share * (stop - start)[long], source, target)
            for share in (0.25, 0.75)
        )
        ends_of_half = (first[long], middle[long]), (middle[long], last[long])
        halves = [_deviation(a, q, b, target) for (a, b), q in zip(ends_of_half, quarters)]
        off[long] = np.fmax(off[long], 4 * np.fmax(*halves))
    # Infinite ends give NaN: the caller has to handle such geometry.
    pieces = np.ceil(np.sqrt(np.where(np.isfinite(off), off, 0) / tolerance))
    bent = pieces > 1
    length = np.full(len(geometry), np.inf)
    shares = np.hypot(*(stop - start)[bent].T) / pieces[bent]
    np.minimum.at(length, edge_of[bent], shares)
    return length


def _deviation(first: Floats, middle: Floats, last: Floats, target: CRS) -> Floats:
    """Return (n,) distances of the middles of edges (n, 2) from the straight lines."""
    with np.errstate(invalid="ignore"):
        steps = np.stack([first - middle, last - middle])
        if (turn := full_turn(target)) is not None:
            # Across longitude 180 an end may be a full turn away from the middle.
            steps[..., 0] -= turn * np.round(steps[..., 0] / turn)
        return np.asarray(np.hypot(*(steps.sum(axis=0) / 2).T))


def transform_points(xy: Floats, source: CRS, target: CRS) -> Floats:
    """Transform points (n, 2); results outside the range of `target` are infinite.

    Where PROJ would leave out the change of datum, a way over another system is taken if there is
    one, as from AGD66 over GDA94 to GDA2020.
    """
    try:
        direct, leaves_out = _way(source, target)
        moved = np.stack(direct.transform(*xy.T), axis=1)
    except ProjError as error:
        raise GeoreferenceError(
            f"There is no transformation from {source.name!r} to {target.name!r}: {error}.",
            remedy=f"Assign the right one: {ASSIGN_CRS}; or ogr2ogr -a_srs EPSG:… OUT.gpkg IN",
        ) from error
    if leaves_out is False:
        return moved
    finite = np.flatnonzero(np.isfinite(moved).all(axis=1))
    if not len(finite) or not (leaves_out or _guessed(direct)):
        return moved
    last = finite[-1]
    for legs in _ways_over_hubs(source, target):
        point = xy[last]
        for leg, leaves_out in legs:
            point = np.array(leg.transform(*point))
            if leaves_out is None and _guessed(leg):
                break
        else:
            east, north = (point - moved[last]) / crs_units(1, target)
            if target.is_geographic:
                east *= np.cos(np.radians(moved[last, 1]))
            if not np.hypot(east, north) > _SAME_DATUM_M:
                return moved
            first, second = (leg for leg, _ in legs)
            return np.stack(second.transform(*first.transform(*xy.T)), axis=1)
    return moved


@lru_cache(maxsize=64)
def _way(source: CRS, target: CRS) -> tuple[Transformer, bool | None]:
    """Return a transformer, and whether its one operation only guesses that two datums are one.

    PROJ calls such an operation ballpark, and uses it without an error where it knows no other. Its
    option `only_best` does not refuse it together with `always_xy` (pyproj 3.7, PROJ 9.5). None if
    there are several operations, of which PROJ chooses one by the place.
    https://proj.org/en/stable/operations/operations_computation.html
    """
    transformer = Transformer.from_crs(source, target, always_xy=True)
    operation = transformer.description
    return transformer, None if operation.startswith("unavailable") else _is_guess(operation)


def _is_guess(operation: str) -> bool:
    return "Ballpark" in operation or operation == "noop"


def _guessed(used: Transformer) -> bool:
    """Return whether the operation that PROJ chose for the last point guesses, see `_way`."""
    return _is_guess(used.get_last_used_operation().description)


@lru_cache(maxsize=64)
def _ways_over_hubs(source: CRS, target: CRS) -> list[list[tuple[Transformer, bool | None]]]:
    """Return the two parts of each way over a hub, of which none always leaves out the datum."""
    hubs = [CRS.from_epsg(code) for code in _HUBS]
    ways = [[_way(source, hub), _way(hub, target)] for hub in hubs]
    return [way for way in ways if not any(leaves_out for _, leaves_out in way)]


def missing_grid(source: CRS, target: CRS, bounds: Bounds) -> tuple[str, ...]:
    """Return a note if PROJ knows a better operation without its grid, or none between the datums.

    Args:
        bounds: Left, bottom, right and top in `source` of what is transformed.
    """
    left, bottom, right, top = bounds
    if not np.isfinite(bounds).all() or source.equals(target, ignore_axis_order=True):
        return ()
    middle = np.array([((left + right) / 2, (bottom + top) / 2)])
    lon, lat = transform_points(middle, source, CRS84)[0].tolist()
    if not np.isfinite(lon + lat):
        return ()
    direct = _way(source, target)[0]
    direct.transform(*middle[0])
    ellipsoids = {crs.ellipsoid and crs.ellipsoid.semi_major_metre for crs in (source, target)}
    if len(ellipsoids) > 1 and _guessed(direct) and not _ways_over_hubs(source, target):
        note = (
            f"{crs_text(source)} to {crs_text(target)}: no transformation between their datums is "
            "known, which may lie hundreds of metres apart. Assign the system with the right datum "
            f"to the file that names none: {ASSIGN_CRS}"
        )
        return (note,)
    with warnings.catch_warnings():
        # It says what the note says, without the accuracy.
        warnings.simplefilter("ignore")
        ways = TransformerGroup(
            source, target, always_xy=True, area_of_interest=AreaOfInterest(lon, lat, lon, lat)
        )
    better = [one for one in ways.unavailable_operations if one.accuracy > 0 and one.grids]
    if not better:
        return ()
    # PROJ may go over WGS 84, which is none of the operations of the group.
    best, used = better[0], direct.get_last_used_operation().accuracy
    if 0 <= used < best.accuracy + _NOTED_M:
        return ()
    names = [grid.short_name for grid in best.grids if not grid.available]
    accuracy = f"is accurate to about {used:g} m" if used >= 0 else "has no known accuracy"
    note = (
        f"{source.name} to {target.name} {accuracy}; with the grid {', '.join(names)} it would be "
        f"{best.accuracy:g} m: {' && '.join(f'pyproj sync --file {name}' for name in names)}"
    )
    return (note,)


def transformer(source: CRS, target: CRS) -> Transformer:
    """Return a transformer that takes x before y, also where a system has another axis order.

    Threads may share it.
    """
    return _way(source, target)[0]
