"""Cells of the street frame, the streets between them, and the plots along the streets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from shapely import union_all
from shapely.geometry import MultiPolygon

from rooftrace.testing._canvas import Colour, Rng, jitter, polygons_of, scaled
from rooftrace.testing._town import ROAD, Frame, Road, Town

__all__ = ["Cell", "arterials", "draw_roads", "drive_along", "grid_streets", "street_trees", "yard"]

_KERB_M = 1.3


@dataclass(frozen=True)
class Cell:
    """A district's rectangle in the frame, and the ground of it that is neither road nor water."""

    u0: float
    v0: float
    u1: float
    v1: float
    ground: MultiPolygon

    @property
    def area_m2(self) -> float:
        return (self.u1 - self.u0) * (self.v1 - self.v0)

    def sample(self, rng: Rng) -> tuple[float, float]:
        """A point of the rectangle, (u, v)."""
        return float(rng.uniform(self.u0, self.u1)), float(rng.uniform(self.v0, self.v1))


def _lay(town: Town, road: Road) -> None:
    """Take the ground of a street at once, so that nothing is built on it; paint it later."""
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
    """Cars on both sides of a road, `spacing_m` apart on average."""
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
    """Parallel streets along u about `depth_m` apart, and often one across; returns their v."""
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
    """The main roads between the cells, the first cuts the widest, trees along some of them."""
    for u0, v0, u1, v1, depth in cuts:
        width_m = (9.6, 8.6, 7.4, 6.8)[min(depth, 3)]
        road = Road(frame.line(u0, v0, u1, v1), width_m, True, marked=depth < 3)
        _lay(town, road)
        drive_along(rng, town, road, 22)


def street_trees(rng: Rng, town: Town) -> None:
    """Trees on the verge of about every second main road."""
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
                    town.plant(rng, (spot.x, spot.y), float(rng.uniform(1.3, 2.8)))


def draw_roads(town: Town) -> None:
    """Paint all roads: dirt below, kerbs, then carriageways, so that junctions are open."""
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
    """The ground of one plot (u0, v0, u1, v1): lawn, soil or pavement, sometimes fenced."""
    palette = town.palette
    roll = rng.random()
    colour: Colour = palette.grass if roll < 0.5 else palette.dry if roll < 0.75 else palette.soil
    plot = frame.area(*box)
    lawn = plot.intersection(cell.ground)
    town.canvas.fill(lawn, jitter(rng, colour, 7), texture=float(rng.uniform(0.5, 0.9)))
    if rng.random() < 0.6 and cell.ground.contains(plot):
        tone: Colour = (136, 124, 108) if rng.random() < 0.5 else (70, 88, 52)
        ring = np.asarray(plot.exterior.coords)
        town.canvas.line(ring, jitter(rng, tone), height_m=1.4)
