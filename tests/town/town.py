"""The town of a synthetic scene: street frame, streets, trees, cars and light.

`Town` records what the districts add. The drawing functions paint roads, trees and cars on the
canvas, cast shadows and expose the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from shapely import STRtree, union_all
from shapely.geometry import LineString, MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from rooftrace.core.types import Floats
from town.buildings import Building, Sun
from town.canvas import Canvas, Colour, Palette, Rng, jitter, noise, polygons_of, scaled

# Values of `Canvas.taken`.
BLOCKED, ROAD = 1, 2


@dataclass(frozen=True)
class Frame:
    """The coordinate frame of the streets: rotated, and bent where `bend_m` is not 0.

    Args:
        centre_xy: Position of (0, 0) in the scene's metres.
        angle: Angle in radians.
        bend_m: Maximum deviation of a street from a straight line, in metres.
        phase: Phases of the two waves.
        wave_m: Length of the waves.
        quarter: True to rotate by a quarter turn: u takes the place of v, and v that of -u.
    """

    centre_xy: tuple[float, float]
    angle: float
    bend_m: float
    phase: tuple[float, float]
    wave_m: float = 330.0
    quarter: bool = False

    def turned(self) -> Frame:
        """Return the same streets with u and v exchanged."""
        return replace(self, quarter=not self.quarter)

    def points(self, uv: Sequence[tuple[float, float]] | Floats) -> Floats:
        """Return (n, 2) points in the scene's metres for (n, 2) points in the frame."""
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
        """Return the direction of the u axis at a point, in radians."""
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
class Tree:
    """A tree crown at `xy`, in metres; `kind` is "broad" or "palm"."""

    xy: tuple[float, float]
    radius_m: float
    kind: str


@dataclass(frozen=True)
class Road:
    """A road in the scene's metres; `marked` roads have a dashed centre line."""

    line: LineString
    width_m: float
    paved: bool
    marked: bool = False


@dataclass
class Town:
    """Buildings, roads, trees and cars that the districts add during the layout."""

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
        """Return True if a point lies on the canvas and nothing occupies it."""
        # Below 0 the division rounds towards the first pixel, hence the test of the metres.
        return xy[0] >= 0 and xy[1] >= 0 and self._taken_at(xy) == 0

    def _taken_at(self, xy: tuple[float, float]) -> int | None:
        """Return the value of `Canvas.taken` at a point, or None outside of the canvas."""
        row, col = int(xy[1] / self.canvas.gsd_m), int(xy[0] / self.canvas.gsd_m)
        rows, cols = self.canvas.shape_yx
        inside = 0 <= row < rows and 0 <= col < cols
        return int(self.canvas.taken[row, col]) if inside else None

    def build(
        self, building: Building, *, inside: BaseGeometry | None = None, gap_m: float = 1.0
    ) -> bool:
        """Add the building if its ground is free, with `gap_m` around it; otherwise return
        False.
        """
        if not self.has_room(building, inside, gap_m):
            return False
        self.add([building])
        return True

    def has_room(self, building: Building, inside: BaseGeometry | None, gap_m: float) -> bool:
        """Return True if the building lies in `inside` and nothing is within `gap_m` of it."""
        if not self.canvas.is_free(building.footprint(gap_m)):
            return False
        return inside is None or bool(inside.contains(building.footprint()))

    def add(self, buildings: Sequence[Building]) -> None:
        """Add buildings (touching ones together) whose ground is known to be free."""
        for building in buildings:
            shape = building.footprint()
            self.buildings.append(building)
            self.outlines.append(shape)
            self.canvas.fill(Polygon(shape.exterior), None, taken=BLOCKED)

    def park(self, xy: tuple[float, float], heading: float, *, on_road: bool = True) -> None:
        """Add a car. A car that should be on a road is dropped where there is none, as on a
        bridge.
        """
        if on_road and self._taken_at(xy) != ROAD:
            return
        if on_road and any(abs(x - xy[0]) + abs(y - xy[1]) < 6 for (x, y), _ in self.cars):
            return
        self.cars.append((xy, heading))

    def plant(self, rng: Rng, xy: tuple[float, float], radius_m: float) -> None:
        """Add a tree, unless most of it would hide a roof or a road."""
        taken = self._taken_at(xy)
        if taken or (taken is None and not self.contains(xy, radius_m)):
            return
        kind = "palm" if rng.random() < self.palette.palms else "broad"
        self.trees.append(Tree(xy, radius_m, kind))

    def disjoint(self) -> list[int]:
        """Return the indices of buildings whose interiors overlap no earlier building."""
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


_KERB_M = 1.3


@dataclass(frozen=True)
class Cell:
    """A district's rectangle in the frame, with the ground in it that is neither road nor water."""

    u0: float
    v0: float
    u1: float
    v1: float
    ground: MultiPolygon

    @property
    def area_m2(self) -> float:
        return (self.u1 - self.u0) * (self.v1 - self.v0)

    def sample(self, rng: Rng) -> tuple[float, float]:
        """Return a random point (u, v) of the rectangle."""
        return rng.uniform(self.u0, self.u1), rng.uniform(self.v0, self.v1)


def _lay(town: Town, road: Road) -> None:
    """Add a road and reserve its ground, so that nothing is built on it; it is painted later."""
    town.roads.append(road)
    half = road.width_m / 2 + (_KERB_M if road.paved else 0.3)
    town.canvas.fill(road.line.buffer(half, cap_style="flat"), None, taken=ROAD)


def _street(
    town: Town, frame: Frame, ends: tuple[float, float, float, float], width_m: float
) -> None:
    line = frame.line(*ends).difference(town.water.buffer(10))
    paved = town.palette.paved > 0.5
    for part in getattr(line, "geoms", [line]):
        if part.length > 6:
            _lay(town, Road(part, width_m, paved))


def drive_along(rng: Rng, town: Town, road: Road, spacing_m: float) -> None:
    """Add cars on both sides of a road, `spacing_m` metres from one another on average."""
    for _ in range(int(road.line.length / spacing_m)):
        at = float(rng.uniform(2, max(3.0, road.line.length - 2)))
        a, b = road.line.interpolate(at - 1), road.line.interpolate(at + 1)
        dx, dy = b.x - a.x, b.y - a.y
        length = max(float(np.hypot(dx, dy)), 1e-6)
        side = (road.width_m / 2 - 1.3) * (-1.0 if rng.random() < 0.5 else 1.0)
        spot = ((a.x + b.x) / 2 - dy / length * side, (a.y + b.y) / 2 + dx / length * side)
        town.park(spot, float(np.arctan2(dy, dx)))


def grid_streets(
    rng: Rng, town: Town, frame: Frame, cell: Cell, depth_m: float, width_m: float
) -> list[float]:
    """Add parallel streets along u about every `depth_m`, and often one across; return their v."""
    span = cell.v1 - cell.v0
    count = max(1, round(span / depth_m))
    streets = [cell.v0 + span * (i + 0.5) / count for i in range(count)]
    before = len(town.roads)
    if count > 1 and rng.random() < 0.7:
        middle = cell.u0 + (cell.u1 - cell.u0) * rng.uniform(0.35, 0.65)
        _street(town, frame, (middle, cell.v0 - 8, middle, cell.v1 + 8), width_m)
    for v in streets:
        _street(town, frame, (cell.u0 - 8, v, cell.u1 + 8, v), width_m)
    for road in town.roads[before:]:
        drive_along(rng, town, road, 24)
    return streets


def arterials(
    rng: Rng, town: Town, frame: Frame, cuts: Sequence[tuple[float, float, float, float, int]]
) -> None:
    """Add the main roads between the cells; the first cuts are the widest."""
    for u0, v0, u1, v1, depth in cuts:
        width_m = (9.6, 8.6, 7.4, 6.8)[min(depth, 3)]
        road = Road(frame.line(u0, v0, u1, v1), width_m, True, marked=depth < 3)
        _lay(town, road)
        drive_along(rng, town, road, 22)


def street_trees(rng: Rng, town: Town) -> None:
    """Add trees on the verge of about every second main road."""
    for road in town.roads:
        if road.width_m < 6.7 or rng.random() < 0.45:
            continue
        for way in (-1.0, 1.0):
            verge = road.line.offset_curve(way * (road.width_m / 2 + 2.9))
            if verge.is_empty or verge.geom_type != "LineString":
                continue
            for at in np.arange(3.0, verge.length, 8.5):
                spot = verge.interpolate(float(at + rng.uniform(-1.5, 1.5)))
                if rng.random() < 0.75:
                    town.plant(rng, (spot.x, spot.y), rng.uniform(1.3, 2.8))


def draw_roads(town: Town) -> None:
    """Paint all roads: dirt first, then kerbs and carriageways, so that junctions are open."""
    palette, canvas = town.palette, town.canvas
    dirt = [road for road in town.roads if not road.paved]
    paved = [road for road in town.roads if road.paved]
    for road in dirt:
        way = road.line.buffer(road.width_m / 2)
        canvas.fill(way, scaled(palette.soil, 1.1), texture=0.6, height_m=0.0)
        wheel = scaled(palette.soil, 1.18)
        canvas.fill(road.line.buffer(road.width_m / 4), wheel, texture=0.5)
    kerbs = union_all([road.line.buffer(road.width_m / 2 + _KERB_M) for road in paved])
    for part in polygons_of(kerbs):
        canvas.fill(part, (166, 162, 154), texture=0.25, height_m=0.0)
    lanes = union_all([road.line.buffer(road.width_m / 2) for road in paved])
    for part in polygons_of(lanes):
        canvas.fill(part, palette.asphalt, texture=0.22)
    for road in paved:
        if road.marked:
            others = union_all([r.line for r in paved if r is not road])
            for at in np.arange(2.0, road.line.length - 4, 9.0):
                dash = [road.line.interpolate(float(at)), road.line.interpolate(float(at) + 3.4)]
                if others.is_empty or dash[0].distance(others) > road.width_m:
                    canvas.line(np.array([(p.x, p.y) for p in dash]), (208, 208, 202))


def yard(
    rng: Rng, town: Town, frame: Frame, cell: Cell, box: tuple[float, float, float, float]
) -> None:
    """Paint the ground of one plot (u0, v0, u1, v1): lawn, soil or pavement, sometimes fenced."""
    palette = town.palette
    roll = rng.random()
    colour: Colour = palette.grass if roll < 0.5 else palette.dry if roll < 0.75 else palette.soil
    plot = frame.area(*box)
    lawn = plot.intersection(cell.ground)
    town.canvas.fill(lawn, jitter(rng, colour, 7), texture=rng.uniform(0.5, 0.9))
    if rng.random() < 0.6 and cell.ground.contains(plot):
        tone: Colour = (136, 124, 108) if rng.random() < 0.5 else (70, 88, 52)
        ring = np.asarray(plot.exterior.coords)
        town.canvas.line(ring, jitter(rng, tone), height_m=1.4)


_CARS = (
    (226, 226, 224), (206, 208, 210), (168, 172, 176), (60, 62, 66), (38, 38, 42),
    (150, 40, 36), (46, 70, 120), (196, 180, 150),
)  # fmt: skip


def _crown(rng: Rng, radius_px: float, kind: str, sun: Sun) -> tuple[NDArray[Any], ...]:
    """Return light (128 is even), coverage and relative height of one crown, all (n, n)."""
    s = 3
    n = math.ceil(radius_px) * 2 + 3
    grid = (np.arange(n * s) + 0.5) / s - n / 2
    y, x = np.meshgrid(grid, grid, indexing="ij")
    dome = np.zeros((n * s, n * s), np.float64)
    if kind == "palm":
        for k in range(int(rng.integers(7, 10))):
            turn = 2 * math.pi * (k + rng.uniform(-0.2, 0.2)) / 8
            along = x * math.cos(turn) + y * math.sin(turn)
            side = np.abs(y * math.cos(turn) - x * math.sin(turn))
            leaf = 1 - side / (0.17 * radius_px + 0.12 * along.clip(0)) - (along / radius_px) ** 4
            dome = np.maximum(dome, np.where(along > 0, leaf.clip(0, 1) * 0.8, 0))
    else:
        for k in range(int(rng.integers(9, 16))):
            turn, out = rng.uniform(0, 2 * math.pi), radius_px * (0.62 * math.sqrt(rng.random()))
            own = radius_px * rng.uniform(0.28, 0.5) if k else radius_px * 0.62
            if k == 0:
                out = 0.0
            dx, dy = x - out * math.cos(turn), y - out * math.sin(turn)
            bump = 1 - (dx * dx + dy * dy) / (own * own)
            lift = 1 - 0.45 * (out / radius_px)
            dome = np.maximum(dome, np.sqrt(bump.clip(0)) * lift)
    gy, gx = np.gradient(dome * radius_px * 0.8 * s)
    light = 128 - 62 * (gx * sun.towards_xy[0] + gy * sun.towards_xy[1]) / np.hypot(
        np.hypot(gx, gy), 1.0
    )
    light += (dome - 0.6) * 60
    cover = np.where(dome > 0.02, 255.0, 0.0)
    planes = [np.clip(p, 0, 255).astype(np.uint8) for p in (light, cover, dome * 255)]
    return tuple(cv2.resize(p, (n, n), interpolation=cv2.INTER_AREA) for p in planes)


def draw_trees(canvas: Canvas, trees: list[Tree], palette: Palette, sun: Sun, rng: Rng) -> None:
    """Paint crowns over everything below; a crown may overhang a roof."""
    sprites: dict[tuple[str, int, int], tuple[NDArray[Any], ...]] = {}
    for tree in trees:
        radius_px = max(1.2, tree.radius_m / canvas.gsd_m)
        key = (tree.kind, round(radius_px), int(rng.integers(0, 4)))
        if key not in sprites:
            sprites[key] = _crown(rng, key[1], tree.kind, sun)
        light, cover, dome = sprites[key]
        n = light.shape[0]
        row = int(tree.xy[1] / canvas.gsd_m - n / 2)
        col = int(tree.xy[0] / canvas.gsd_m - n / 2)
        rows = slice(max(row, 0), min(row + n, canvas.shape_yx[0]))
        cols = slice(max(col, 0), min(col + n, canvas.shape_yx[1]))
        colour = jitter(rng, palette.crowns[int(rng.integers(len(palette.crowns)))], 9)
        if rows.start >= rows.stop or cols.start >= cols.stop:
            continue
        cut = (slice(rows.start - row, rows.stop - row), slice(cols.start - col, cols.stop - col))
        tone = light[cut].astype(np.float32) / np.float32(128)
        alpha = cover[cut]
        rgb = np.clip(tone[..., None] * np.array(colour, np.float32), 0, 250)
        premultiplied = (rgb * (alpha.astype(np.float32) / np.float32(255))[..., None]).astype(
            np.uint8
        )
        top = min(2.0 + tree.radius_m * 1.7, 12.0) * 10
        dome_share = dome[cut].astype(np.float32) * np.float32(0.6 / 255) + np.float32(0.4)
        height = (dome_share * np.float32(top)).astype(np.uint8)
        canvas.blend(rows, cols, premultiplied, alpha, height, 0.35)


def draw_cars(canvas: Canvas, cars: list[tuple[tuple[float, float], float]], rng: Rng) -> None:
    """Paint cars with windows darker than the body."""
    for xy, heading in cars:
        long, wide = rng.uniform(3.9, 4.7), rng.uniform(1.7, 1.9)
        body = jitter(rng, _CARS[int(rng.integers(len(_CARS)))], 6)
        window = canvas.window((xy[0] - 4, xy[1] - 4, xy[0] + 4, xy[1] + 4))
        if window is None:
            continue
        rows, cols = window
        s = 4
        size = (rows.stop - rows.start, cols.stop - cols.start)
        patch = np.zeros((size[0] * s, size[1] * s, 4), np.uint8)
        for u0, u1, half, tone in (
            (-long / 2, long / 2, wide / 2, body),
            (-long * 0.38, long * 0.24, wide * 0.44, scaled(body, 0.28)),
            (-long * 0.26, long * 0.06, wide * 0.42, scaled(body, 1.06)),
        ):
            corners = np.array([(u0, -half), (u1, -half), (u1, half), (u0, half)])
            turn = np.array(
                [[math.cos(heading), math.sin(heading)], [-math.sin(heading), math.cos(heading)]]
            )
            at = (corners @ turn + np.array(xy)) / canvas.gsd_m - (cols.start, rows.start)
            points = np.rint(at * (s * 16)).astype(np.int32)
            cv2.fillPoly(patch, [points], (*tone, 255.0), shift=4)
        small = cv2.resize(patch, (size[1], size[0]), interpolation=cv2.INTER_AREA)
        height = np.full(size, 14, np.uint8)
        canvas.blend(rows, cols, small[..., :3], small[..., 3], height)


def cast_shadows(canvas: Canvas, sun: Sun) -> NDArray[np.float32]:
    """Return (y, x) float32 in 0..1, the share of direct light that is blocked.

    Each pixel is compared with the pixels towards the sun, one step at a time, to find an obstacle
    above its line of sight.
    """
    height = canvas.height
    tallest = int(height.max())
    fall = math.tan(sun.elevation) * canvas.gsd_m * 10
    horizon = np.zeros_like(height)
    rows, cols = height.shape
    for step in range(1, int(tallest / fall) + 2):
        dx, dy = round(sun.towards_xy[0] * step), round(sun.towards_xy[1] * step)
        if abs(dx) >= cols or abs(dy) >= rows:
            break
        here = (slice(max(0, -dy), rows - max(0, dy)), slice(max(0, -dx), cols - max(0, dx)))
        there = (slice(max(0, dy), rows - max(0, -dy)), slice(max(0, dx), cols - max(0, -dx)))
        drop = min(255, round(step * fall))
        seen = np.maximum(height[there], np.uint8(drop)) - np.uint8(drop)
        np.maximum(horizon[here], seen, out=horizon[here])
    over = cv2.subtract(horizon, height)
    hidden = np.where(over > 2, np.uint8(255), np.uint8(0))
    soft = cv2.GaussianBlur(hidden, (3, 3), 0.8)
    return soft.astype(np.float32) / np.float32(255)


def expose(
    canvas: Canvas, shadow: NDArray[np.float32], rng: Rng, cast: tuple[float, float, float]
) -> NDArray[np.uint8]:
    """Return the image (3, y, x) uint8: ground noise, shadow, then blur, colour cast and noise."""
    shape = canvas.shape_yx
    px = 0.3 / canvas.gsd_m
    strength = canvas.rgba[..., 3].astype(np.float32) / np.float32(255)
    grain = noise(rng, shape, [1.2 * px + 0.6, 3 * px, 9 * px]) * strength
    patches = noise(rng, shape, [14 * px, 40 * px, 120 * px]) * strength
    light = 1 + np.float32(0.42) * grain + np.float32(0.3) * patches
    light *= 1 - np.float32(0.56) * shadow
    out = np.empty((3, *shape), np.uint8)
    for band, (warm, gain) in enumerate(zip((34.0, 6.0, -8.0), cast, strict=True)):
        plane = canvas.rgba[..., band].astype(np.float32)
        plane += patches * np.float32(warm)
        plane *= light
        # Shade is lit by the sky alone, so it is bluer than sunlight.
        plane += shadow * np.float32((0.0, 2.0, 9.0)[band])
        sharp = np.clip(plane * np.float32(gain), 0, 255).astype(np.uint8)
        out[band] = cv2.GaussianBlur(sharp, (3, 3), 0.55)
        speckle = rng.integers(-4, 5, shape, dtype=np.int8)
        out[band] = np.clip(out[band].astype(np.int16) + speckle, 0, 255)
    return out
