"""Districts of synthetic scenes: residential areas, industry, apartment blocks, fields and
parks.
"""

import math
from collections.abc import Iterable

import numpy as np
from shapely import contains_xy, union_all
from shapely.geometry import Point

from town.buildings import Building, apartment, cottage, hall, hut, shack, terrace
from town.canvas import Colour, Rng, jitter, scaled
from town.town import BLOCKED, Cell, Frame, Town, grid_streets, yard

Xy = tuple[float, float]
Box = tuple[float, float, float, float]
"""Rectangle (u0, v0, u1, v1) in the frame of the streets."""


def _street_sides(
    rng: Rng, town: Town, frame: Frame, cell: Cell, depth_m: float, width_m: float
) -> tuple[list[tuple[float, float]], float]:
    """Add parallel streets; return (v, -1 or 1) of their sides, and the depth of a side in metres.

    Arguments are those of `grid_streets`.
    """
    streets = grid_streets(rng, town, frame, cell, depth_m, width_m)
    sides = [(v, side) for v in streets for side in (-1.0, 1.0)]
    return sides, (cell.v1 - cell.v0) / len(streets) / 2


def _build_first(town: Town, cell: Cell, made: Iterable[Building], gap_m: float) -> bool:
    """Add the first building that has room; the later ones are not drawn from the generator."""
    return any(town.build(one, inside=cell.ground, gap_m=gap_m) for one in made)


def _plant(rng: Rng, town: Town, cell: Cell, xy: Xy, radius_m: tuple[float, float]) -> None:
    """Add a tree with a radius between two values, if it stands on the ground of the cell."""
    if cell.ground.contains(Point(xy)):
        town.plant(rng, xy, rng.uniform(*radius_m))


def suburb(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Add detached houses on plots along streets."""
    big = rng.random() < 0.4
    depth, lot = (62.0, 23.0) if big else (48.0, 17.0)
    width = 5.8
    sides, half = _street_sides(rng, town, frame, cell, depth, width)
    for v, side in sides:
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
    rng: Rng, town: Town, frame: Frame, cell: Cell, box: Box, side: float, near: float
) -> None:
    """Add one garden plot: house, drive, and a pool or shed behind the house."""
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
    sizes = (((wide - rng.uniform(2.6, 5)) * k, house_deep * k) for k in (1.0, 0.85, 0.7))
    houses = (cottage(rng, town.palette, at, heading, *size) for size in sizes)
    if _build_first(town, cell, houses, 0.9):
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
        place = frame.point(rng.uniform(u0, u1), rng.uniform(v0, v1))
        town.plant(rng, place, rng.uniform(1.2, 3.8))


def _pool(rng: Rng, town: Town, frame: Frame, cell: Cell, u: float, v: float) -> None:
    a, b = rng.uniform(3.2, 5.0), rng.uniform(1.6, 2.4)
    deck = frame.area(u - a - 1.2, v - b - 1.2, u + a + 1.2, v + b + 1.2)
    if cell.ground.contains(deck) and town.canvas.is_free(deck):
        town.canvas.fill(deck, (196, 190, 178), texture=0.2, taken=BLOCKED)
        water = frame.area(u - a, v - b, u + a, v + b).buffer(-0.8).buffer(0.8)
        town.canvas.fill(water, jitter(rng, (78, 176, 196)), texture=0.1)


def township(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Add small dense plots: a house and one or two rooms behind it on bare soil."""
    town.canvas.fill(cell.ground, jitter(rng, town.palette.soil), texture=0.8)
    depth, lot, width = 34.0, 13.0, 4.0
    sides, half = _street_sides(rng, town, frame, cell, depth, width)
    for v, side in sides:
        u = cell.u0
        while u + lot * 0.9 < cell.u1:
            wide = lot * rng.uniform(0.85, 1.25)
            near, mid = v + side * (width / 2 + 2.2), u + wide / 2
            at, heading = frame.point(mid, near + side * 4.4), frame.heading(mid, near)
            if town.contains(at, 20):
                if rng.random() < 0.35:
                    ends = sorted((near, v + side * half))
                    yard(rng, town, frame, cell, (u + 0.2, ends[0], u + wide - 0.2, ends[1]))
                sizes = (
                    ((wide - rng.uniform(1.2, 3.5)) * k, rng.uniform(7, 9) * k) for k in (1.0, 0.8)
                )
                houses = (cottage(rng, town.palette, at, heading, *size) for size in sizes)
                _build_first(town, cell, houses, 0.4)
                for _ in range(2):
                    back = frame.point(u + rng.uniform(2.5, wide - 2.5), v + side * (half - 2.6))
                    a, b = rng.uniform(3.0, 5.5), rng.uniform(2.6, 4.2)
                    room = shack(rng, town.palette, back, heading, a, b)
                    town.build(room, inside=cell.ground, gap_m=0.4)
                for _ in range(int(rng.integers(0, 4))):
                    spot = (u + rng.uniform(0, wide), near + side * rng.uniform(8, 13))
                    town.plant(rng, frame.point(*spot), rng.uniform(1.2, 3.2))
            u += wide


def rows(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Add rows of touching houses with narrow gardens behind."""
    depth, width = 37.0, 5.2
    sides, half = _street_sides(rng, town, frame, cell, depth, width)
    for v, side in sides:
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
                # Where the street bends, houses of a row that would stand in it are left out.
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
                    place = frame.point(u + rng.uniform(0, count * unit), back)
                    town.plant(rng, place, rng.uniform(1.0, 2.6))
            u += count * unit + rng.uniform(2.5, 6)


def informal(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Add a dense unplanned settlement: small roofs with dirt paths between them."""
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
        place = bent.point(rng.uniform(-reach, reach), rng.uniform(-reach, reach))
        _plant(rng, town, cell, place, (1.2, 3.6))


_BODIES = ((206, 206, 202), (150, 70, 56), (70, 96, 132), (180, 152, 92), (96, 118, 96))


def industrial(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Add large halls in paved yards, with tanks, lorries and parked cars."""
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
                    sheds = (hall(rng, xy, heading, wide * k, deep * k) for k in (1.0, 0.8, 0.6))
                    _build_first(town, cell, sheds, 2)
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
        radius = rng.uniform(1.5, 3.5)
        crown = Point(place).buffer(radius + 1)
        if cell.ground.contains(crown) and town.canvas.is_free(crown):
            town.plant(rng, place, radius)


def _lorry(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Add a lorry or a container in the yard as an object that is no building."""
    u, v = cell.sample(rng)
    long, wide = rng.uniform(6, 13), 2.5
    a, b = (long / 2, wide / 2) if rng.random() < 0.5 else (wide / 2, long / 2)
    shape = frame.area(u - a, v - b, u + a, v + b)
    if cell.ground.contains(shape) and town.canvas.is_free(shape.buffer(1.2)):
        body = _BODIES[int(rng.integers(len(_BODIES)))]
        town.canvas.fill(shape, jitter(rng, body), texture=0.05, taken=BLOCKED, height_m=3.0)


def _tanks(
    rng: Rng, town: Town, frame: Frame, cell: Cell, at: Xy, wide: float, deep: float
) -> None:
    """Add round storage tanks, which resemble buildings but are none."""
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
    rng: Rng, town: Town, frame: Frame, cell: Cell, at: Xy, wide: float, deep: float
) -> None:
    """Add marked parking bays, most of them with a car."""
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
    """Add apartment blocks with flat roofs among lawns and parking."""
    town.canvas.fill(cell.ground, jitter(rng, town.palette.grass), texture=0.8)
    sides, half = _street_sides(rng, town, frame, cell, 80.0, 6.4)
    for v, side in sides:
        u = cell.u0 + 5
        while u < cell.u1 - 14:
            wide = rng.uniform(26, 54)
            at = (u + wide / 2, v + side * (half + 6) / 2)
            xy, heading = frame.point(*at), frame.heading(*at)
            if town.contains(xy, 40):
                if rng.random() < 0.16:
                    _parking(rng, town, frame, cell, at, wide, half * 0.8)
                else:
                    blocks = (
                        apartment(rng, xy, heading, wide * k, (half - 11) * k)
                        for k in (1.0, 0.85, 0.7)
                    )
                    _build_first(town, cell, blocks, 1.5)
            u += wide + rng.uniform(5, 12)
    for _ in range(int((cell.u1 - cell.u0) * (cell.v1 - cell.v0) * 0.004)):
        place = frame.point(*cell.sample(rng))
        _plant(rng, town, cell, place, (1.5, 4.2))


# Length and width in metres, and colour.
_PITCHES: tuple[tuple[float, float, Colour], ...] = (
    (92.0, 58.0, (102, 134, 72)),
    (60.0, 40.0, (112, 138, 78)),
    (34.0, 17.0, (168, 104, 74)),
    (34.0, 17.0, (74, 112, 138)),
    (28.0, 15.0, (88, 126, 104)),
)


def fields(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Add parcels with furrows, dirt tracks, hedges and a farm or two."""
    palette = town.palette
    crops: tuple[Colour, ...] = (
        palette.grass, palette.dry, palette.soil, (128, 132, 74), (94, 112, 58),
    )  # fmt: skip
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
                    _plant(rng, town, cell, place, (1.2, 2.8))
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


def _pitch(rng: Rng, town: Town, frame: Frame, at: tuple[float, float], cell: Cell) -> None:
    """Add a sports pitch with its lines: turf, clay or hard court."""
    long, wide, colour = _PITCHES[int(rng.integers(len(_PITCHES)))]
    a, b = (long / 2, wide / 2) if rng.random() < 0.5 else (wide / 2, long / 2)
    u, v = at
    area = frame.area(u - a, v - b, u + a, v + b)
    if not cell.ground.contains(area) or not town.canvas.is_free(area):
        return
    town.canvas.fill(area, jitter(rng, colour), texture=0.3, taken=BLOCKED)
    chalk: Colour = (214, 216, 208)
    c, d = a * 0.9, b * 0.9
    corners = [(-c, -d), (c, -d), (c, d), (-c, d), (-c, -d)]
    town.canvas.line(frame.points([(u + x, v + y) for x, y in corners]), chalk)
    across = [(0.0, -d), (0.0, d)] if a > b else [(-c, 0.0), (c, 0.0)]
    town.canvas.line(frame.points([(u + x, v + y) for x, y in across]), chalk)
    circle = Point(frame.point(u, v)).buffer(min(a, b) * 0.28).exterior
    town.canvas.line(np.asarray(circle.coords), chalk)


def park(rng: Rng, town: Town, frame: Frame, cell: Cell) -> None:
    """Add grass, clumps of trees, paths, pitches, a pond and a pavilion."""
    canvas = town.canvas
    canvas.fill(cell.ground, jitter(rng, town.palette.grass), texture=0.9)
    sand = jitter(rng, (178, 166, 142))
    middle = cell.sample(rng)
    for end in ((cell.u0, cell.sample(rng)[1]), (cell.u1, cell.sample(rng)[1]),
                (cell.sample(rng)[0], cell.v0), (cell.sample(rng)[0], cell.v1)):  # fmt: skip
        way = frame.line(*middle, *end).buffer(1.1).intersection(cell.ground)
        canvas.fill(way, sand, texture=0.4, taken=BLOCKED)
    if rng.random() < 0.5:
        spot = frame.point(*cell.sample(rng))
        lobes = [
            Point(spot[0] + rng.normal(0, 8), spot[1] + rng.normal(0, 8)).buffer(rng.uniform(6, 13))
            for _ in range(4)
        ]
        pond = union_all(lobes).buffer(4).buffer(-4)
        if cell.ground.contains(pond):
            canvas.fill(pond.buffer(1.4), scaled(town.palette.soil, 0.9), texture=0.8)
            canvas.fill(pond, town.palette.water, texture=0.1, taken=BLOCKED)
    for _ in range(5):
        _pitch(rng, town, frame, cell.sample(rng), cell)
    for _ in range(3):
        at = cell.sample(rng)
        pavilion = cottage(rng, town.palette, frame.point(*at), frame.heading(*at), 14, 9)
        town.build(pavilion, inside=cell.ground)
    for _ in range(int(cell.area_m2 / 420)):
        at = cell.sample(rng)
        for _ in range(int(rng.integers(2, 9))):
            place = frame.point(at[0] + rng.normal(0, 6), at[1] + rng.normal(0, 6))
            _plant(rng, town, cell, place, (1.8, 4.6))
