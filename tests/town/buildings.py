"""Buildings of synthetic scenes: random kinds of houses, their roofs, and objects on the roofs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from shapely import affinity, union_all
from shapely.geometry import Point, Polygon, box
from shapely.geometry.base import BaseGeometry

from town.canvas import Canvas, Colour, Palette, Rng, jitter, scaled

Roof = Literal["gable_u", "gable_v", "hip", "flat", "shed", "cone"]

# Colours, colour of the stains, kind of surface.
MATERIALS: dict[str, tuple[tuple[Colour, ...], Colour, str]] = {
    "terracotta": (((164, 100, 78), (150, 90, 72), (174, 114, 88)), (112, 70, 58), "tile"),
    "brown": (((120, 92, 74), (104, 84, 72), (136, 108, 88)), (80, 68, 60), "shingle"),
    "grey": (((132, 132, 134), (108, 110, 114), (150, 148, 144)), (84, 84, 84), "shingle"),
    "metal": (((190, 196, 200), (172, 178, 184), (206, 208, 208)), (142, 106, 82), "metal"),
    "rusty": (((150, 116, 94), (164, 134, 112), (134, 98, 78)), (112, 66, 44), "metal"),
    "red metal": (((150, 62, 52), (136, 70, 62)), (116, 74, 62), "metal"),
    "blue metal": (((74, 112, 158), (92, 136, 176)), (96, 104, 112), "metal"),
    "green metal": (((86, 122, 98), (74, 108, 90)), (104, 108, 92), "metal"),
    "concrete": (((168, 164, 156), (184, 180, 172), (150, 146, 140)), (112, 108, 102), "slab"),
    "bitumen": (((72, 72, 76), (88, 86, 86), (60, 62, 66)), (104, 102, 98), "slab"),
    "white": (((222, 222, 218), (232, 230, 226)), (180, 176, 168), "slab"),
    "thatch": (((146, 124, 88), (128, 108, 78)), (96, 80, 60), "thatch"),
}

_FLAT = ("concrete", "white", "bitumen")
"""Materials of flat roofs."""


@dataclass(frozen=True)
class Sun:
    """Direction of the light. `towards_xy` is the horizontal unit vector towards the sun."""

    towards_xy: tuple[float, float]
    elevation: float

    def shade(self, slope_xy: tuple[float, float], pitch: float) -> float:
        """Return the brightness of a plane that falls along `slope_xy` by `pitch`; 1 for a level
        plane.
        """
        facing = slope_xy[0] * self.towards_xy[0] + slope_xy[1] * self.towards_xy[1]
        level = math.sin(self.elevation)
        lit = (facing * pitch * math.cos(self.elevation) + level) / math.hypot(1, pitch)
        return 0.5 + 0.5 * max(lit, 0.0) / level


@dataclass(frozen=True)
class Wing:
    """A rectangle of a building in the building's own frame (metres), with one roof."""

    u0: float
    v0: float
    u1: float
    v1: float
    roof: Roof
    pitch: float = 0.4


@dataclass(frozen=True)
class Building:
    """A building in the scene's metres.

    Args:
        xy: Origin of its frame.
        angle: Angle of its u axis in radians.
        wings: Wings, whose union is the footprint.
        material: Key of `MATERIALS`.
        eave_m: Height of the walls.
        tone: Choice among the material's colours, and dirtiness, 0..1 each.
        tags: Objects that may stand on the roof, see `draw_rooftop`; "parapet" for a raised edge.
    """

    xy: tuple[float, float]
    angle: float
    wings: tuple[Wing, ...]
    material: str
    eave_m: float = 3.0
    tone: tuple[float, float] = (0.5, 0.3)
    tags: frozenset[str] = field(default_factory=frozenset)

    def footprint(self, grow_m: float = 0.0) -> Polygon:
        """Return the outline in the scene's metres, enlarged by `grow_m` on every side."""
        first = self.wings[0]
        shape: BaseGeometry
        if first.roof == "cone":
            radius = (first.u1 - first.u0) / 2 + grow_m
            shape = Point(0, 0).buffer(radius, quad_segs=8)
        else:
            g = grow_m
            boxes = [box(w.u0 - g, w.v0 - g, w.u1 + g, w.v1 + g) for w in self.wings]
            shape = boxes[0] if len(boxes) == 1 else union_all(boxes)
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        placed = affinity.affine_transform(shape, [cos, -sin, sin, cos, *self.xy])
        assert isinstance(placed, Polygon), "the wings of a building touch one another"
        return placed


Array = NDArray[np.float32]


def _roof_planes(building: Building, u: Array, v: Array) -> tuple[Array, NDArray[np.int8], Any]:
    """Return height above the eaves, direction of the slope (-v +v -u +u none), and coverage."""
    height = np.full(u.shape, -1, np.float32)
    plane = np.zeros(u.shape, np.int8)
    for wing in building.wings:
        top, bottom, left, right = v - wing.v0, wing.v1 - v, u - wing.u0, wing.u1 - u
        along_v, along_u = np.minimum(top, bottom), np.minimum(left, right)
        inside = np.minimum(along_v, along_u) >= 0
        pitch = np.float32(wing.pitch)
        face_v = (bottom < top).astype(np.int8)
        face_u = (right < left).astype(np.int8) + np.int8(2)
        if wing.roof == "gable_u":
            own, face = along_v * pitch, face_v
        elif wing.roof == "gable_v":
            own, face = along_u * pitch, face_u
        elif wing.roof == "hip":
            own = np.minimum(along_v, along_u) * pitch
            face = np.where(along_v < along_u, face_v, face_u)
        elif wing.roof == "shed":
            own, face = top * pitch, np.zeros(u.shape, np.int8)
        elif wing.roof == "cone":
            radius = np.float32((wing.u1 - wing.u0) / 2)
            distance = np.sqrt(u * u + v * v)
            own, inside = (radius - distance) * pitch, distance <= radius
            face = np.where(np.abs(u) > np.abs(v), np.where(u < 0, 2, 3), np.where(v < 0, 0, 1))
        else:
            own, face = np.zeros(u.shape, np.float32), np.full(u.shape, 4, np.int8)
        better = inside & (own > height)
        np.copyto(height, own, where=better)
        np.copyto(plane, face.astype(np.int8), where=better)
    return height, plane, height >= 0


def _surface(
    kind: str, c: Array, t: Array, table: Array, offset: int, dirt: float
) -> tuple[Array, Array]:
    """Return brightness around 1 and the share of stain, given metres along (`c`) and down
    (`t`).
    """

    def grain(scale_c: float, scale_t: float) -> Array:
        rows = (t * np.float32(scale_t)).astype(np.int32) + offset
        cols = (c * np.float32(scale_c)).astype(np.int32) + offset * 7
        return np.asarray(table[rows & 511, cols & 511])

    def waves(x: Array, period_m: float) -> Array:
        phase = x / np.float32(period_m)
        # A triangle: a sine would cost more and differ in the last bit between machines.
        return np.asarray(np.abs(phase - np.floor(phase) - np.float32(0.5)) * 4 - 1)

    coarse, fine = grain(1.6, 1.6), grain(9.0, 9.0)
    if kind == "metal":
        sheets = table[offset & 511, (np.floor(c / np.float32(2.4)).astype(np.int32) * 37) & 511]
        light = 1 + 0.07 * waves(c, 0.8) + 0.07 * sheets
        streaks = grain(5.0, 0.8)
        stain = (0.55 * streaks + 0.45 * coarse + np.float32(1.5 * dirt - 0.85)) * 1.6
    elif kind == "tile":
        light = 1 + 0.05 * waves(t, 0.75) + 0.07 * fine
        stain = (coarse + np.float32(dirt - 0.75)) * 0.9
    elif kind == "thatch":
        light = 1 + 0.14 * grain(14.0, 2.5) + 0.05 * waves(t, 1.3)
        stain = (coarse + np.float32(dirt - 0.5)) * 0.8
    elif kind == "shingle":
        light = 1 + 0.05 * fine + 0.02 * waves(t, 0.6)
        stain = (coarse + np.float32(dirt - 0.8)) * 0.7
    else:
        light = 1 + 0.03 * fine + 0.04 * grain(0.5, 0.5)
        stain = (0.7 * coarse + 0.5 * grain(0.6, 0.6) + np.float32(dirt - 0.6)) * 0.9
    return light.astype(np.float32), np.clip(stain, 0, 0.85).astype(np.float32)


def draw_building(canvas: Canvas, building: Building, sun: Sun, table: Array, rng: Rng) -> None:
    """Paint the roof, antialiased, with its height.

    Args:
        canvas: Canvas to draw on.
        building: Building to draw.
        sun: Direction of the light.
        table: (512, 512) noise in -1..1 for the grain of surfaces.
        rng: Random generator.
    """
    shape = building.footprint()
    window = canvas.window(shape.bounds)
    offset = int(rng.integers(0, 512))
    if window is None:
        return
    rows, cols = window
    height_px, width_px = rows.stop - rows.start, cols.stop - cols.start
    s = 3 if height_px * width_px < 20_000 else 2
    gsd = canvas.gsd_m
    y = ((np.arange(height_px * s) + 0.5) / s + rows.start) * gsd - building.xy[1]
    x = ((np.arange(width_px * s) + 0.5) / s + cols.start) * gsd - building.xy[0]
    cos, sin = math.cos(building.angle), math.sin(building.angle)
    u = ((x * cos)[None, :] + (y * sin)[:, None]).astype(np.float32)
    v = ((y * cos)[:, None] - (x * sin)[None, :]).astype(np.float32)
    over, plane, inside = _roof_planes(building, u, v)

    colours, stain_colour, kind = MATERIALS[building.material]
    pick, dirt = building.tone
    base = np.array(colours[min(int(pick * len(colours)), len(colours) - 1)], np.float32)
    base = np.clip(base * np.float32(0.92 + 0.16 * ((pick * 7.3) % 1.0)), 0, 246)
    falls = ((sin, -cos), (-sin, cos), (-cos, -sin), (cos, sin))
    pitch = building.wings[0].pitch
    shades = np.array([sun.shade(way, pitch) for way in falls] + [1.0], np.float32)
    across = plane >= 2
    c, t = np.where(across, v, u), np.where(across, u, v)
    light, stain = _surface(kind, c, t, table, offset, dirt)
    light *= shades[plane]
    extra = np.zeros(u.shape, np.float32)
    if "parapet" in building.tags:
        edge = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3) * (gsd / s)
        rim = (edge < 0.45) & inside
        light[rim] *= np.float32(1.12)
        extra[rim] = 0.8
    elif pitch > 0.15 and building.wings[0].roof in ("hip", "gable_u", "gable_v"):
        cross = np.ones((3, 3), np.uint8)
        ridge = cv2.morphologyEx(plane.astype(np.uint8), cv2.MORPH_GRADIENT, cross)
        light[(ridge > 0) & inside] *= np.float32(1.1 if kind != "metal" else 1.05)
    rgb = base * (1 - stain[..., None]) + np.array(stain_colour, np.float32) * stain[..., None]
    patch = np.zeros((*u.shape, 4), np.uint8)
    patch[..., :3] = np.clip(rgb * light[..., None], 0, 255)
    patch[..., 3] = 255
    patch[~inside] = 0
    small = cv2.resize(patch, (width_px, height_px), interpolation=cv2.INTER_AREA)
    top = np.clip((over + extra + np.float32(building.eave_m)) * 10, 0, 255).astype(np.uint8)
    # The height of a pixel is that of the sample at or next to its centre.
    canvas.blend(rows, cols, small[..., :3], small[..., 3], top[s // 2 :: s, s // 2 :: s])


class _Deck:
    """Drawing methods for one building in its own frame."""

    def __init__(self, canvas: Canvas, building: Building) -> None:
        self.canvas, self.building = canvas, building
        self.turn = math.cos(building.angle), math.sin(building.angle)

    def place(self, u: float, v: float) -> tuple[float, float]:
        (cos, sin), (x, y) = self.turn, self.building.xy
        return x + u * cos - v * sin, y + u * sin + v * cos

    def box(
        self, at: tuple[float, float], size: tuple[float, float], colour: Colour, top_m: float = 0.0
    ) -> None:
        """Draw a rectangle around `at`, `top_m` above the eaves; 0 for one that lies in the
        roof.
        """
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
    """Return a random point of a wing at least `margin` from its edges, or its centre."""
    half_u = max(0.0, (wing.u1 - wing.u0) / 2 - margin)
    half_v = max(0.0, (wing.v1 - wing.v0) / 2 - margin)
    u = (wing.u0 + wing.u1) / 2 + rng.uniform(-half_u, half_u)
    v = (wing.v0 + wing.v1) / 2 + rng.uniform(-half_v, half_v)
    return float(u), float(v)


def draw_rooftop(canvas: Canvas, building: Building, rng: Rng) -> None:
    """Draw the objects that `building.tags` name, by chance and where there is room."""
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
    """Draw a few rows of dark solar modules on one side of the ridge."""
    count, lines = int(rng.integers(3, 8)), int(rng.integers(1, 3))
    length = min(count * 1.05, (wing.u1 - wing.u0) * 0.6)
    v = wing.v0 + (wing.v1 - wing.v0) * (0.27 if rng.random() < 0.5 else 0.73)
    u = (wing.u0 + wing.u1) / 2 + rng.uniform(-0.6, 0.6)
    deck.box((u, v), (length, lines * 1.5), jitter(rng, (40, 48, 70), 4))
    for k in np.arange(-length / 2 + 1.05, length / 2 - 0.5, 1.05):
        ends = np.array([deck.place(u + float(k), v + s * lines * 0.75) for s in (-1, 1)])
        deck.canvas.line(ends, (92, 100, 118))


def _skylights(rng: Rng, deck: _Deck) -> None:
    """Draw translucent sheets in both slopes of a hall, at regular distances."""
    if rng.random() < 0.35:
        return
    tone = jitter(rng, (206, 212, 206), 5)
    pace = rng.uniform(6.5, 11)
    for wing in deck.building.wings:
        deep = wing.v1 - wing.v0
        for u in np.arange(wing.u0 + pace / 2, wing.u1 - 1.5, pace):
            for share in (0.25, 0.75):
                deck.box((float(u), wing.v0 + deep * share), (1.0, deep * 0.26), tone)


def _plant(rng: Rng, deck: _Deck) -> None:
    """Draw ventilation boxes, a stair head and ducts on a flat roof."""
    for wing in deck.building.wings:
        area = (wing.u1 - wing.u0) * (wing.v1 - wing.v0)
        if min(wing.u1 - wing.u0, wing.v1 - wing.v0) < 7:
            continue
        if rng.random() < 0.7:
            deck.box(_inside(rng, wing, 3.2), (4.2, 3.0), jitter(rng, (176, 172, 164)), 2.4)
        for _ in range(min(14, 1 + int(area / 140))):
            size = (rng.uniform(1.0, 2.6), rng.uniform(1.0, 1.9))
            deck.box(_inside(rng, wing, 2.2), size, jitter(rng, (172, 176, 180), 14), 1.2)
        if area > 500 and rng.random() < 0.6:
            u, v = _inside(rng, wing, 6.0)
            deck.box((u, v), (rng.uniform(6, 10), 0.8), jitter(rng, (190, 192, 194)), 0.8)


Xy = tuple[float, float]


def _tone(rng: Rng, dirt: float) -> tuple[float, float]:
    return rng.random(), rng.uniform(0, dirt)


def _pick(rng: Rng, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def cottage(rng: Rng, palette: Palette, xy: Xy, angle: float, wide: float, deep: float) -> Building:
    """Return a detached house: a main wing, often with one or two more (L, T, U)."""
    material = _pick(rng, palette.houses)
    flat = material in _FLAT
    roof: Roof = "flat" if flat else "hip" if rng.random() < 0.5 else "gable_u"
    pitch = 0.0 if flat else round(rng.uniform(0.3, 0.55), 3)
    a, b = wide / 2, deep / 2
    wings = [Wing(-a, -b, a, b, roof, pitch)]
    cross: Roof = "gable_v" if roof == "gable_u" else roof
    roll = rng.random()
    arm, out = min(wide * rng.uniform(0.34, 0.46), deep), deep * rng.uniform(0.3, 0.5)
    way = 1 if rng.random() < 0.5 else -1
    if roll < 0.35:
        left = -a if way > 0 else a - arm
        wings = [Wing(-a, -b, a, b - out, roof, pitch), Wing(left, -b, left + arm, b, cross, pitch)]
    elif roll < 0.5:
        middle = rng.uniform(-a * 0.3, a * 0.3)
        wings = [
            Wing(-a, -b, a, b - out, roof, pitch),
            Wing(middle - arm / 2, -b + (deep - out) / 2, middle + arm / 2, b, cross, pitch),
        ]
    elif roll < 0.58 and wide > 12:
        arm = wide * 0.3
        wings = [
            Wing(-a, -b, a, b - out, roof, pitch),
            Wing(-a, -b, -a + arm, b, cross, pitch),
            Wing(a - arm, -b, a, b, cross, pitch),
        ]
    tags = frozenset({"parapet", "roof tank", "solar"}) if flat else frozenset({"chimney", "solar"})
    eave = float(rng.choice([2.8, 3.0, 5.6]))
    return Building(xy, angle, tuple(wings), material, eave, tone=_tone(rng, 0.6), tags=tags)


def shack(rng: Rng, palette: Palette, xy: Xy, angle: float, wide: float, deep: float) -> Building:
    """Return a small house of an unplanned settlement, mostly with a sheet-metal roof."""
    material = _pick(rng, palette.shacks)
    a, b = wide / 2, deep / 2
    roof: Roof = "gable_u" if rng.random() < 0.55 else "shed"
    pitch = round(rng.uniform(0.12, 0.3), 3)
    tags: frozenset[str] = frozenset()
    if material in ("concrete", "white"):
        roof, pitch, tags = "flat", 0.0, frozenset({"parapet", "roof tank"})
    wings = [Wing(-a, -b, a, b, roof, pitch)]
    if wide > 7 and rng.random() < 0.3:
        side = rng.uniform(2, 3.2)
        wings.append(Wing(-a, b - 0.5, -a + wide * rng.uniform(0.4, 0.7), b + side, roof, pitch))
    eave = rng.uniform(2.2, 3.2)
    return Building(xy, angle, tuple(wings), material, eave, tone=_tone(rng, 1.0), tags=tags)


def hut(rng: Rng, xy: Xy) -> Building:
    """Return a round hut with a thatched roof."""
    r = rng.uniform(2.2, 3.6)
    cone = Wing(-r, -r, r, r, "cone", 0.6)
    return Building(xy, 0.0, (cone,), "thatch", 2.0, tone=_tone(rng, 0.7))


def terrace(
    rng: Rng, palette: Palette, xy: Xy, angle: float, count: int, unit: float, deep: float
) -> list[Building]:
    """Return a row of `count` houses that share their side walls exactly."""
    material = _pick(rng, palette.houses)
    flat = material in _FLAT
    pitch = 0.0 if flat else round(rng.uniform(0.4, 0.6), 3)
    tone, eave = rng.random(), rng.uniform(4.8, 5.8)
    row = []
    for i in range(count):
        u0, u1 = (i - count / 2) * unit, (i + 1 - count / 2) * unit
        own = float((tone + rng.normal(0, 0.12)) % 1.0)
        wing = Wing(u0, -deep / 2, u1, deep / 2, "flat" if flat else "gable_u", pitch)
        tags = frozenset({"parapet"}) if flat else frozenset({"chimney", "solar"})
        dirt = rng.uniform(0, 0.6)
        row.append(Building(xy, angle, (wing,), material, eave, tone=(own, dirt), tags=tags))
    return row


def hall(rng: Rng, xy: Xy, angle: float, wide: float, deep: float) -> Building:
    """Return a factory or a warehouse."""
    material = _pick(rng, ("metal", "metal", "white", "blue metal", "concrete", "bitumen", "rusty"))
    a, b = wide / 2, deep / 2
    flat = material in _FLAT
    roof: Roof = "flat" if flat else "gable_u"
    pitch = 0.0 if flat else round(rng.uniform(0.08, 0.16), 3)
    wings = [Wing(-a, -b, a, b, roof, pitch)]
    if not flat and deep > 32 and rng.random() < 0.6:
        # Two naves side by side with a valley between them.
        wings = [Wing(-a, -b, a, 0, roof, pitch), Wing(-a, 0, a, b, roof, pitch)]
    elif rng.random() < 0.4:
        wings = [Wing(-a, -b, a, b * 0.5, roof, pitch), Wing(-a, -b, a * 0.1, b, roof, pitch)]
    tags = frozenset({"parapet", "plant"}) if flat else frozenset({"skylights"})
    eave = rng.uniform(6, 9.5)
    return Building(xy, angle, tuple(wings), material, eave, tone=_tone(rng, 0.45), tags=tags)


def apartment(rng: Rng, xy: Xy, angle: float, wide: float, deep: float) -> Building:
    """Return a block of flats: a slab, an L, a U, or a closed block around a courtyard."""
    material = _pick(rng, ("concrete", "bitumen", "white", "terracotta", "grey", "concrete"))
    flat = material in _FLAT
    roof: Roof = "flat" if flat else "hip"
    pitch = 0.0 if flat else 0.35
    arm = rng.uniform(9.5, 12.5)
    a, b = wide / 2, max(deep, arm) / 2
    roll = rng.random()
    bar = Wing(-a, -b, a, -b + arm, roof, pitch)
    left, right = Wing(-a, -b, -a + arm, b, roof, pitch), Wing(a - arm, -b, a, b, roof, pitch)
    wings: tuple[Wing, ...] = (bar,)
    if roll < 0.25 and wide > 3 * arm and deep > 2.5 * arm:
        wings = (bar, left, right, Wing(-a, b - arm, a, b, roof, pitch))
    elif roll < 0.5 and wide > 2.5 * arm:
        wings = (bar, left, right)
    elif roll < 0.75:
        wings = (bar, left)
    tags = frozenset({"parapet", "plant"}) if flat else frozenset({"chimney"})
    eave = rng.uniform(9, 17)
    tone = _tone(rng, 0.5)
    return Building(xy, angle, wings, material, eave, tone, tags)
