"""Buildings: what a roof is made of, where its planes lie, and how it looks from above."""

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

from rooftrace.testing._canvas import Canvas, Colour, Rng

__all__ = ["MATERIALS", "Building", "Roof", "Sun", "Wing", "draw_building"]

Roof = Literal["gable_u", "gable_v", "hip", "flat", "shed", "cone"]

# colour, colour of its stains, surface
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


@dataclass(frozen=True)
class Sun:
    """Where light comes from. `towards_xy` is the unit vector on the ground to the sun."""

    towards_xy: tuple[float, float]
    elevation: float

    def shade(self, slope_xy: tuple[float, float], pitch: float) -> float:
        """Brightness of a plane that falls along `slope_xy` by `pitch`, 1 for a level one."""
        facing = slope_xy[0] * self.towards_xy[0] + slope_xy[1] * self.towards_xy[1]
        level = math.sin(self.elevation)
        lit = (facing * pitch * math.cos(self.elevation) + level) / math.hypot(1, pitch)
        return 0.5 + 0.5 * max(lit, 0.0) / level


@dataclass(frozen=True)
class Wing:
    """A rectangle of a building in its own frame (metres), with one roof."""

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
        xy: the origin of its frame.
        angle: of its u axis, radians.
        wings: their union is the footprint.
        material: a key of `MATERIALS`.
        eave_m: height of the walls.
        tone: the choice among the material's colours, and how dirty it is, 0..1 each.
        tags: what may stand on the roof, see `draw_rooftop`; "parapet" for a raised edge.
    """

    xy: tuple[float, float]
    angle: float
    wings: tuple[Wing, ...]
    material: str
    eave_m: float = 3.0
    tone: tuple[float, float] = (0.5, 0.3)
    tags: frozenset[str] = field(default_factory=frozenset)

    def footprint(self, grow_m: float = 0.0) -> Polygon:
        """The outline in the scene's metres, `grow_m` larger on every side."""
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
    """Height over the eaves, the way each pixel's plane falls (-v +v -u +u none), and inside."""
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
    """Brightness around 1 and the share of stain, from metres along the eave `c` and down `t`."""

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
        table: (512, 512) noise in -1..1 that surfaces are grained with.
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
    # One sample stands for the height of its pixel: the one at the centre, or nearest to it.
    canvas.blend(rows, cols, small[..., :3], small[..., 3], top[s // 2 :: s, s // 2 :: s])
