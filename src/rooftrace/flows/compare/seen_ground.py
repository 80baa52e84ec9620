"""Ground that was seen: buildings on other ground are neither new nor gone, but `outside`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rooftrace.core.errors import GeoreferenceError
from rooftrace.core.types import Floats, Polygons, RasterSource, Window
from rooftrace.flows.compare.inputs import BEND_M
from rooftrace.io.area import Area, area_in_degrees
from rooftrace.io.gdal import rasterize
from rooftrace.io.georeferenced import close_source
from rooftrace.io.reproject import (
    CRS84,
    crs_units,
    outline_bounds,
    reprojected,
    split_at_180,
    transform_points,
)
from rooftrace.vector.compare import CHANGED, GONE, NEW, OUTSIDE, SideStatus
from rooftrace.vector.layer_offset import LayerOffset
from rooftrace.vector.match import PackedPolygons, shifted

_SEEN_SHARE = 0.5
"""Minimum share of a building's pixels that an image shows where the building can be gone."""

_WHOLE_SHARE = 0.95
"""Minimum share of a building's pixels that an image shows where the building can have changed: the
edge of the imagery cuts the new outline of any other."""

_POINTS = 64
"""Points along each side of a building's bounds that are looked up in several images."""

_BLOCK_PX = 2048
_CHUNK = 50_000


def mark_outside(
    new: tuple[PackedPolygons, SideStatus],
    old: tuple[PackedPolygons, SideStatus],
    plane: CRS,
    images: Sequence[RasterSource],
    area_drawn: Area | None,
    shift: LayerOffset | None,
) -> None:
    """Set the status of buildings on ground that was not seen.

    Args:
        new, old: Buildings and statuses of both layers; the statuses are changed.
        plane: Coordinate system of the buildings.
        images: Images whose valid pixels were seen; they are closed.
        area_drawn: Area that was seen.
        shift: Offset that was removed from the new layer.

    Raises:
        DataError, GeoreferenceError: A file cannot be used.
    """
    area = None if area_drawn is None else area_in_degrees(area_drawn)
    if area is not None:
        shapely.prepare(area)
        for index in _chunks(new[1], NEW):
            share = _share_inside(area, plane, new[0].unpack(index))
            new[1].status[index[share < _SEEN_SHARE]] = OUTSIDE
    with ExitStack() as opened:
        for image in images:
            opened.callback(close_source, image)
        for code, least in ((GONE, _SEEN_SHARE), (CHANGED, _WHOLE_SHARE)):
            for index in _chunks(old[1], code):
                outlines = old[0].unpack(index)
                seen = np.ones(len(index))
                if area is not None:
                    seen = _share_inside(area, plane, outlines)
                if shift is not None:
                    # The images have the offset that was removed from the new layer.
                    outlines = shifted(outlines, shift.at(old[0].centre[index]))
                if images:
                    seen = np.minimum(seen, _seen_by_any(images, plane, outlines))
                old[1].status[index[seen < least]] = OUTSIDE
    changed = np.flatnonzero(new[1].status == CHANGED)
    cut = old[1].status[new[1].partner[changed]] == OUTSIDE
    new[1].status[changed[cut]] = OUTSIDE


def mark_outside_bounds(new: PackedPolygons, old: tuple[PackedPolygons, SideStatus]) -> None:
    """Set the status of old buildings without a match outside the bounds of the new layer."""
    if not len(new):
        return
    low, high = new.bounds[:, :2].min(axis=0), new.bounds[:, 2:].max(axis=0)
    gone = np.flatnonzero(old[1].status == GONE)
    inside = ((old[0].centre[gone] >= low) & (old[0].centre[gone] <= high)).all(axis=1)
    old[1].status[gone[~inside]] = OUTSIDE


def _chunks(status: SideStatus, code: int) -> list[NDArray[np.int64]]:
    chosen = np.flatnonzero(status.status == code)
    return [chosen[start : start + _CHUNK] for start in range(0, len(chosen), _CHUNK)]


def _share_inside(area: shapely.Geometry, plane: CRS, geometry: Polygons) -> Floats:
    """Return (n,) share of each building on the plane that lies in an area in degrees.

    The plane of the buildings has no place for ground that is far from them, such as the other half
    of the world, so that they are compared in degrees.
    """
    degrees = split_at_180(reprojected(geometry, plane, CRS84, crs_units(BEND_M, CRS84)))
    share = np.zeros(len(geometry))
    known = np.flatnonzero(np.isfinite(shapely.bounds(degrees).reshape(-1, 4)).all(axis=1))
    share[known] = shapely.contains_properly(area, degrees[known])
    edge = known[(share[known] == 0) & shapely.intersects(area, degrees[known])]
    common = shapely.area(shapely.intersection(degrees[edge], area))
    share[edge] = common / shapely.area(degrees[edge])
    return share


def _seen_by_any(sources: Sequence[RasterSource], plane: CRS, geometry: Polygons) -> Floats:
    """Return (n,) share of each building on the plane that at least one of the images shows.

    Raises:
        GeoreferenceError, DataError: See `_seen_share`.
    """
    shown = np.stack([_seen_share(source, plane, geometry) for source in sources])
    seen: Floats = shown.max(axis=0)
    # On the seam of images, each of them shows another part.
    for one in np.flatnonzero((seen < _WHOLE_SHARE) & ((shown > 0).sum(axis=0) > 1)).tolist():
        left, bottom, right, top = shapely.bounds(geometry[one])
        middles = (np.arange(_POINTS) + 0.5) / _POINTS
        x, y = np.meshgrid(left + middles * (right - left), bottom + middles * (top - bottom))
        inside = shapely.contains_xy(geometry[one], x, y)
        points = np.stack([x[inside], y[inside]], axis=1)
        if len(points):
            parts = [sources[at] for at in np.flatnonzero(shown[:, one]).tolist()]
            found = np.any([_shown_points(source, plane, points) for source in parts], axis=0)
            seen[one] = max(seen[one], found.mean())
    return seen


def _shown_points(source: RasterSource, plane: CRS, points: Floats) -> NDArray[np.bool_]:
    """Return (n,) True for each point (n, 2) on the plane that an image shows."""
    grid = source.grid
    assert grid.crs is not None
    pixels = grid.to_pixels(transform_points(points, plane, grid.crs))
    sees: NDArray[np.bool_] = np.asarray(np.isfinite(pixels).all(axis=1), np.bool_)
    sees &= ((pixels >= 0) & (pixels < (grid.width, grid.height))).all(axis=1)
    if sees.any():
        col, row = np.floor(pixels[sees]).astype(np.int64).T
        first, left = int(row.min()), int(col.min())
        window = Window(first, left, int(row.max()) - first + 1, int(col.max()) - left + 1)
        sees[sees] = source.read(window).valid[row - first, col - left]
    return sees


def _seen_share(source: RasterSource, plane: CRS, geometry: Polygons) -> Floats:
    """Return (n,) share of the pixels of each building on the plane that an image shows.

    Only the blocks of the image in which there are buildings are read.

    Args:
        source: Image; its nodata shows nothing.
        plane: Coordinate system of the buildings.
        geometry: (n,) buildings.

    Raises:
        GeoreferenceError: The image has no coordinate system.
        DataError: It cannot be read.
    """
    grid = source.grid
    if grid.crs is None:
        raise GeoreferenceError(
            f"{source.name} has no coordinate system, so it does not say what was seen.",
            remedy="Assign one (gdal_edit -a_srs), or draw the area that was seen: --area FILE",
        )
    if outline_bounds(grid, plane) is None:
        return np.zeros(len(geometry))
    projected = reprojected(geometry, plane, grid.crs, abs(grid.transform.determinant) ** 0.5 / 10)
    pixels = np.asarray(shapely.transform(projected, grid.to_pixels), np.object_)
    bounds = shapely.bounds(pixels).reshape(-1, 4)
    near = np.flatnonzero(
        np.isfinite(bounds).all(axis=1)
        & (bounds[:, 0] < grid.width) & (bounds[:, 2] > 0)
        & (bounds[:, 1] < grid.height) & (bounds[:, 3] > 0)
    )  # fmt: skip
    seen, drawn = np.zeros(len(geometry)), np.zeros(len(geometry))
    tree = shapely.STRtree(pixels[near])
    whole = Window.whole(grid.shape)
    for strip in whole.strips(_BLOCK_PX):
        for col in range(0, grid.width, _BLOCK_PX):
            window = Window(strip.row, col, strip.height, min(_BLOCK_PX, grid.width - col))
            frame = shapely.box(window.col, window.row, window.col_stop, window.row_stop)
            here = near[np.sort(tree.query(frame))]
            if len(here):
                _count(source, window, pixels, here, seen, drawn)
    # Parts beyond the edge of the image are not seen; of a small building every pixel counts.
    least = np.maximum(np.floor(shapely.area(pixels) * 0.95), 1)
    for one in near[drawn[near] < least[near]]:
        # Others may have been drawn over it.
        seen[one] = drawn[one] = 0
        left, top, right, bottom = bounds[one]
        row, col = int(top), int(left)
        own = Window(row, col, math.ceil(bottom) - row + 1, math.ceil(right) - col + 1)
        inside = own.intersection(whole)
        if inside is not None:
            _count(source, inside, pixels, np.array([one]), seen, drawn)
    return np.asarray(seen / np.maximum(drawn, least))


def _count(
    source: RasterSource, window: Window, pixels: Polygons, here: NDArray[np.int64],
    seen: Floats, drawn: Floats,
) -> None:  # fmt: skip
    """Add the pixels of a window to those drawn and seen of the buildings `here`."""
    valid = source.read(window).valid
    shapes = shapely.transform(pixels[here], lambda xy: xy - (window.col, window.row))
    numbers = rasterize(
        zip(shapes, range(1, len(here) + 1)), window.shape_yx, dtype=np.int32, all_touched=True
    )
    count = len(here) + 1
    drawn[here] += np.bincount(numbers.ravel(), minlength=count)[1:]
    seen[here] += np.bincount(numbers[valid], minlength=count)[1:]
