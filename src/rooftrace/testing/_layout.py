"""The plan of a scene: region, districts, roads, water; and the order in which it is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString, MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

from rooftrace.testing._canvas import Canvas, Rng, jitter, noise, polygons_of, scaled
from rooftrace.testing._green import fields, park
from rooftrace.testing._homes import informal, rows, suburb, township
from rooftrace.testing._props import cast_shadows, draw_cars, draw_trees, expose
from rooftrace.testing._roofs import Sun, draw_building
from rooftrace.testing._rooftop import draw_rooftop
from rooftrace.testing._sites import estate, industrial
from rooftrace.testing._streets import Cell, arterials, draw_roads, street_trees
from rooftrace.testing._town import BLOCKED, Frame, Palette, Town

__all__ = ["DISTRICTS", "Light", "draw_town", "lay_out"]

_REGIONS = (
    Palette(  # red soil, sheet metal, palms
        grass=(112, 118, 74), dry=(146, 132, 94), soil=(166, 130, 104), asphalt=(122, 118, 116),
        water=(92, 112, 104), crowns=((62, 84, 44), (74, 96, 50), (54, 76, 46)),
        houses=("metal", "red metal", "terracotta", "blue metal", "green metal", "rusty",
                "concrete"),
        shacks=("rusty", "rusty", "metal", "metal", "concrete", "thatch", "blue metal"),
        palms=0.45, paved=0.3, pools=0.05,
    ),
    Palette(  # temperate suburb
        grass=(98, 116, 70), dry=(136, 132, 92), soil=(142, 122, 98), asphalt=(112, 112, 114),
        water=(70, 92, 100), crowns=((58, 80, 46), (70, 92, 52), (84, 98, 50), (52, 70, 48)),
        houses=("terracotta", "brown", "grey", "brown", "grey", "white", "bitumen"),
        shacks=("metal", "rusty", "grey", "concrete", "bitumen"),
        palms=0.0, paved=1.0, pools=0.3,
    ),
    Palette(  # dry, flat roofs of concrete
        grass=(120, 120, 82), dry=(166, 150, 116), soil=(186, 162, 128), asphalt=(126, 122, 118),
        water=(98, 122, 118), crowns=((76, 92, 56), (66, 84, 52), (92, 100, 62)),
        houses=("concrete", "white", "concrete", "terracotta", "blue metal", "metal"),
        shacks=("concrete", "metal", "concrete", "rusty", "white"),
        palms=0.25, paved=0.6, pools=0.12,
    ),
)  # fmt: skip


District = Callable[[Rng, Town, Frame, Cell], None]

_SMALL: tuple[District, ...] = (suburb, informal, rows, estate, township, industrial)
_LARGE: tuple[District, ...] = (
    informal, suburb, rows, industrial, fields, township, estate, informal, suburb, park, township,
)  # fmt: skip

DISTRICTS: dict[str, District] = {kind.__name__: kind for kind in dict.fromkeys(_LARGE)}

# From the middle of a main road to the first plot.
_INSET_M = 7.4


@dataclass(frozen=True)
class Light:
    """The sun and the sensor of a scene."""

    sun: Sun
    cast: tuple[float, float, float]


def _rng(seed: int, part: int) -> Rng:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, part])))


Rect = tuple[float, float, float, float]


def _split(
    rng: Rng, rect: Rect, least_m: float, depth: int = 0
) -> tuple[list[Rect], list[tuple[float, float, float, float, int]]]:
    """Cells no side of which is longer than about twice `least_m`, and the cuts between them."""
    u0, v0, u1, v1 = rect
    if max(u1 - u0, v1 - v0) < 2.1 * least_m:
        return [rect], []
    share = rng.uniform(0.38, 0.62)
    if u1 - u0 > v1 - v0:
        at = u0 + (u1 - u0) * share
        halves, cut = ((u0, v0, at, v1), (at, v0, u1, v1)), (at, v0, at, v1, depth)
    else:
        at = v0 + (v1 - v0) * share
        halves, cut = ((u0, v0, u1, at), (u0, at, u1, v1)), (u0, at, u1, at, depth)
    cells: list[Rect] = []
    cuts = [cut]
    for half in halves:
        more, own = _split(rng, half, least_m, depth + 1)
        cells += more
        cuts += own
    return cells, cuts


def _river(rng: Rng, height: float, width: float) -> BaseGeometry:
    """A winding band from one side of the scene to the other."""
    turn = rng.uniform(0, math.pi)
    reach = math.hypot(height, width)
    t = np.linspace(-0.7, 0.7, 120) * reach
    aside = rng.uniform(0.12, 0.3) * reach * (1 if rng.random() < 0.5 else -1)
    sway = aside + 26 * np.sin(t / 95 + rng.uniform(0, 6)) + 11 * np.sin(t / 37 + rng.uniform(0, 6))
    x = width / 2 + t * math.cos(turn) - sway * math.sin(turn)
    y = height / 2 + t * math.sin(turn) + sway * math.cos(turn)
    return LineString(np.round(np.stack([x, y], axis=1), 3)).buffer(rng.uniform(8, 20))


def lay_out(
    seed: int,
    shape_yx: tuple[int, int],
    gsd_m: float,
    attempt: int = 0,
    districts: Sequence[District] = (),
) -> tuple[Town, Light]:
    """Everything but the drawing of roofs, crowns, cars and light.

    Args:
        districts: kinds to choose from; default all that fit a scene of this size.
    """
    rng = _rng(seed, 1000 * attempt)
    palette = _REGIONS[int(rng.integers(len(_REGIONS)))]
    canvas = Canvas(shape_yx, gsd_m, palette.dry)
    town = Town(canvas, palette)
    height, width = canvas.size_m
    azimuth = rng.uniform(0, 2 * math.pi)
    sun = Sun(
        (round(math.cos(azimuth), 5), round(math.sin(azimuth), 5)),
        round(float(rng.uniform(0.72, 1.05)), 4),
    )
    cast = tuple(float(c) for c in np.round(rng.normal(1.0, 0.02, 3) + rng.normal(0, 0.04), 4))
    light = Light(sun, (cast[0], cast[1], cast[2]))
    diagonal = math.hypot(height, width)
    # The frame is laid out larger than the scene and moved, so that the first cut is anywhere.
    reach = max(130.0, diagonal * 1.08) + 90
    frame = Frame(
        (width / 2 + rng.uniform(-45, 45), height / 2 + rng.uniform(-45, 45)),
        rng.uniform(-0.7, 0.7),
        float(rng.choice([2.0, 10.0, 16.0])),
        (rng.uniform(0, 6), rng.uniform(0, 6)),
    )
    half = reach / 2
    scene = box(0, 0, width, height)
    rects, cuts = _split(rng, (-half, -half, half, half), 105.0)
    visible = [(frame.area(*r).intersection(scene).area, r) for r in rects]
    visible = sorted([v for v in visible if v[0] > 0], reverse=True)
    if min(height, width) > 300 and rng.random() < 0.75:
        town.water = _river(rng, height, width)
        canvas.fill(town.water, None, taken=BLOCKED)
    arterials(rng, town, frame, cuts)
    order = list(districts or (_SMALL if len(visible) <= 3 else _LARGE))
    order = [order[int(i)] for i in rng.permutation(len(order))]
    for number, (_, (u0, v0, u1, v1)) in enumerate(visible):
        kind = order[number % len(order)]
        u0, v0, u1, v1 = u0 + _INSET_M, v0 + _INSET_M, u1 - _INSET_M, v1 - _INSET_M
        own = _rng(seed, 1000 * attempt + 100 + number)
        ground = frame.area(u0, v0, u1, v1).difference(town.water.buffer(9))
        turned = own.random() < 0.5
        sides = (v0, -u1, v1, -u0) if turned else (u0, v0, u1, v1)
        parts = MultiPolygon([part for part in polygons_of(ground) if part.area > 800])
        if not parts.is_empty:
            kind(own, town, frame.turned() if turned else frame, Cell(*sides, parts))
    if not town.water.is_empty:
        _draw_water(rng, town)
    draw_roads(town)
    street_trees(rng, town)
    return town, light


def _draw_water(rng: Rng, town: Town) -> None:
    """The river over its banks, with trees along them."""
    water, colour = town.water, town.palette.water
    town.canvas.fill(water.buffer(4.5), jitter(rng, town.palette.grass), texture=0.95)
    town.canvas.fill(water.buffer(1.2), scaled(town.palette.soil, 0.92), texture=0.8)
    for step in range(4):
        town.canvas.fill(water.buffer(-1.6 * step), scaled(colour, 1.12 - 0.05 * step), texture=0.1)
    bank = water.buffer(4.5).boundary
    for at in np.arange(0.0, bank.length, 5.0):
        spot = bank.interpolate(float(at))
        if rng.random() < 0.4:
            where = (spot.x + float(rng.normal(0, 1.5)), spot.y + float(rng.normal(0, 1.5)))
            town.plant(rng, where, float(rng.uniform(1.3, 3.6)))


def draw_town(town: Town, light: Light, seed: int) -> tuple[NDArray[np.uint8], list[Polygon]]:
    """The image (3, y, x) and the outlines of what was built, in metres of the scene."""
    rng = _rng(seed, 1)
    canvas = town.canvas
    table = noise(rng, (512, 512), [1, 4, 16])
    table *= np.float32(1.6)
    kept = town.disjoint()
    for index in kept:
        draw_building(canvas, town.buildings[index], light.sun, table, rng)
        draw_rooftop(canvas, town.buildings[index], rng)
    draw_cars(canvas, town.cars, rng)
    draw_trees(canvas, town.trees, town.palette, light.sun, rng)
    shadow = cast_shadows(canvas, light.sun)
    image = expose(canvas, shadow, rng, light.cast)
    return image, [town.outlines[i] for i in kept]
