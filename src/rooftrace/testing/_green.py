"""Districts with few buildings: fields and parks."""

from __future__ import annotations

import math

import numpy as np
from shapely.geometry import Point

from rooftrace.testing._canvas import Colour, Rng, jitter, scaled
from rooftrace.testing._houses import cottage, hut
from rooftrace.testing._streets import Cell
from rooftrace.testing._town import BLOCKED, Frame, Town

__all__ = ["fields", "park"]


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
        town.canvas.fill(way, jitter(rng, (178, 166, 142)), texture=0.4, taken=BLOCKED)
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
