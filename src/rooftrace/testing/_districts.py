"""The kinds of district: each fills a cell of the street frame with plots, houses and green."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from shapely import contains_xy
from shapely.geometry import Point, Polygon
from shapely.geometry.base import BaseGeometry

from rooftrace.testing._canvas import Colour, Rng, jitter, scaled
from rooftrace.testing._houses import apartment, cottage, hall, hut, shack, terrace
from rooftrace.testing._town import Frame, Town

__all__ = ["DISTRICTS", "Cell"]


@dataclass(frozen=True)
class Cell:
    """A district's rectangle in the frame, and the ground of it that is neither road nor water."""

    u0: float
    v0: float
    u1: float
    v1: float
    ground: Polygon

    def sample(self, rng: Rng) -> tuple[float, float]:
        return float(rng.uniform(self.u0, self.u1)), float(rng.uniform(self.v0, self.v1))


def _street(
    town: Town, frame: Frame, ends: tuple[float, float, float, float], width: float, cell: Cell
) -> None:
    """A paved or dirt street along a line of the frame, with marks if it is wide enough."""
    palette = town.palette
    line = frame.line(*ends)
    area: BaseGeometry = line.buffer(width / 2, cap_style="flat")
    reach = cell.ground.buffer(width)
    if palette.paved > 0.5:
        walk = line.buffer(width / 2 + 1.6, cap_style="flat").intersection(reach)
        town.canvas.fill(walk, (172, 168, 160), texture=0.25, taken=True)
        town.canvas.fill(area.intersection(reach), palette.asphalt, texture=0.22, taken=True)
    else:
        dirt = scaled(palette.soil, 1.12)
        town.canvas.fill(area.intersection(reach), dirt, texture=0.6, taken=True)


def _grid_streets(
    rng: Rng, town: Town, frame: Frame, cell: Cell, depth: float, width: float
) -> list[float]:
    """Parallel streets along u about `depth` apart; returns their v."""
    span = cell.v1 - cell.v0
    count = max(1, round(span / depth))
    streets = [cell.v0 + span * (i + 0.5) / count for i in range(count)]
    if count > 1 and rng.random() < 0.8:
        middle = cell.u0 + (cell.u1 - cell.u0) * rng.uniform(0.35, 0.65)
        _street(town, frame, (middle, cell.v0, middle, cell.v1), width, cell)
    for v in streets:
        _street(town, frame, (cell.u0 - 4, v, cell.u1 + 4, v), width, cell)
    for v in streets:
        for _ in range(int((cell.u1 - cell.u0) / 26)):
            u = float(rng.uniform(cell.u0, cell.u1))
            side = -1.0 if rng.random() < 0.5 else 1.0
            town.cars.append((frame.point(u, v + side * (width / 2 - 1.2)), frame.heading(u, v)))
    return streets


def _yard(town: Town, frame: Frame, rng: Rng, box: tuple[float, float, float, float]) -> None:
    """The ground of one plot: lawn, soil or pavement, sometimes with a fence around it."""
    palette = town.palette
    roll = rng.random()
    colour: Colour = palette.grass if roll < 0.5 else palette.dry if roll < 0.75 else palette.soil
    plot = frame.area(*box)
    town.canvas.fill(plot, jitter(rng, colour, 7), texture=float(rng.uniform(0.5, 0.9)))
    if rng.random() < 0.6:
        tone: Colour = (136, 124, 108) if rng.random() < 0.5 else (70, 88, 52)
        ring = np.asarray(plot.exterior.coords)
        town.canvas.line(ring, jitter(rng, tone), height_m=1.4)


def suburb(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Detached houses on plots along streets."""
    big = rng.random() < 0.4
    depth, lot = (62.0, 23.0) if big else (48.0, 17.0)
    width = 7.0
    streets = _grid_streets(rng, town, frame, cell, depth, width)
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
    _yard(town, frame, rng, (u0 + 0.3, v0, u1 - 0.3, v1))
    wide, deep = u1 - u0, v1 - v0
    if rng.random() < 0.06:
        return
    house_deep = min(deep * 0.58, rng.uniform(10, 15.0))
    v = near + side * (rng.uniform(3.0, 5.5) + house_deep / 2)
    u = (u0 + u1) / 2 + rng.uniform(-0.8, 0.8)
    at, heading = frame.point(u, v), frame.heading(u, v)
    house = cottage(rng, town.palette, at, heading, wide - rng.uniform(3, 6), house_deep)
    drive = (u1 - 4.2, min(near, v), u1 - 1.2, max(near, v))
    if town.build(house, inside=cell.ground, gap_m=1.2):
        if rng.random() < 0.7:
            town.canvas.fill(frame.area(*drive), jitter(rng, (168, 164, 156)), texture=0.3)
            if rng.random() < 0.6:
                spot = frame.point(u1 - 2.7, near + side * 3.0)
                town.cars.append((spot, heading + math.pi / 2))
        back = near + side * (deep - 5.0)
        if rng.random() < town.palette.pools:
            _pool(rng, town, frame, u, back)
        elif rng.random() < 0.3:
            shed_at = frame.point(u + rng.uniform(-wide / 3, wide / 3), back + side * 1.5)
            town.build(shack(rng, town.palette, shed_at, heading, 3.2, 2.6), inside=cell.ground)
    for _ in range(int(rng.integers(1, 5))):
        place = frame.point(float(rng.uniform(u0, u1)), float(rng.uniform(v0, v1)))
        town.plant(rng, place, float(rng.uniform(1.2, 3.8)))


def _pool(rng: Rng, town: Town, frame: Frame, u: float, v: float) -> None:
    a, b = rng.uniform(3.2, 5.0), rng.uniform(1.6, 2.4)
    deck = frame.area(u - a - 1.2, v - b - 1.2, u + a + 1.2, v + b + 1.2)
    if town.canvas.is_free(deck):
        town.canvas.fill(deck, (196, 190, 178), texture=0.2, taken=True)
        water = frame.area(u - a, v - b, u + a, v + b).buffer(-0.8).buffer(0.8)
        town.canvas.fill(water, jitter(rng, (78, 176, 196)), texture=0.1)


def rows(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Rows of touching houses with narrow gardens behind."""
    depth, width = 42.0, 6.5
    streets = _grid_streets(rng, town, frame, cell, depth, width)
    half = (cell.v1 - cell.v0) / len(streets) / 2
    for v in streets:
        for side in (-1.0, 1.0):
            u = cell.u0 + rng.uniform(1, 5)
            while u < cell.u1 - 20:
                count = int(rng.integers(3, 9))
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
                    hull = [house.footprint(0.4) for house in row]
                    if all(cell.ground.contains(h) and town.canvas.is_free(h) for h in hull):
                        for i in range(count):
                            left = u + i * unit
                            strip = (left + 0.15, ends[0], left + unit - 0.15, ends[1])
                            _yard(town, frame, rng, strip)
                        town.add(row)
                    for _ in range(count):
                        back = near + side * rng.uniform(deep + 3, half - width / 2)
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
                town.canvas.fill(way, path, texture=0.55, taken=True)
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
            town.build(building, inside=cell.ground, gap_m=rng.uniform(0.2, 0.8))
    for _ in range(int(area * 0.0018)):
        place = bent.point(float(rng.uniform(-reach, reach)), float(rng.uniform(-reach, reach)))
        if cell.ground.contains(Point(place)):
            town.plant(rng, place, float(rng.uniform(1.2, 3.6)))


def industrial(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Large halls in paved yards, with tanks, lorries and parked cars."""
    town.canvas.fill(cell.ground, jitter(rng, (150, 146, 138)), texture=0.45)
    v = cell.v0 + 8
    while v < cell.v1 - 24:
        deep = rng.uniform(24, 46)
        u = cell.u0 + 8
        while u < cell.u1 - 24:
            wide = rng.uniform(26, 60)
            at = (u + wide / 2, v + deep / 2)
            if at[0] + wide / 2 < cell.u1 - 4 and at[1] + deep / 2 < cell.v1 - 4:
                xy, heading = frame.point(*at), frame.heading(*at)
                kind = rng.random()
                if kind < 0.72 and town.contains(xy, 60):
                    for share in (1.0, 0.8, 0.6):
                        shed = hall(rng, xy, heading, wide * share, deep * share)
                        if town.build(shed, inside=cell.ground, gap_m=2):
                            break
                elif kind < 0.86:
                    _tanks(rng, town, frame, at, wide, deep)
                else:
                    _parking(rng, town, frame, at, wide, deep)
            u += wide + rng.uniform(6, 13)
        v += deep + rng.uniform(8, 14)
    for _ in range(25):
        place = frame.point(*cell.sample(rng))
        if cell.ground.contains(Point(place)):
            town.plant(rng, place, float(rng.uniform(1.5, 3.5)))


def _tanks(
    rng: Rng, town: Town, frame: Frame, at: tuple[float, float], wide: float, deep: float
) -> None:
    """Round storage tanks: not buildings, though a network may well take them for some."""
    radius = rng.uniform(3.5, min(9.0, deep / 4))
    for du in np.arange(-wide / 2 + radius, wide / 2 - radius, radius * 2.6):
        for dv in (-radius * 1.4, radius * 1.4):
            disc = Point(frame.point(at[0] + float(du), at[1] + dv)).buffer(radius)
            if town.canvas.is_free(disc) and rng.random() < 0.85:
                tone = jitter(rng, (206, 204, 198), 10)
                town.canvas.fill(disc, tone, texture=0.06, taken=True, height_m=7)
                inner = scaled(tone, 0.93)
                town.canvas.fill(disc.buffer(-0.5), inner, texture=0.06)


def _parking(
    rng: Rng, town: Town, frame: Frame, at: tuple[float, float], wide: float, deep: float
) -> None:
    """Marked bays, most of them with a car."""
    u0, v0, u1, v1 = at[0] - wide / 2, at[1] - deep / 2, at[0] + wide / 2, at[1] + deep / 2
    area = frame.area(u0, v0, u1, v1)
    if not town.canvas.is_free(area) or not town.contains(frame.point(*at), 40):
        return
    town.canvas.fill(area, jitter(rng, town.palette.asphalt), texture=0.2, taken=True)
    for v in np.arange(v0 + 4, v1 - 4, 11.0):
        for u in np.arange(u0 + 3, u1 - 3, 2.7):
            ends = [(float(u) - 1.35, float(v) - 2.5), (float(u) - 1.35, float(v) + 2.5)]
            town.canvas.line(frame.points(ends), (188, 188, 184))
            if rng.random() < 0.55:
                spot = frame.point(float(u), float(v))
                town.cars.append((spot, frame.heading(float(u), float(v)) + math.pi / 2))


def estate(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Apartment blocks with flat roofs among lawns and parking."""
    town.canvas.fill(cell.ground, jitter(rng, town.palette.grass), texture=0.8)
    streets = _grid_streets(rng, town, frame, cell, 80.0, 7.5)
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
                        _parking(rng, town, frame, at, wide, half * 0.9)
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


def fields(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Parcels with furrows, dirt tracks, hedges and a farm or two."""
    palette = town.palette
    crops: tuple[Colour, ...] = (
        palette.grass,
        palette.dry,
        palette.soil,
        (128, 132, 74),
        (94, 112, 58),
    )
    u = cell.u0
    while u < cell.u1 - 6:
        wide = min(rng.uniform(28, 65), cell.u1 - u)
        v = cell.v0
        while v < cell.v1 - 6:
            deep = min(rng.uniform(35, 90), cell.v1 - v)
            parcel = frame.area(u + 0.8, v + 0.8, u + wide - 0.8, v + deep - 0.8)
            colour = jitter(rng, crops[int(rng.integers(len(crops)))])
            town.canvas.fill(parcel.intersection(cell.ground), colour, texture=0.55)
            period = rng.uniform(1.4, 3.0)
            dark = scaled(colour, rng.uniform(0.8, 0.92))
            if rng.random() < 0.75:
                for k in np.arange(v + 1.5, v + deep - 1.5, period):
                    furrow = frame.line(u + 1.5, float(k), u + wide - 1.5, float(k))
                    clipped = furrow.intersection(cell.ground)
                    if clipped.geom_type == "LineString" and not clipped.is_empty:
                        town.canvas.line(np.asarray(clipped.coords), dark)
            if rng.random() < 0.4:
                for k in np.arange(v, v + deep, 4.5):
                    place = frame.point(u, float(k + rng.uniform(-1, 1)))
                    if cell.ground.contains(Point(place)):
                        town.plant(rng, place, float(rng.uniform(1.2, 2.8)))
            v += deep
        u += wide
    for _ in range(int(rng.integers(3, 7))):
        at = cell.sample(rng)
        heading = frame.heading(*at)
        for _ in range(int(rng.integers(2, 6))):
            spot = (at[0] + rng.uniform(-16, 16), at[1] + rng.uniform(-16, 16))
            xy = frame.point(*spot)
            if rng.random() < 0.4:
                town.build(hut(rng, xy), inside=cell.ground)
            else:
                turn = heading + (math.pi / 2 if rng.random() < 0.5 else 0.0)
                house = cottage(rng, palette, xy, turn, rng.uniform(8, 15), rng.uniform(6, 9))
                town.build(house, inside=cell.ground)
            town.plant(rng, (xy[0] + rng.normal(0, 9), xy[1] + rng.normal(0, 9)), 3.0)


def park(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Grass, clumps of trees, paths and a pavilion."""
    town.canvas.fill(cell.ground, jitter(rng, town.palette.grass), texture=0.9)
    for _ in range(3):
        a, b = cell.sample(rng), cell.sample(rng)
        way = frame.line(*a, *b).buffer(1.1).intersection(cell.ground)
        town.canvas.fill(way, jitter(rng, (178, 166, 142)), texture=0.4, taken=True)
    for _ in range(2):
        at = cell.sample(rng)
        xy = frame.point(*at)
        pavilion = cottage(rng, town.palette, xy, frame.heading(*at), 14, 9)
        town.build(pavilion, inside=cell.ground)
    area = (cell.u1 - cell.u0) * (cell.v1 - cell.v0)
    for _ in range(int(area / 500)):
        at = cell.sample(rng)
        for _ in range(int(rng.integers(2, 9))):
            place = frame.point(at[0] + rng.normal(0, 6), at[1] + rng.normal(0, 6))
            if cell.ground.contains(Point(place)):
                town.plant(rng, place, float(rng.uniform(1.8, 4.6)))


DISTRICTS: dict[str, Callable[[Rng, Town, Frame, Cell], None]] = {
    "suburb": suburb,
    "rows": rows,
    "informal": informal,
    "industrial": industrial,
    "estate": estate,
    "fields": fields,
    "park": park,
}
