"""Where things are: the warped street frame, districts, and the record of what was built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from shapely import STRtree
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry

from rooftrace.testing._canvas import Canvas, Colour, Rng
from rooftrace.testing._roofs import Building

__all__ = ["BLOCKED", "ROAD", "Frame", "Palette", "Road", "Town", "Tree"]

# What may lie on a pixel of `Canvas.taken`.
BLOCKED, ROAD = 1, 2

Floats = NDArray[np.float64]


class Frame:
    """The frame that streets follow: rotated, and bent where `bend_m` is not 0.

    Args:
        centre_xy: where (0, 0) lies, in the scene's metres.
        angle: radians.
        bend_m: how far a street strays from a straight line.
        phase: of the two waves.
        wave_m: their length.
        quarter: u runs where v ran, and v where -u ran.
    """

    def __init__(
        self,
        centre_xy: tuple[float, float],
        angle: float,
        bend_m: float,
        phase: tuple[float, float],
        wave_m: float = 330.0,
        quarter: bool = False,
    ) -> None:
        self.centre_xy, self.angle = centre_xy, angle
        self.bend_m, self.phase, self.wave_m = bend_m, phase, wave_m
        self.quarter = quarter

    def turned(self) -> Frame:
        """The same streets, seen with u and v exchanged."""
        at = (self.centre_xy, self.angle, self.bend_m, self.phase, self.wave_m)
        return Frame(*at, quarter=not self.quarter)

    def points(self, uv: Sequence[tuple[float, float]] | Floats) -> Floats:
        """(n, 2) in the scene's metres of (n, 2) in the frame."""
        at = np.asarray(uv, dtype=float)
        if self.quarter:
            at = np.stack([-at[:, 1], at[:, 0]], axis=1)
        k = 2 * math.pi / self.wave_m
        u = at[:, 0] + self.bend_m * np.sin(k * at[:, 1] + self.phase[0])
        v = at[:, 1] + self.bend_m * np.sin(k * at[:, 0] + self.phase[1])
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x = u * cos - v * sin + self.centre_xy[0]
        y = u * sin + v * cos + self.centre_xy[1]
        return np.asarray(np.round(np.stack([x, y], axis=1), 4), np.float64)

    def point(self, u: float, v: float) -> tuple[float, float]:
        x, y = self.points([(u, v)])[0]
        return float(x), float(y)

    def heading(self, u: float, v: float) -> float:
        """Direction of the u axis at a point, radians."""
        (x0, y0), (x1, y1) = self.points([(u - 1, v), (u + 1, v)])
        return round(math.atan2(y1 - y0, x1 - x0), 5)

    def line(self, u0: float, v0: float, u1: float, v1: float) -> LineString:
        steps = max(2, int(math.hypot(u1 - u0, v1 - v0) / 5) + 1)
        uv = np.stack([np.linspace(u0, u1, steps), np.linspace(v0, v1, steps)], axis=1)
        return LineString(self.points(uv))

    def area(self, u0: float, v0: float, u1: float, v1: float) -> Polygon:
        corners = [(u0, v0), (u1, v0), (u1, v1), (u0, v1)]
        ring: list[tuple[float, float]] = []
        for (a, b), (c, d) in zip(corners, corners[1:] + corners[:1], strict=True):
            steps = max(1, int(math.hypot(c - a, d - b) / 6))
            ring += [(a + (c - a) * i / steps, b + (d - b) * i / steps) for i in range(steps)]
        return Polygon(self.points(ring))


@dataclass(frozen=True)
class Palette:
    """The colours and habits of a region."""

    grass: Colour
    dry: Colour
    soil: Colour
    asphalt: Colour
    water: Colour
    crowns: tuple[Colour, ...]
    houses: tuple[str, ...]
    shacks: tuple[str, ...]
    palms: float
    paved: float
    pools: float


@dataclass(frozen=True)
class Tree:
    """A crown at `xy`, in metres; `kind` is "broad" or "palm"."""

    xy: tuple[float, float]
    radius_m: float
    kind: str


@dataclass(frozen=True)
class Road:
    """A road in the scene's metres; `marked` ones have a dashed line in their middle."""

    line: LineString
    width_m: float
    paved: bool
    marked: bool = False


@dataclass
class Town:
    """What the districts add to while they are laid out."""

    canvas: Canvas
    palette: Palette
    buildings: list[Building] = field(default_factory=list)
    outlines: list[Polygon] = field(default_factory=list)
    roads: list[Road] = field(default_factory=list)
    water: BaseGeometry = field(default_factory=Polygon)
    trees: list[Tree] = field(default_factory=list)
    cars: list[tuple[tuple[float, float], float]] = field(default_factory=list)

    def contains(self, xy: tuple[float, float], margin_m: float = 0.0) -> bool:
        height, width = self.canvas.size_m
        m = margin_m
        return -m <= xy[0] <= width + m and -m <= xy[1] <= height + m

    def is_open(self, xy: tuple[float, float]) -> bool:
        """True where a point lies on the canvas and nothing is there."""
        row, col = int(xy[1] / self.canvas.gsd_m), int(xy[0] / self.canvas.gsd_m)
        rows, cols = self.canvas.shape_yx
        # Below 0 the division rounds towards the first pixel, hence the test on the metres.
        on = xy[0] >= 0 and xy[1] >= 0 and row < rows and col < cols
        return on and not self.canvas.taken[row, col]

    def build(
        self, building: Building, *, inside: BaseGeometry | None = None, gap_m: float = 1.0
    ) -> bool:
        """Add the building where it is free, with `gap_m` around it; False where it is not."""
        if not self.has_room(building, inside, gap_m):
            return False
        self.add([building])
        return True

    def has_room(self, building: Building, inside: BaseGeometry | None, gap_m: float) -> bool:
        """True where the building lies in `inside`, and nothing is within `gap_m` of it."""
        if not self.canvas.is_free(building.footprint(gap_m)):
            return False
        return inside is None or bool(inside.contains(building.footprint()))

    def add(self, buildings: Sequence[Building]) -> None:
        """Add buildings (touching ones together) whose place is known to be free."""
        for building in buildings:
            shape = building.footprint()
            self.buildings.append(building)
            self.outlines.append(shape)
            self.canvas.fill(Polygon(shape.exterior), None, taken=BLOCKED)

    def park(self, xy: tuple[float, float], heading: float, *, on_road: bool = True) -> None:
        """A car; one that should be on a road is left out where there is none (a bridge)."""
        row, col = int(xy[1] / self.canvas.gsd_m), int(xy[0] / self.canvas.gsd_m)
        rows, cols = self.canvas.shape_yx
        if on_road and not (0 <= row < rows and 0 <= col < cols):
            return
        if on_road and self.canvas.taken[row, col] != ROAD:
            return
        if on_road and any(abs(x - xy[0]) + abs(y - xy[1]) < 6 for (x, y), _ in self.cars):
            return
        self.cars.append((xy, heading))

    def plant(self, rng: Rng, xy: tuple[float, float], radius_m: float) -> None:
        """A tree, unless most of it would hide a roof or a road."""
        canvas = self.canvas
        row, col = int(xy[1] / canvas.gsd_m), int(xy[0] / canvas.gsd_m)
        if 0 <= row < canvas.shape_yx[0] and 0 <= col < canvas.shape_yx[1]:
            if canvas.taken[row, col]:
                return
        elif not self.contains(xy, radius_m):
            return
        kind = "palm" if rng.random() < self.palette.palms else "broad"
        self.trees.append(Tree(xy, radius_m, kind))

    def disjoint(self) -> list[int]:
        """Indices of buildings whose interiors overlap none before them."""
        if not self.outlines:
            return []
        tree = STRtree(self.outlines)
        first, second = tree.query(self.outlines, predicate="intersects")
        dropped: set[int] = set()
        for i, j in sorted(zip(first.tolist(), second.tolist(), strict=True)):
            if i >= j or i in dropped or j in dropped:
                continue
            if self.outlines[i].intersection(self.outlines[j]).area > 1e-3:
                dropped.add(j)
        return [i for i in range(len(self.outlines)) if i not in dropped]
