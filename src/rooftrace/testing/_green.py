"""Districts with few buildings: fields and parks."""

from __future__ import annotations

import math

import numpy as np
from shapely import union_all
from shapely.geometry import Point

from rooftrace.testing._canvas import Colour, Rng, jitter, scaled
from rooftrace.testing._houses import cottage, hut
from rooftrace.testing._streets import Cell
from rooftrace.testing._town import BLOCKED, Frame, Town

__all__ = ["fields", "park"]


# Length, width and colour.
_PITCHES: tuple[tuple[float, float, Colour], ...] = (
    (92.0, 58.0, (102, 134, 72)),
    (60.0, 40.0, (112, 138, 78)),
    (34.0, 17.0, (168, 104, 74)),
    (34.0, 17.0, (74, 112, 138)),
    (28.0, 15.0, (88, 126, 104)),
)


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


def _pitch(rng: Rng, town: Town, frame: Frame, at: tuple[float, float], cell: Cell) -> None:
    """A sports pitch with its lines: turf, clay or hard court."""
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
    """Grass, clumps of trees, paths, pitches, a pond and a pavilion."""
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
            if cell.ground.contains(Point(place)):
                town.plant(rng, place, float(rng.uniform(1.8, 4.6)))
