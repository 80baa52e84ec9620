"""Districts of large buildings: works and apartment blocks."""

from __future__ import annotations

import math

import numpy as np
from shapely.geometry import Point

from rooftrace.testing._canvas import Rng, jitter, scaled
from rooftrace.testing._houses import apartment, hall
from rooftrace.testing._streets import Cell, grid_streets
from rooftrace.testing._town import BLOCKED, Frame, Town

__all__ = ["estate", "industrial"]


_BODIES = ((206, 206, 202), (150, 70, 56), (70, 96, 132), (180, 152, 92), (96, 118, 96))


def industrial(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Large halls in paved yards, with tanks, lorries and parked cars."""
    town.canvas.fill(cell.ground, jitter(rng, (150, 146, 138)), texture=0.45)
    v = cell.v0 + 5
    while v < cell.v1 - 20:
        deep = min(rng.uniform(28, 48), cell.v1 - 4 - v)
        u = cell.u0 + 5
        while u < cell.u1 - 20:
            wide = min(rng.uniform(30, 72), cell.u1 - 4 - u)
            at = (u + wide / 2, v + deep / 2)
            if wide > 14 and deep > 14:
                xy, heading = frame.point(*at), frame.heading(*at)
                kind = rng.random()
                if kind < 0.8 and town.contains(xy, 60):
                    for share in (1.0, 0.8, 0.6):
                        shed = hall(rng, xy, heading, wide * share, deep * share)
                        if town.build(shed, inside=cell.ground, gap_m=2):
                            break
                elif kind < 0.9:
                    _tanks(rng, town, frame, cell, at, wide, deep)
                else:
                    _parking(rng, town, frame, cell, at, wide, deep)
            u += wide + rng.uniform(6, 13)
        v += deep + rng.uniform(8, 14)
    for _ in range(int(cell.area_m2 / 260)):
        _lorry(rng, town, frame, cell)
    for _ in range(25):
        place = frame.point(*cell.sample(rng))
        radius = float(rng.uniform(1.5, 3.5))
        crown = Point(place).buffer(radius + 1)
        if cell.ground.contains(crown) and town.canvas.is_free(crown):
            town.plant(rng, place, radius)


def _lorry(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """A lorry or a container in the yard, along the streets: not a building either."""
    u, v = cell.sample(rng)
    long, wide = rng.uniform(6, 13), 2.5
    a, b = (long / 2, wide / 2) if rng.random() < 0.5 else (wide / 2, long / 2)
    shape = frame.area(u - a, v - b, u + a, v + b)
    if cell.ground.contains(shape) and town.canvas.is_free(shape.buffer(1.2)):
        body = _BODIES[int(rng.integers(len(_BODIES)))]
        town.canvas.fill(shape, jitter(rng, body), texture=0.05, taken=BLOCKED, height_m=3.0)


def _tanks(
    rng: Rng,
    town: Town,
    frame: Frame,
    cell: Cell,
    at: tuple[float, float],
    wide: float,
    deep: float,
) -> None:
    """Round storage tanks: not buildings, though a network may well take them for some."""
    radius = rng.uniform(3.5, min(9.0, deep / 4))
    for du in np.arange(-wide / 2 + radius, wide / 2 - radius, radius * 2.6):
        for dv in (-radius * 1.4, radius * 1.4):
            disc = Point(frame.point(at[0] + float(du), at[1] + dv)).buffer(radius)
            room = cell.ground.contains(disc) and town.canvas.is_free(disc)
            if room and rng.random() < 0.85:
                tone = jitter(rng, (206, 204, 198), 10)
                town.canvas.fill(disc, tone, texture=0.06, taken=BLOCKED, height_m=7)
                inner = scaled(tone, 0.93)
                town.canvas.fill(disc.buffer(-0.5), inner, texture=0.06)


def _parking(
    rng: Rng,
    town: Town,
    frame: Frame,
    cell: Cell,
    at: tuple[float, float],
    wide: float,
    deep: float,
) -> None:
    """Marked bays, most of them with a car."""
    u0, v0, u1, v1 = at[0] - wide / 2, at[1] - deep / 2, at[0] + wide / 2, at[1] + deep / 2
    area = frame.area(u0, v0, u1, v1)
    if not cell.ground.contains(area) or not town.canvas.is_free(area):
        return
    town.canvas.fill(area, jitter(rng, town.palette.asphalt), texture=0.2, taken=BLOCKED)
    for v in np.arange(v0 + 4, v1 - 4, 11.0):
        for u in np.arange(u0 + 3, u1 - 3, 2.7):
            ends = [(float(u) - 1.35, float(v) - 2.5), (float(u) - 1.35, float(v) + 2.5)]
            town.canvas.line(frame.points(ends), (188, 188, 184))
            if rng.random() < 0.55:
                spot = frame.point(float(u), float(v))
                turn = frame.heading(float(u), float(v)) + math.pi / 2
                town.park(spot, turn, on_road=False)


def estate(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Apartment blocks with flat roofs among lawns and parking."""
    town.canvas.fill(cell.ground, jitter(rng, town.palette.grass), texture=0.8)
    streets = grid_streets(rng, town, frame, cell, 80.0, 6.4)
    half = (cell.v1 - cell.v0) / len(streets) / 2
    for v in streets:
        for side in (-1.0, 1.0):
            u = cell.u0 + 5
            while u < cell.u1 - 14:
                wide = rng.uniform(26, 54)
                at = (u + wide / 2, v + side * (half + 6) / 2)
                xy, heading = frame.point(*at), frame.heading(*at)
                if town.contains(xy, 40):
                    if rng.random() < 0.16:
                        _parking(rng, town, frame, cell, at, wide, half * 0.8)
                    else:
                        for share in (1.0, 0.85, 0.7):
                            block = apartment(rng, xy, heading, wide * share, (half - 11) * share)
                            if town.build(block, inside=cell.ground, gap_m=1.5):
                                break
                u += wide + rng.uniform(5, 12)
    for _ in range(int((cell.u1 - cell.u0) * (cell.v1 - cell.v0) * 0.004)):
        place = frame.point(*cell.sample(rng))
        if cell.ground.contains(Point(place)):
            town.plant(rng, place, float(rng.uniform(1.5, 4.2)))
