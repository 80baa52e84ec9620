"""Built-up density of a scene by grid cell or by zone, from its mask and its buildings.

Built-up shares come from a mask; without a mask they come from the exact areas of the polygons.
Pixels count in the cell of their centre; zones divide the regions of the pixels exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.arrays import in_steps
from rooftrace.core.errors import ConfigError
from rooftrace.core.text import plain_number
from rooftrace.core.types import BoolArray, Floats, GeoGrid, Ints, Polygons, Window
from rooftrace.density.cells import CellGrid, DensityFigures, DensityGrid, GroundPlane
from rooftrace.io.legend import NODATA

Mask8 = NDArray[np.uint8]

_NODE_PX = 64
"""Distance in pixels between the nodes that are projected exactly. Coordinates between nodes are
interpolated bilinearly, with an error of less than a thousandth of a pixel.
"""

_SQUARE_PX = 16
"""Side in pixels of the squares that are assigned to a cell as a whole where they lie in one cell.
"""

_SQUARES_AT_ONCE = 1024
"""Maximum number of squares whose pixels are assigned one by one in a single step."""


CellCounts = tuple[Ints, Ints, Ints]
"""(n,) indices of cells, and their numbers of valid pixels and of building pixels."""


@dataclass(frozen=True)
class _Squares:
    """The squares of the grid that a block touches, with the ground coordinates of their corners.

    Args:
        rows, cols: Lines between the squares, in pixels of the grid.
        x, y: (lines, lines) coordinates of the corners in metres.
    """

    rows: Ints
    cols: Ints
    x: Floats
    y: Floats

    @classmethod
    def of(cls, ground: GroundPlane, window: Window) -> _Squares:
        height, width = ground.grid.shape
        rows, node_rows = _lines(window.row, window.row_stop, height)
        cols, node_cols = _lines(window.col, window.col_stop, width)
        x, y = ground.metres(*np.meshgrid(node_cols.astype(float), node_rows.astype(float)))
        along, down = _between(cols, node_cols), _between(rows, node_rows)
        return cls(rows, cols, _bilinear(x, down, along), _bilinear(y, down, along))

    def pixels(self, down: Ints, along: Ints) -> tuple[Ints, Ints, Floats, Floats]:
        """Return row, column, x and y (k, 16, 16) of the pixel centres of k squares."""
        top, left = self.rows[down], self.cols[along]
        height, width = self.rows[down + 1] - top, self.cols[along + 1] - left
        step = np.arange(_SQUARE_PX)
        v = ((step + 0.5) / height[:, None])[:, :, None]
        u = ((step + 0.5) / width[:, None])[:, None, :]
        rows = np.where(v < 1, (top[:, None] + step)[:, :, None], -1)
        cols = np.where(u < 1, (left[:, None] + step)[:, None, :], -1)
        xy = []
        for values in (self.x, self.y):
            a, b = values[down, along], values[down, along + 1]
            c, d = values[down + 1, along], values[down + 1, along + 1]
            a, b, c, d = (corner[:, None, None] for corner in (a, b, c, d))
            xy.append(np.asarray(a + (b - a) * u + (c - a) * v + (d - b - c + a) * (u * v)))
        rows, cols = np.broadcast_arrays(rows, cols)
        return rows, cols, xy[0], xy[1]


def _lines(start: int, stop: int, size: int) -> tuple[Ints, Ints]:
    """Return the lines between squares, and the nodes, that cover the range from start to stop."""
    low, high = start // _NODE_PX, -(-stop // _NODE_PX)
    nodes = np.minimum(np.arange(low, high + 1) * _NODE_PX, size)
    first, last = start // _SQUARE_PX, -(-stop // _SQUARE_PX)
    return np.minimum(np.arange(first, last + 1) * _SQUARE_PX, size), nodes


def _between(lines: Ints, nodes: Ints) -> tuple[Ints, Floats]:
    """Return the node before each line, and the position of the line between two nodes, 0..1."""
    node = (np.searchsorted(nodes, lines, side="right") - 1).clip(0, len(nodes) - 2)
    return node, (lines - nodes[node]) / (nodes[node + 1] - nodes[node])


def _bilinear(values: Floats, down: tuple[Ints, Floats], along: tuple[Ints, Floats]) -> Floats:
    (row, v), (col, u) = down, along
    v = v[:, None]
    above, below = values[row], values[row + 1]
    left = above[:, col] * (1 - v) + below[:, col] * v
    right = above[:, col + 1] * (1 - v) + below[:, col + 1] * v
    return np.asarray(left * (1 - u) + right * u)


_AREA_STEPS = 2**20
"""Steps per square metre in which areas are added. Sums of integers do not depend on the order."""

_POLYGONS_AT_ONCE, _MARGIN = 2**16, 2**12
"""Maximum number of polygons that are divided by cells at once; number of centroids before and
behind some among which the nearest ones are looked for first."""


class DensityAccumulator:
    """Built-up density from a mask that arrives block by block, and from its buildings.

    Each pixel counts in the cell of its centre, each building in the cell of its centroid. Counts
    are integers, so that the result does not depend on the division into blocks and chunks.

    Args:
        grid: Grid of the mask.
        cell_m: Side of a cell in metres. Cells lie in the mask's coordinate system where its metres
            are metres on the ground, otherwise in the system that `metric_crs` chooses.
        building_class: Class index of buildings in the mask.
        gsd_m: Metres per pixel of a mask without georeference.
        min_area_m2: Minimum area of a building that is counted; pixels of smaller ones still count.
        name: Name of the mask in error messages.

    Raises:
        GeoreferenceError: Neither the grid nor `gsd_m` gives metres.
        ConfigError: Cells are smaller than pixels or too many, or `gsd_m` is given for a
            georeferenced grid.
    """

    def __init__(
        self,
        grid: GeoGrid,
        cell_m: float,
        *,
        building_class: int = 1,
        gsd_m: float | None = None,
        min_area_m2: float = 0.0,
        name: str = "The image",
    ) -> None:
        self.ground = GroundPlane.of(grid, gsd_m, name=name)
        pixel = max(grid.gsd_yx_m or (0.0,)) if gsd_m is None else gsd_m
        if cell_m < pixel:
            raise ConfigError(
                f"Cells of {cell_m:g} m are smaller than the pixels of {name}, "
                f"{plain_number(pixel, 4)} m.",
                remedy="Use larger cells, of many pixels each: --cell 100",
            )
        height, width = grid.shape
        rows, cols = (
            np.append(np.arange(0, n, _NODE_PX), n).astype(float) for n in (height, width)
        )
        zero_r, zero_c = np.zeros_like(rows), np.zeros_like(cols)
        along = np.concatenate([cols, cols, zero_r, zero_r + width])
        down = np.concatenate([zero_c, zero_c + height, rows, rows])
        x, y = self.ground.metres(along, down)
        bounds = float(x.min()), float(y.min()), float(x.max()), float(y.max())
        self.cells = CellGrid.over(bounds, cell_m, self.ground.crs)
        self._class = building_class
        # The row of cells for each row of pixels, and the column for each column, where these are
        # parallel.
        self._aligned: tuple[Ints, Ints] | None = None
        crs, t = self.ground.crs, grid.transform
        if crs is None or (grid.crs == crs and t.b == 0 and t.d == 0):
            x, _ = self.ground.metres(np.arange(0.5, width), np.zeros(width))
            _, y = self.ground.metres(np.zeros(height), np.arange(0.5, height))
            self._aligned = self.cells.rows(y), self.cells.columns(x)
        self.valid_px: Ints = np.zeros(self.cells.count, np.int64)
        self.built_px: Ints = np.zeros(self.cells.count, np.int64)
        self.measured: list[Measured] = []
        """Buildings on the plane of the cells, also those that another process has measured."""

        self._min_area_m2 = min_area_m2

    def feed(self, window: Window, mask: Mask8) -> None:
        """Add a block of the mask.

        Args:
            window: Window of the block in the grid; it overlaps no block fed before.
            mask: (y, x) class indices; NODATA (255) marks unknown pixels.
        """
        if self._aligned is not None:
            row_of = self._aligned[0][window.row : window.row_stop]
            col_of = self._aligned[1][window.col : window.col_stop]
            rows = np.flatnonzero(np.diff(row_of, prepend=-1))
            cols = np.flatnonzero(np.diff(col_of, prepend=-1))
            cell = row_of[rows][:, None] * self.cells.shape[1] + col_of[cols]
            self._add(window, mask, rows, cols, cell)
            return
        squares = _Squares.of(self.ground, window)
        corners = self.cells.index(squares.x, squares.y)
        first = corners[:-1, :-1]
        # Cells are convex: a square whose four corners lie in one cell lies in that cell.
        one = (first == corners[1:, :-1]) & (first == corners[:-1, 1:])
        one &= first == corners[1:, 1:]
        rows = (squares.rows[:-1] - window.row).clip(0)
        cols = (squares.cols[:-1] - window.col).clip(0)
        self._add(window, mask, rows, cols, np.where(one, first, -1))
        self._add_one_by_one(window, mask, squares, *np.nonzero(~one | (first < 0)))

    def count(self, window: Window, mask: Mask8) -> CellCounts:
        """Return the counts of a block alone, for `add_counts`; see `feed`."""
        alone = copy(self)
        alone.valid_px, alone.built_px = np.zeros((2, self.cells.count), np.int64)
        alone.feed(window, mask)
        cell = np.flatnonzero(alone.valid_px)
        return cell, alone.valid_px[cell], alone.built_px[cell]

    def add_counts(self, counts: CellCounts) -> None:
        """Add a block that another process has counted."""
        cell, valid_px, built_px = counts
        self.valid_px[cell] += valid_px
        self.built_px[cell] += built_px

    def add(self, polygons: Polygons, counted: BoolArray | None = None) -> None:
        """Add buildings (n,) on the plane of the cells, see `measure_buildings`."""
        self.measured.append(measure_buildings(polygons, counted, self._min_area_m2))

    def finish(self) -> DensityGrid:
        """Return the figures of everything that was fed and added."""
        valid, built = self.valid_px, self.built_px
        seen = np.flatnonzero(valid)
        row, col = np.divmod(seen, self.cells.shape[1])
        x = (self.cells.first_col + col + 0.5) * self.cells.cell_m
        y = (self.cells.top_row - row + 0.5) * self.cells.cell_m
        px_area = np.zeros(len(valid))
        px_area[seen] = self.ground.px_area_m2(x, y)
        return _on_grid(self.cells, valid * px_area, built * px_area, self.measured)

    def _add(self, window: Window, mask: Mask8, rows: Ints, cols: Ints, cell: Ints) -> None:
        """Add the counts of rectangles that lie in one cell.

        `rows` and `cols` are the first ones of each rectangle in the block, ascending; `cell` is
        the (rows, columns) cell that holds it, -1 where it reaches into several.
        """
        counts = np.zeros((2, *cell.shape), np.int64)
        for number, (start, stop) in enumerate(zip(rows, [*rows[1:], len(mask)])):
            for count, value in zip(counts, (self._class, NODATA)):
                band = (mask[start:stop] == value).view(np.uint8)
                down = cv2.reduce(band, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0]
                count[number] = np.add.reduceat(down, cols)
        heights = np.diff(rows, append=window.height)
        area = heights[:, None] * np.diff(cols, append=window.width)
        whole = cell >= 0
        np.add.at(self.built_px, cell[whole], counts[0][whole])
        np.add.at(self.valid_px, cell[whole], (area - counts[1])[whole])

    def _add_one_by_one(
        self, window: Window, mask: Mask8, squares: _Squares, down: Ints, along: Ints
    ) -> None:
        """Count the pixels of squares that reach into several cells, each pixel in its own cell.

        `down` and `along` are the (k,) rows and columns of these squares.
        """
        for start in range(0, len(down), _SQUARES_AT_ONCE):
            chosen = slice(start, start + _SQUARES_AT_ONCE)
            rows, cols, x, y = squares.pixels(down[chosen], along[chosen])
            inside = (
                (rows >= window.row) & (rows < window.row_stop)
                & (cols >= window.col) & (cols < window.col_stop)
            )  # fmt: skip
            cell = self.cells.index(x[inside], y[inside])
            values = mask[rows[inside] - window.row, cols[inside] - window.col]
            known = (cell >= 0) & (values != NODATA)
            np.add.at(self.valid_px, cell[known], 1)
            np.add.at(self.built_px, cell[known & (values == self._class)], 1)


def density_of_polygons(
    buildings: Polygons,
    cells: CellGrid,
    observed: Polygons | None = None,
    built: Polygons | None = None,
    counted: BoolArray | None = None,
) -> DensityGrid:
    """Return the built-up density of polygons, with exact areas.

    Args:
        buildings: (n,) valid polygons on the plane of the cells; ground under several of them is
            built up once.
        cells: Grid of cells that covers all polygons.
        observed: (k,) valid polygons of the observed area; None: every cell is observed.
        built: (m,) valid polygons of the built-up area; None: that of the buildings.
        counted: See `measure_buildings`.
    """

    def area_m2(polygons: Polygons) -> Floats:
        alone = without_overlaps(polygons)
        steps = np.zeros(cells.count, np.int64)
        for some in in_steps(alone, _POLYGONS_AT_ONCE):
            cell, area = cells.areas_of(some)
            np.add.at(steps, cell, np.rint(area * _AREA_STEPS).astype(np.int64))
        return np.asarray(steps / _AREA_STEPS)

    seen_m2 = np.full(cells.count, cells.cell_m**2) if observed is None else area_m2(observed)
    built_m2 = area_m2(buildings if built is None else built)
    return _on_grid(cells, seen_m2, built_m2, [measure_buildings(buildings, counted)])


def without_overlaps(polygons: Polygons) -> Polygons:
    """Return polygons of the same union, each without the ground that a larger one covers.

    Those without any ground of their own are left out. The order is from large to small.

    Args:
        polygons: (n,) valid polygons and multipolygons of a plane.
    """
    # The few that are large may overlap thousands, so that it is the others that are cut.
    order = np.lexsort((*shapely.bounds(polygons).T, -shapely.area(polygons)))
    rank = np.argsort(order)
    whole = polygons[order]
    rest = whole.copy()
    # Polygons lie in memory in the order in which they were read, which is twice as fast to search.
    tree = shapely.STRtree(polygons)
    for start in range(0, len(whole), _POLYGONS_AT_ONCE):
        own, larger = tree.query(polygons[start : start + _POLYGONS_AT_ONCE])
        own, larger = rank[own + start], rank[larger]
        own, larger = own[larger < own], larger[larger < own]
        overlap = shapely.intersects(whole[own], whole[larger])
        own, larger = own[overlap], larger[overlap]
        by_own = np.lexsort((larger, own))
        own, larger = own[by_own], larger[by_own]
        # One cut of each polygon at a time.
        turn = np.arange(len(own)) - np.searchsorted(own, own)
        for number in range(turn.max(initial=-1) + 1):
            now = turn == number
            rest[own[now]] = shapely.difference(rest[own[now]], whole[larger[now]])
    return rest[~shapely.is_empty(rest)]


def _on_grid(
    cells: CellGrid, observed_m2: Floats, built_m2: Floats, measured: Sequence[Measured]
) -> DensityGrid:
    xy, building_m2, counted = in_one_order(measured)
    place = cells.index(xy[:, 0], xy[:, 1])
    inside = np.flatnonzero((place >= 0) & counted)
    number, area_m2, nearest_m = figures_by_place(
        xy, building_m2, place[inside], inside, cells.count
    )
    figures = DensityFigures(
        np.full(cells.shape, cells.cell_m**2),
        observed_m2.reshape(cells.shape),
        built_m2.reshape(cells.shape),
        number.reshape(cells.shape),
        area_m2.reshape(cells.shape),
        nearest_m.reshape(cells.shape),
    )
    return DensityGrid(cells, figures, outside=len(xy) - len(inside))


_BESIDE_M = (1e-6, 0.6e-6)
"""Metres to the right and upwards by which a point on a border is moved to find its zone. Their
direction is not that of usual borders."""


_LEAST_SEEN = 0.001
"""Share of a zone below which it counts as not observed if no building was found there."""


def density_of_zones(
    zones: Polygons,
    buildings: Polygons,
    observed: Polygons | None = None,
    built: Polygons | None = None,
    counted: BoolArray | None = None,
) -> tuple[DensityFigures, Ints, Ints]:
    """Return the figures of each zone, and which buildings count in it.

    Areas are those of the intersections. A building counts in every zone that contains its
    centroid; a border belongs to the zone to the right of it or above it. The nearest other
    building may lie in another zone or in none.

    Args:
        zones: (n,) valid polygons and multipolygons on a plane in metres; they may overlap.
        buildings: (k,) valid polygons of the buildings, on this plane.
        observed: Polygons without overlaps of the observed area; None: everything is observed.
        built: Polygons without overlaps of the built-up area, which lie in the observed area; None:
            the ground under `buildings`.
        counted: (k,) bool, False for buildings that are only neighbours of others; None: all are
            counted.

    Returns:
        Figures (n,), and (p,) pairs of a building and a zone, in the order of the buildings.
    """
    tree = shapely.STRtree(zones)
    shapely.prepare(zones)
    xy, building_m2, is_counted = measure_buildings(buildings, counted)
    order = _order(xy, building_m2, is_counted)
    xy, building_m2, is_counted = xy[order], building_m2[order], is_counted[order]
    building, zone = _zones_of_points(zones, tree, xy)
    building, zone = building[is_counted[building]], zone[is_counted[building]]
    area = shapely.area(zones)
    seen = area if observed is None else _common_area(zones, tree, observed)
    built = without_overlaps(buildings) if built is None else built
    built_m2 = _common_area(zones, tree, built)
    by_place = figures_by_place(xy, building_m2, zone, building, len(zones))
    # Beside an area that was seen, a zone shares a sliver with it: nothing was looked for there.
    is_sliver = (seen < _LEAST_SEEN * area) & (built_m2 == 0) & (by_place[0] == 0)
    seen = np.where(is_sliver, 0, seen)
    building = order[building]
    pairs = np.lexsort((zone, building))
    return DensityFigures(area, seen, built_m2, *by_place), building[pairs], zone[pairs]


def _zones_of_points(zones: Polygons, tree: shapely.STRtree, xy: Floats) -> tuple[Ints, Ints]:
    """Return (k,) pairs of a point and a zone that contains it.

    Of a point on a border, these are the zones just to the right and above, as with cells. If
    there are none, the border is that of the first zone.
    """
    pairs = [np.empty((2, 0), np.int64)]
    for start in range(0, len(xy), _POLYGONS_AT_ONCE):
        point, zone = _zones_of_some(zones, tree, xy[start : start + _POLYGONS_AT_ONCE])
        pairs.append(np.stack([point + start, zone]))
    point, zone = np.concatenate(pairs, axis=1)
    return point, zone


def _zones_of_some(zones: Polygons, tree: shapely.STRtree, xy: Floats) -> tuple[Ints, Ints]:
    point, zone = tree.query(shapely.points(xy), predicate="intersects")
    order = np.lexsort((zone, point))
    point, zone = point[order], zone[order]
    kept = shapely.contains_properly(zones[zone], shapely.points(xy[point]))
    border = np.flatnonzero(~kept)
    beside = shapely.points(xy[point[border]] + _BESIDE_M)
    kept[border] = shapely.contains_properly(zones[zone[border]], beside)
    # A point may lie on the outer border of the zones alone.
    first = np.flatnonzero(np.diff(point, prepend=-1))
    kept[first] |= ~np.isin(point[first], point[kept])
    return point[kept], zone[kept]


def _common_area(zones: Polygons, tree: shapely.STRtree, polygons: Polygons) -> Floats:
    """Return (n,) areas that the polygons share with each zone."""
    polygon, zone = tree.query(polygons, predicate="intersects")
    # Most polygons lie within one zone. A test on a prepared zone is many times faster than an
    # intersection.
    within = shapely.contains_properly(zones[zone], polygons[polygon])
    areas = np.empty(len(zone))
    areas[within] = shapely.area(polygons[polygon[within]])
    cut = shapely.intersection(polygons[polygon[~within]], zones[zone[~within]])
    areas[~within] = shapely.area(cut)
    return np.bincount(zone, areas, minlength=len(zones)).astype(np.float64)


Measured = tuple[Floats, Floats, BoolArray]
"""(n, 2) centroids and (n,) areas of buildings; (n,) False for those that are only neighbours of
others and are not counted.
"""


def measure_buildings(
    polygons: Polygons, counted: BoolArray | None = None, min_area_m2: float = 0.0
) -> Measured:
    """Return the measures of buildings.

    Args:
        polygons: (n,) buildings on a plane in metres.
        counted: (n,) bool, False for those that are only neighbours of others; None: all are
            counted.
        min_area_m2: Area below which buildings are left out.
    """
    area_m2 = shapely.area(polygons)
    large = area_m2 >= min_area_m2
    counted = np.ones(len(polygons), np.bool_) if counted is None else counted
    return centres_of(polygons[large]), area_m2[large], counted[large]


def centres_of(polygons: Polygons) -> Floats:
    """Return (n, 2) centroids. Points take ten times the memory, so few are made at once."""
    some = map(shapely.centroid, in_steps(polygons, _POLYGONS_AT_ONCE))
    return np.concatenate([np.empty((0, 2)), *map(shapely.get_coordinates, some)])


def in_one_order(parts: Sequence[Measured]) -> Measured:
    """Return all buildings in an order that does not depend on the order of the parts."""
    none = np.empty((0, 2)), np.empty(0), np.empty(0, np.bool_)
    xy, area_m2, counted = map(np.concatenate, zip(none, *parts))
    order = _order(xy, area_m2, counted)
    return xy[order], area_m2[order], counted[order]


def _order(xy: Floats, area_m2: Floats, counted: BoolArray) -> Ints:
    return np.lexsort((counted, area_m2, xy[:, 1], xy[:, 0]))


def figures_by_place(
    xy: Floats, area_m2: Floats, place: Ints, building: Ints, count: int
) -> tuple[Ints, Floats, Floats]:
    """Return (count,) numbers of buildings, their total areas and their mean nearest distances by
    place.

    Args:
        xy, area_m2: Buildings, see `in_one_order`.
        place, building: (k,) pairs of a place and the index of a building.
        count: Number of places.
    """
    number = np.bincount(place, minlength=count).astype(np.int64)
    area = np.bincount(place, area_m2[building], minlength=count)
    total = np.bincount(place, nearest_neighbour(xy)[building], minlength=count)
    known = (number > 0) & np.isfinite(total)
    mean = np.full(count, np.nan)
    mean[known] = total[known] / number[known]
    return number, area.astype(np.float64), mean


def nearest_neighbour(xy: Floats) -> Floats:
    """Return the exact distance from each point to the nearest other point.

    Args:
        xy: (n, 2) finite coordinates.

    Returns:
        (n,) distances; 0 where points coincide, and infinite for a single point.
    """
    places, number, count = np.unique(xy, axis=0, return_inverse=True, return_counts=True)
    apart = np.where(count > 1, 0.0, np.inf)
    # Places are in the order of x: the nearest one is mostly among those just before and behind.
    for rest in in_steps(np.arange(len(places)), _POLYGONS_AT_ONCE):
        rest, margin = rest[count[rest] == 1], _MARGIN
        while len(rest) and len(places) > 1:
            first, stop = max(rest[0] - margin, 0), rest[-1] + 1 + margin
            near = places[first:stop]
            points = np.asarray(shapely.points(near))
            tree = shapely.STRtree(points)
            _, other = tree.query_nearest(points[rest - first], exclusive=True, all_matches=False)
            distance = np.hypot(*(places[rest] - near[other]).T)
            x = places[rest, 0]
            left = x - near[0, 0] if first else np.inf
            right = near[-1, 0] - x if stop < len(places) else np.inf
            is_sure = distance <= np.minimum(left, right)
            apart[rest[is_sure]] = distance[is_sure]
            rest, margin = rest[~is_sure], 4 * margin
    return np.asarray(apart[number])
