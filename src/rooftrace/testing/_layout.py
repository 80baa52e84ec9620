"""The plan of a scene: region, districts, roads, water; and the order in which it is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import LineString, Polygon, box
from shapely.geometry.base import BaseGeometry

from rooftrace.testing._canvas import Canvas, Rng, jitter, noise, polygons_of
from rooftrace.testing._districts import DISTRICTS, Cell
from rooftrace.testing._props import cast_shadows, draw_cars, draw_trees, expose
from rooftrace.testing._roofs import Sun, draw_building
from rooftrace.testing._town import Frame, Palette, Town

__all__ = ["Light", "draw_town", "lay_out"]

_REGIONS = (
    Palette(  # red soil, sheet metal, palms
        grass=(112, 118, 74), dry=(146, 132, 94), soil=(170, 128, 98), asphalt=(122, 118, 116),
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


@dataclass(frozen=True)
class Light:
    """The sun and the sensor of a scene."""

    sun: Sun
    cast: tuple[float, float, float]


def _rng(seed: int, part: int) -> Rng:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, part])))


def _cells(
    rng: Rng, u0: float, v0: float, u1: float, v1: float, least: float
) -> list[tuple[float, float, float, float]]:
    """Split a rectangle until no side is longer than twice `least`."""
    if max(u1 - u0, v1 - v0) < 2.1 * least:
        return [(u0, v0, u1, v1)]
    share = rng.uniform(0.4, 0.6)
    if u1 - u0 > v1 - v0:
        cut = u0 + (u1 - u0) * share
        return _cells(rng, u0, v0, cut, v1, least) + _cells(rng, cut, v0, u1, v1, least)
    cut = v0 + (v1 - v0) * share
    return _cells(rng, u0, v0, u1, cut, least) + _cells(rng, u0, cut, u1, v1, least)


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
    seed: int, shape_yx: tuple[int, int], gsd_m: float, attempt: int = 0
) -> tuple[Town, Light]:
    """Everything but the drawing of roofs, crowns, cars and light."""
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
    cast = tuple(float(c) for c in np.round(rng.normal(1.0, 0.03, 3) + rng.normal(0, 0.04), 4))
    light = Light(sun, (cast[0], cast[1], cast[2]))
    reach = max(130.0, math.hypot(height, width) * 1.08)
    frame = Frame(
        (width / 2, height / 2),
        rng.uniform(-0.7, 0.7),
        float(rng.choice([2.0, 10.0, 16.0])),
        (rng.uniform(0, 6), rng.uniform(0, 6)),
    )
    half = reach / 2
    scene = box(0, 0, width, height)
    rects = _cells(rng, -half, -half, half, half, 105.0)
    visible = [(frame.area(*r).intersection(scene).area, r) for r in rects]
    visible = sorted([v for v in visible if v[0] > 0], reverse=True)

    water: BaseGeometry = Polygon()
    if min(height, width) > 300 and rng.random() < 0.75:
        water = _river(rng, height, width)
        canvas.fill(water.buffer(5), jitter(rng, (150, 140, 112)), texture=0.8)
        canvas.fill(water, palette.water, texture=0.12, taken=True)
    if len(visible) <= 3:
        order = ["suburb", "informal", "rows", "estate", "suburb", "informal"]
    else:
        order = ["informal", "suburb", "rows", "industrial", "fields"]
        order += ["suburb", "estate", "informal", "park"]
    order = [order[int(i)] for i in rng.permutation(len(order))]
    for number, (_, rect) in enumerate(visible):
        kind = order[number % len(order)]
        u0, v0, u1, v1 = rect
        inset = 7.5 if len(visible) > 1 else 0.0
        area = frame.area(u0 + inset, v0 + inset, u1 - inset, v1 - inset)
        ground = polygons_of(area.difference(water.buffer(9)))
        for part in ground:
            if part.area > 1500:
                cell = Cell(u0 + inset, v0 + inset, u1 - inset, v1 - inset, part)
                DISTRICTS[kind](_rng(seed, 1000 * attempt + 100 + number), town, frame, cell)
    if len(visible) > 1:
        for u0, v0, u1, v1 in rects:
            for ends in ((u0, v0, u1, v0), (u0, v0, u0, v1)):
                _arterial(town, frame, ends)
    return town, light


def _arterial(town: Town, frame: Frame, ends: tuple[float, float, float, float]) -> None:
    """A main road with kerbs and a dashed middle line."""
    line = frame.line(*ends)
    town.canvas.fill(line.buffer(6.6), (176, 172, 164), texture=0.25)
    town.canvas.fill(line.buffer(4.8), town.palette.asphalt, texture=0.2, taken=True)
    for k in np.arange(2.0, line.length - 3, 9.0):
        dash = [line.interpolate(float(k)), line.interpolate(float(k) + 3.5)]
        town.canvas.line(np.array([(p.x, p.y) for p in dash]), (214, 214, 208))


def draw_town(town: Town, light: Light, seed: int) -> tuple[NDArray[np.uint8], list[Polygon]]:
    """The image (3, y, x) and the outlines of what was built, in metres of the scene."""
    rng = _rng(seed, 1)
    canvas = town.canvas
    table = noise(rng, (512, 512), [1, 4, 16])
    table *= np.float32(1.6)
    kept = town.disjoint()
    for index in kept:
        draw_building(canvas, town.buildings[index], light.sun, table, rng)
    draw_cars(canvas, town.cars, rng)
    draw_trees(canvas, town.trees, town.palette, light.sun, rng)
    shadow = cast_shadows(canvas, light.sun)
    image = expose(canvas, shadow, rng, light.cast)
    return image, [town.outlines[i] for i in kept]
