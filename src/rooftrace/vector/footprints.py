"""Footprints on the ground from polygons in pixels.

The file also holds the minimum rotated rectangles of many polygons at once, and the outline of a
scene's valid data.
"""

from functools import cached_property

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Geod, Transformer
from pyproj.exceptions import ProjError

from rooftrace.core.types import BoolArray, Floats, Footprints, GeoGrid, Polygons, Window
from rooftrace.io.legend import NODATA
from rooftrace.io.make_valid import make_polygons_valid
from rooftrace.vector.trace import ring_vertices
from rooftrace.vector.trace_blocks import BlockPolygonizer, BlockTrace, trace_block

_DIGITS = 6
"""Digits after the point of metres, degrees and ratios. The fifteenth digit depends on the
processor, by the instructions that mathematical functions use."""


_STRAIGHT = 1e-6
"""Distance, in pixels or metres, up to which a vertex lies on the line of its neighbours."""


def minimum_rectangles(polygons: Polygons) -> tuple[Floats, Floats, Floats]:
    """Return the minimum-area rotated rectangle of each polygon.

    Args:
        polygons: (n,) shapely polygons with an area.

    Returns:
        (n,) lengths of the longer and of the shorter sides, and (n,) angles: radians in [0, pi),
        from the x axis towards the y axis to the longer side.
    """
    vertex, owner = shapely.get_coordinates(polygons, return_index=True)
    # Products of coordinates keep their precision near the origin.
    vertex -= vertex[np.searchsorted(owner, owner)]
    local = shapely.set_coordinates(polygons.copy(), vertex)
    # GEOS (3.14.1) returns a line for some hulls that are straight at a vertex but for rounding.
    hull = shapely.simplify(shapely.convex_hull(local), _STRAIGHT)
    corner = shapely.get_coordinates(shapely.oriented_envelope(hull)).reshape(-1, 5, 2)
    sides = np.diff(corner[:, :3], axis=1)
    lengths = np.hypot(sides[..., 0], sides[..., 1])
    longer = sides[np.arange(len(sides)), lengths.argmax(axis=1)]
    angle = np.arctan2(longer[:, 1], longer[:, 0]) % np.pi
    return lengths.max(axis=1), lengths.min(axis=1), angle


# Without metres, the upper side of the image counts as north.
_UPRIGHT = np.array([[1.0, 0.0], [0.0, -1.0]])


def make_footprints(
    polygons_px: Polygons, score: NDArray[np.float32], grid: GeoGrid, *, gsd_m: float | None = None
) -> Footprints:
    """Return footprints in the grid's CRS, or in pixels (x right, y down) where it has none.

    Args:
        polygons_px: (n,) shapely polygons in pixel coordinates of the grid, corner-based.
        score: (n,) scores in 0..1.
        gsd_m: Metres per pixel for areas and perimeters; overrides the grid.

    Returns:
        All footprints in the order given. Metres are those of the WGS 84 ellipsoid at each polygon,
        or follow `gsd_m`, or are NaN where neither is known.
    """
    local = metres_per_px(grid, shapely.get_coordinates(shapely.centroid(polygons_px)))
    across = _size(local)
    # A position without coordinates, or a pixel without a size there, gives neither metres nor
    # directions.
    known = np.isfinite(across) & (across > 0)
    size_m = np.where(known, across, np.nan)
    if gsd_m is not None:
        size_m = np.full(len(polygons_px), float(gsd_m))
    # Directions and ratios of lengths need no scale, so they are known where metres are not.
    unscaled = np.where(known[:, None, None], local, _UPRIGHT)
    size = _size(unscaled)
    xy, owner = shapely.get_coordinates(polygons_px, return_index=True)
    placed = np.einsum("nij,nj->ni", (unscaled / size[:, None, None])[owner], xy)
    # The input is not changed.
    on_ground = np.asarray(shapely.set_coordinates(polygons_px.copy(), placed), np.object_)
    longer, shorter, angle = minimum_rectangles(on_ground)
    area = shapely.area(polygons_px)
    outlines = polygons_px
    if grid.crs is not None:
        corners = np.stack(grid.to_world(xy[:, 0], xy[:, 1]), axis=1)
        outlines = np.asarray(shapely.set_coordinates(polygons_px.copy(), corners), np.object_)
        # Pixel rows increase downwards, so most transforms reverse the orientation of rings.
        upright = grid.transform.determinant > 0
        outlines = make_polygons_valid(outlines if upright else shapely.reverse(outlines))
    return Footprints(
        outlines,
        score.astype(np.float32, copy=False),
        np.round(area * size_m**2, _DIGITS),
        grid.crs,
        perimeter_m=np.round(shapely.length(on_ground) * size_m, _DIGITS),
        orientation_deg=np.round(90 - np.degrees(angle), _DIGITS) % 180,
        rectangularity=np.minimum(area / (longer * shorter), 1.0).round(_DIGITS),
    )


def square_metres_per_px(grid: GeoGrid, xy_px: Floats) -> Floats:
    """Return the area of a pixel on the WGS 84 ellipsoid, at positions of the grid.

    Args:
        xy_px: (n, 2) column and row, corner-based.

    Returns:
        (n,) square metres; NaN without a CRS, and where it has no longitude and latitude.
    """
    return _size(metres_per_px(grid, xy_px)) ** 2


def metres_per_px(grid: GeoGrid, xy_px: Floats) -> Floats:
    """Return the length of a step of one pixel on the WGS 84 ellipsoid, at positions of the grid.

    It is the Jacobian of pixel to longitude and latitude by central differences, times the radii of
    the ellipsoid's curvature, N cos(lat) and M (Snyder 1987, USGS Professional Paper 1395, eq. 4-18
    to 4-21).

    Args:
        xy_px: (n, 2) column and row, corner-based.

    Returns:
        (n, 2, 2) metres to the east and to the north (rows) for a step to the next column and to
        the next row (columns); NaN without a CRS, and where it has no longitude and latitude.
    """
    unknown = np.full((len(xy_px), 2, 2), np.nan)
    if grid.crs is None:
        return unknown
    places = xy_px[:, None, :] + np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])
    x, y = grid.to_world(places[..., 0], places[..., 1])
    try:
        lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(x, y)
    except ProjError:
        # A local system without a position on the Earth.
        return unknown
    lon, lat = np.where(np.isfinite([lon, lat]), [lon, lat], np.nan)
    # Across the antimeridian longitudes jump by a full turn.
    d_lon = np.radians((lon[:, 0::2] - lon[:, 1::2] + 180) % 360 - 180)
    d_lat = np.radians(lat[:, 0::2] - lat[:, 1::2])
    geod = Geod(ellps="WGS84")
    middle = np.radians(lat.mean(axis=1))
    stretch = np.sqrt(1 - geod.es * np.sin(middle) ** 2)
    east = geod.a * np.cos(middle) / stretch
    north = geod.a * (1 - geod.es) / stretch**3
    return np.stack([d_lon * east[:, None], d_lat * north[:, None]], axis=1)


def _size(metres: Floats) -> Floats:
    """Return (n,) metres per pixel: the geometric mean over directions."""
    across = metres[:, 0, 0] * metres[:, 1, 1] - metres[:, 0, 1] * metres[:, 1, 0]
    return np.asarray(np.sqrt(np.abs(across)))


CUT_PX = 1.5
"""Distance from the edge of the valid data, in pixels, within which a polygon counts as cut."""

_MIN_VALID_PX = 64
"""Minimum pixels of a region of valid data; a smaller one shows no building."""

_MIN_HOLE_PX = 1024
"""Minimum pixels of a hole in the valid data; a smaller one cuts no building."""

_MANY_EDGES = 2**14
"""Number of changes between valid data and nodata along the rows of a block, from which specks of
nodata are filled before the block is traced."""

_TOLERANCE_PX = 0.5


class ValidOutline:
    """The outline of the valid data, from blocks of a class mask that partition a scene.

    Args:
        least_hole_px: Pixels of the smallest hole that is part of it.
    """

    def __init__(self, grid: GeoGrid, least_hole_px: int = _MIN_HOLE_PX) -> None:
        self._grid, self._least_hole_px = grid, least_hole_px
        self._polygonizer = BlockPolygonizer(grid.shape, _MIN_VALID_PX)

    def feed(self, window: Window, mask: NDArray[np.uint8]) -> None:
        """Add a block (y, x) of class indices; NODATA marks unknown pixels."""
        self.add(window, self.trace(window, mask))

    def trace(self, window: Window, mask: NDArray[np.uint8]) -> BlockTrace | None:
        """Return the regions of valid data in a block, for `add`; None if there are none."""
        valid = mask != NODATA
        if not valid.all() and np.count_nonzero(np.diff(valid)) > _MANY_EDGES:
            # Specks of nodata take long to trace.
            _, numbers, boxes, _ = cv2.connectedComponentsWithStats((~valid).view(np.uint8))
            left, top, width, height, area_px = boxes.T
            is_speck = (area_px < self._least_hole_px) & (left > 0) & (top > 0)
            is_speck &= (left + width < window.width) & (top + height < window.height)
            valid |= is_speck[numbers]
        scene = Window.whole(self._grid.shape)
        return trace_block(scene, window, valid, None, _MIN_VALID_PX) if valid.any() else None

    def add(self, window: Window, trace: BlockTrace | None) -> None:
        """Add a block that any process has traced; see `feed`."""
        self._polygonizer.add(window, trace)

    @cached_property
    def _edges(self) -> shapely.STRtree:
        """Straight pieces of the outline, in pixels."""
        xy, ring, _ = ring_vertices(shapely.get_parts(self._outline_px))
        lines = np.stack([xy[:-1], xy[1:]], axis=1)
        return shapely.STRtree(shapely.linestrings(lines[ring[:-1] == ring[1:]]))

    def cuts(self, polygons: Polygons) -> BoolArray:
        """Return (n,) True for polygons in the grid's CRS that come within 1.5 px of the outline,
        after all blocks: what lies beyond is missing from them.
        """
        pixels = shapely.transform(polygons, self._grid.to_pixels)
        near, _ = self._edges.query(pixels, predicate="dwithin", distance=CUT_PX)
        return np.isin(np.arange(len(polygons)), near)

    def finish(self) -> shapely.MultiPolygon:
        """Return the outline in the grid's CRS, within half a pixel; empty where nothing is
        valid.
        """
        placed = shapely.transform(
            self._outline_px, lambda xy: np.stack(self._grid.to_world(xy[:, 0], xy[:, 1]), axis=1)
        )
        assert isinstance(placed, shapely.MultiPolygon)
        return placed

    @cached_property
    def _outline_px(self) -> shapely.MultiPolygon:
        found = self._polygonizer.finish().polygons
        if not len(found):
            return shapely.MultiPolygon()
        rings, owner = shapely.get_rings(found, return_index=True)
        is_outer = np.diff(owner, prepend=-1) > 0
        kept = is_outer | (shapely.area(shapely.polygons(rings)) >= self._least_hole_px)
        filled = [
            shapely.Polygon(outer, rings[kept & ~is_outer & (owner == index)])
            for index, outer in enumerate(rings[is_outer])
        ]
        simple = shapely.simplify(np.array(filled, np.object_), _TOLERANCE_PX)
        joined = shapely.multipolygons(list(simple))
        assert isinstance(joined, shapely.MultiPolygon)
        return joined
