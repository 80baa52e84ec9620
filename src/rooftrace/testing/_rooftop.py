"""What stands on roofs: chimneys, water tanks, ventilation, skylights, solar panels."""

from __future__ import annotations

import math

import numpy as np
from shapely.geometry import Point, Polygon

from rooftrace.testing._canvas import Canvas, Colour, Rng, jitter, scaled
from rooftrace.testing._roofs import Building, Wing

__all__ = ["draw_rooftop"]


class _Deck:
    """Draws on one building in its own frame."""

    def __init__(self, canvas: Canvas, building: Building) -> None:
        self.canvas, self.building = canvas, building
        self.turn = math.cos(building.angle), math.sin(building.angle)

    def place(self, u: float, v: float) -> tuple[float, float]:
        (cos, sin), (x, y) = self.turn, self.building.xy
        return x + u * cos - v * sin, y + u * sin + v * cos

    def box(
        self, at: tuple[float, float], size: tuple[float, float], colour: Colour, top_m: float = 0.0
    ) -> None:
        """A rectangle around `at`; `top_m` over the eaves, or 0 for one that lies in the roof."""
        u, v, a, b = at[0], at[1], size[0] / 2, size[1] / 2
        corners = [(u - a, v - b), (u + a, v - b), (u + a, v + b), (u - a, v + b)]
        height = self.building.eave_m + top_m if top_m else None
        shape = Polygon([self.place(*corner) for corner in corners])
        self.canvas.fill(shape, colour, texture=0.0, height_m=height)

    def drum(self, at: tuple[float, float], radius: float, colour: Colour, top_m: float) -> None:
        disc = Point(self.place(*at)).buffer(radius, quad_segs=4)
        self.canvas.fill(disc, colour, texture=0.0, height_m=self.building.eave_m + top_m)
        lid = disc.buffer(-radius * 0.45)
        self.canvas.fill(lid, scaled(colour, 1.15), texture=0.0)


def _inside(rng: Rng, wing: Wing, margin: float) -> tuple[float, float]:
    """A point of a wing that keeps `margin` from its edges, or its middle."""
    half_u = max(0.0, (wing.u1 - wing.u0) / 2 - margin)
    half_v = max(0.0, (wing.v1 - wing.v0) / 2 - margin)
    u = (wing.u0 + wing.u1) / 2 + rng.uniform(-half_u, half_u)
    v = (wing.v0 + wing.v1) / 2 + rng.uniform(-half_v, half_v)
    return float(u), float(v)


def draw_rooftop(canvas: Canvas, building: Building, rng: Rng) -> None:
    """Add what `building.tags` say, by chance and where there is room."""
    deck, main = _Deck(canvas, building), building.wings[0]
    wide, deep = main.u1 - main.u0, main.v1 - main.v0
    if "chimney" in building.tags and rng.random() < 0.45:
        u = main.u0 + wide * (0.2 if rng.random() < 0.5 else 0.8)
        v = (main.v0 + main.v1) / 2 + rng.uniform(0.4, 1.0)
        ridge = main.pitch * min(deep, wide) / 2
        deck.box((u, v), (0.9, 0.9), jitter(rng, (128, 92, 78)), ridge + 0.9)
    if "roof tank" in building.tags and min(wide, deep) > 4 and rng.random() < 0.5:
        colour: Colour = (44, 46, 50) if rng.random() < 0.6 else (92, 124, 160)
        deck.drum(_inside(rng, main, 1.4), rng.uniform(0.55, 0.85), colour, 1.6)
    if "solar" in building.tags and min(wide, deep) > 6 and rng.random() < 0.16:
        _panels(rng, deck, main)
    if "skylights" in building.tags:
        _skylights(rng, deck)
    if "plant" in building.tags:
        _plant(rng, deck)


def _panels(rng: Rng, deck: _Deck, wing: Wing) -> None:
    """A few rows of dark modules on one side of the ridge."""
    count, lines = int(rng.integers(3, 8)), int(rng.integers(1, 3))
    length = min(count * 1.05, (wing.u1 - wing.u0) * 0.6)
    v = wing.v0 + (wing.v1 - wing.v0) * (0.27 if rng.random() < 0.5 else 0.73)
    u = (wing.u0 + wing.u1) / 2 + rng.uniform(-0.6, 0.6)
    deck.box((u, v), (length, lines * 1.5), jitter(rng, (40, 48, 70), 4))
    for k in np.arange(-length / 2 + 1.05, length / 2 - 0.5, 1.05):
        ends = np.array([deck.place(u + float(k), v + s * lines * 0.75) for s in (-1, 1)])
        deck.canvas.line(ends, (92, 100, 118))


def _skylights(rng: Rng, deck: _Deck) -> None:
    """Translucent sheets in the slopes of a hall, at even distances, on both sides."""
    if rng.random() < 0.35:
        return
    tone = jitter(rng, (206, 212, 206), 5)
    pace = float(rng.uniform(6.5, 11))
    for wing in deck.building.wings:
        deep = wing.v1 - wing.v0
        for u in np.arange(wing.u0 + pace / 2, wing.u1 - 1.5, pace):
            for share in (0.25, 0.75):
                deck.box((float(u), wing.v0 + deep * share), (1.0, deep * 0.26), tone)


def _plant(rng: Rng, deck: _Deck) -> None:
    """Ventilation boxes, a stair head and ducts on a flat roof."""
    for wing in deck.building.wings:
        area = (wing.u1 - wing.u0) * (wing.v1 - wing.v0)
        if min(wing.u1 - wing.u0, wing.v1 - wing.v0) < 7:
            continue
        if rng.random() < 0.7:
            deck.box(_inside(rng, wing, 3.2), (4.2, 3.0), jitter(rng, (176, 172, 164)), 2.4)
        for _ in range(min(14, 1 + int(area / 140))):
            size = (float(rng.uniform(1.0, 2.6)), float(rng.uniform(1.0, 1.9)))
            deck.box(_inside(rng, wing, 2.2), size, jitter(rng, (172, 176, 180), 14), 1.2)
        if area > 500 and rng.random() < 0.6:
            u, v = _inside(rng, wing, 6.0)
            deck.box((u, v), (float(rng.uniform(6, 10)), 0.8), jitter(rng, (190, 192, 194)), 0.8)
