"""Districts that people live in: suburb, township, rows, and the settlement without a plan."""

from __future__ import annotations

import math

import numpy as np
from shapely import contains_xy
from shapely.geometry import Point

from rooftrace.testing._canvas import Rng, jitter, scaled
from rooftrace.testing._houses import cottage, shack, terrace
from rooftrace.testing._streets import Cell, grid_streets, yard
from rooftrace.testing._town import BLOCKED, Frame, Town

__all__ = ["informal", "rows", "suburb", "township"]


def suburb(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Detached houses on plots along streets."""
    big = rng.random() < 0.4
    depth, lot = (62.0, 23.0) if big else (48.0, 17.0)
    width = 5.8
    streets = grid_streets(rng, town, frame, cell, depth, width)
    half = (cell.v1 - cell.v0) / len(streets) / 2
    for v in streets:
        for side in (-1.0, 1.0):
            u = cell.u0 + rng.uniform(0, 4)
            while u + lot * 0.9 < cell.u1:
                wide = lot * rng.uniform(0.9, 1.15)
                near, far = v + side * (width / 2 + 1.8), v + side * half
                box = (u, min(near, far), u + wide, max(near, far))
                centre = frame.point(u + wide / 2, (near + far) / 2)
                if cell.ground.contains(Point(centre)) and town.contains(centre, 30):
                    _plot(rng, town, frame, cell, box, side, near)
                u += wide


def _plot(
    rng: Rng,
    town: Town,
    frame: Frame,
    cell: Cell,
    box: tuple[float, float, float, float],
    side: float,
    near: float,
) -> None:
    """One garden plot: house, drive, and what stands behind the house."""
    u0, v0, u1, v1 = box
    yard(rng, town, frame, cell, (u0 + 0.3, v0, u1 - 0.3, v1))
    wide, deep = u1 - u0, v1 - v0
    if rng.random() < 0.06:
        return
    house_deep = min(deep * 0.58, rng.uniform(10, 15.0))
    v = near + side * (rng.uniform(3.0, 5.5) + house_deep / 2)
    u = (u0 + u1) / 2 + rng.uniform(-0.8, 0.8)
    at, heading = frame.point(u, v), frame.heading(u, v)
    drive = (u1 - 4.2, min(near, v), u1 - 1.2, max(near, v))
    for share in (1.0, 0.85, 0.7):
        house_wide = (wide - rng.uniform(2.6, 5)) * share
        house = cottage(rng, town.palette, at, heading, house_wide, house_deep * share)
        built = town.build(house, inside=cell.ground, gap_m=0.9)
        if built:
            break
    if built:
        if rng.random() < 0.7:
            town.canvas.fill(frame.area(*drive), jitter(rng, (168, 164, 156)), texture=0.3)
            if rng.random() < 0.6:
                spot = frame.point(u1 - 2.7, near + side * 3.0)
                town.park(spot, heading + math.pi / 2, on_road=False)
        back = near + side * (deep - 5.0)
        if rng.random() < town.palette.pools:
            _pool(rng, town, frame, cell, u, back)
        elif rng.random() < 0.3:
            shed_at = frame.point(u + rng.uniform(-wide / 3, wide / 3), back + side * 1.5)
            town.build(shack(rng, town.palette, shed_at, heading, 3.2, 2.6), inside=cell.ground)
    for _ in range(int(rng.integers(2, 9))):
        place = frame.point(float(rng.uniform(u0, u1)), float(rng.uniform(v0, v1)))
        town.plant(rng, place, float(rng.uniform(1.2, 3.8)))


def _pool(rng: Rng, town: Town, frame: Frame, cell: Cell, u: float, v: float) -> None:
    a, b = rng.uniform(3.2, 5.0), rng.uniform(1.6, 2.4)
    deck = frame.area(u - a - 1.2, v - b - 1.2, u + a + 1.2, v + b + 1.2)
    if cell.ground.contains(deck) and town.canvas.is_free(deck):
        town.canvas.fill(deck, (196, 190, 178), texture=0.2, taken=BLOCKED)
        water = frame.area(u - a, v - b, u + a, v + b).buffer(-0.8).buffer(0.8)
        town.canvas.fill(water, jitter(rng, (78, 176, 196)), texture=0.1)


def township(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Small plots, grown full: a house and one or two rooms behind it on bare soil."""
    town.canvas.fill(cell.ground, jitter(rng, town.palette.soil), texture=0.8)
    depth, lot, width = 34.0, 13.0, 4.0
    streets = grid_streets(rng, town, frame, cell, depth, width)
    half = (cell.v1 - cell.v0) / len(streets) / 2
    for v in streets:
        for side in (-1.0, 1.0):
            u = cell.u0
            while u + lot * 0.9 < cell.u1:
                wide = lot * rng.uniform(0.85, 1.25)
                near, mid = v + side * (width / 2 + 2.2), u + wide / 2
                at, heading = frame.point(mid, near + side * 4.4), frame.heading(mid, near)
                if town.contains(at, 20):
                    if rng.random() < 0.35:
                        ends = sorted((near, v + side * half))
                        yard(rng, town, frame, cell, (u + 0.2, ends[0], u + wide - 0.2, ends[1]))
                    for share in (1.0, 0.8):
                        size = ((wide - rng.uniform(1.2, 3.5)) * share, rng.uniform(7, 9) * share)
                        house = cottage(rng, town.palette, at, heading, *size)
                        if town.build(house, inside=cell.ground, gap_m=0.4):
                            break
                    for _ in range(2):
                        back = frame.point(
                            u + float(rng.uniform(2.5, wide - 2.5)), v + side * (half - 2.6)
                        )
                        a, b = rng.uniform(3.0, 5.5), rng.uniform(2.6, 4.2)
                        room = shack(rng, town.palette, back, heading, a, b)
                        town.build(room, inside=cell.ground, gap_m=0.4)
                    for _ in range(int(rng.integers(0, 4))):
                        spot = (u + float(rng.uniform(0, wide)), near + side * rng.uniform(8, 13))
                        town.plant(rng, frame.point(*spot), float(rng.uniform(1.2, 3.2)))
                u += wide


def rows(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Rows of touching houses with narrow gardens behind."""
    depth, width = 37.0, 5.2
    streets = grid_streets(rng, town, frame, cell, depth, width)
    half = (cell.v1 - cell.v0) / len(streets) / 2
    for v in streets:
        for side in (-1.0, 1.0):
            u = cell.u0 + rng.uniform(1, 5)
            while u < cell.u1 - 20:
                count = int(rng.integers(4, 12))
                unit = rng.uniform(5.2, 6.8)
                length = min(count * unit, cell.u1 - u - 2)
                count = int(length / unit)
                deep = rng.uniform(8.5, 10.5)
                near = v + side * (width / 2 + 3.2)
                mid = u + count * unit / 2
                centre = frame.point(mid, near + side * deep / 2)
                heading = frame.heading(mid, near)
                ends = sorted((near, v + side * half))
                if count >= 2 and town.contains(centre, 40):
                    row = terrace(rng, town.palette, centre, heading, count, unit, deep)
                    # Where the street bends, part of a row may stand in it: that part is left out.
                    row = [house for house in row if town.has_room(house, cell.ground, 0.3)]
                    if row:
                        for i in range(count):
                            left = u + i * unit
                            strip = (left + 0.15, ends[0], left + unit - 0.15, ends[1])
                            yard(rng, town, frame, cell, strip)
                        town.add(row)
                    for _ in range(count):
                        back = near + side * (
                            deep + rng.uniform(2, max(2.5, half - width / 2 - deep - 3))
                        )
                        place = frame.point(u + float(rng.uniform(0, count * unit)), back)
                        town.plant(rng, place, float(rng.uniform(1.0, 2.6)))
                u += count * unit + rng.uniform(2.5, 6)


def informal(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """A dense settlement that grew without a plan: small roofs, dirt paths between them."""
    palette = town.palette
    town.canvas.fill(cell.ground, jitter(rng, palette.soil), texture=0.85)
    path = scaled(palette.soil, 1.1)
    bent = Frame(
        frame.point((cell.u0 + cell.u1) / 2, (cell.v0 + cell.v1) / 2),
        frame.angle + rng.uniform(-0.4, 0.4),
        rng.uniform(6, 11),
        (rng.uniform(0, 6), rng.uniform(0, 6)),
        wave_m=rng.uniform(90, 160),
    )
    reach = max(cell.u1 - cell.u0, cell.v1 - cell.v0) * 0.75
    for k in np.arange(-reach, reach, 34.0):
        at = float(k + rng.uniform(-6, 6))
        for line in (bent.line(-reach, at, reach, at), bent.line(at, -reach, at, reach)):
            if rng.random() < 0.8:
                way = line.buffer(rng.uniform(1.0, 2.2)).intersection(cell.ground)
                town.canvas.fill(way, path, texture=0.55, taken=BLOCKED)
    scale = rng.uniform(0.9, 1.2)
    area = 4 * reach * reach
    for step, (count, low, high) in enumerate(((0.03, 8, 13), (0.12, 5.5, 9), (0.2, 3.5, 6))):
        uv = rng.uniform(-reach, reach, (int(area * count), 2))
        spots = bent.points(uv)
        hit = contains_xy(cell.ground, spots[:, 0], spots[:, 1])
        for (u, v), (x, y) in zip(uv[hit].tolist(), spots[hit].tolist(), strict=True):
            if not town.is_open((x, y)):
                continue
            turn = bent.heading(u, v) + rng.normal(0, 0.09)
            turn += math.pi / 2 if rng.random() < 0.4 else 0.0
            a, b = rng.uniform(low, high) * scale, rng.uniform(low * 0.8, high * 0.7) * scale
            make = cottage if step == 0 and rng.random() < 0.3 else shack
            building = make(rng, palette, (x, y), turn, a, b)
            town.build(building, inside=cell.ground, gap_m=rng.uniform(0.15, 0.7))
    for _ in range(int(area * 0.0018)):
        place = bent.point(float(rng.uniform(-reach, reach)), float(rng.uniform(-reach, reach)))
        if cell.ground.contains(Point(place)):
            town.plant(rng, place, float(rng.uniform(1.2, 3.6)))
