"""What stands around houses: crowns, cars; and the light that falls on all of it."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.testing._canvas import Canvas, Rng, jitter, noise, scaled
from rooftrace.testing._roofs import Sun
from rooftrace.testing._town import Palette, Tree

__all__ = ["cast_shadows", "draw_cars", "draw_trees", "expose"]

_CARS = (
    (226, 226, 224), (206, 208, 210), (168, 172, 176), (60, 62, 66), (38, 38, 42),
    (150, 40, 36), (46, 70, 120), (196, 180, 150),
)  # fmt: skip


def _crown(rng: Rng, radius_px: float, kind: str, sun: Sun) -> tuple[NDArray[Any], ...]:
    """Light (128 is even), coverage and height (share of the tree's) of one crown, all (n, n)."""
    s = 3
    n = math.ceil(radius_px) * 2 + 3
    grid = (np.arange(n * s) + 0.5) / s - n / 2
    y, x = np.meshgrid(grid, grid, indexing="ij")
    dome = np.zeros((n * s, n * s), np.float64)
    if kind == "palm":
        for k in range(int(rng.integers(7, 10))):
            turn = 2 * math.pi * (k + rng.uniform(-0.2, 0.2)) / 8
            along = x * math.cos(turn) + y * math.sin(turn)
            side = np.abs(y * math.cos(turn) - x * math.sin(turn))
            leaf = 1 - side / (0.17 * radius_px + 0.12 * along.clip(0)) - (along / radius_px) ** 4
            dome = np.maximum(dome, np.where(along > 0, leaf.clip(0, 1) * 0.8, 0))
    else:
        for k in range(int(rng.integers(9, 16))):
            turn, out = rng.uniform(0, 2 * math.pi), radius_px * (0.62 * math.sqrt(rng.random()))
            own = radius_px * rng.uniform(0.28, 0.5) if k else radius_px * 0.62
            if k == 0:
                out = 0.0
            dx, dy = x - out * math.cos(turn), y - out * math.sin(turn)
            bump = 1 - (dx * dx + dy * dy) / (own * own)
            lift = 1 - 0.45 * (out / radius_px)
            dome = np.maximum(dome, np.sqrt(bump.clip(0)) * lift)
    gy, gx = np.gradient(dome * radius_px * 0.8 * s)
    light = 128 - 62 * (gx * sun.towards_xy[0] + gy * sun.towards_xy[1]) / np.hypot(
        np.hypot(gx, gy), 1.0
    )
    light += (dome - 0.6) * 60
    cover = np.where(dome > 0.02, 255.0, 0.0)
    planes = [np.clip(p, 0, 255).astype(np.uint8) for p in (light, cover, dome * 255)]
    return tuple(cv2.resize(p, (n, n), interpolation=cv2.INTER_AREA) for p in planes)


def draw_trees(canvas: Canvas, trees: list[Tree], palette: Palette, sun: Sun, rng: Rng) -> None:
    """Paint crowns over whatever lies below; a crown may hang over a roof."""
    sprites: dict[tuple[str, int, int], tuple[NDArray[Any], ...]] = {}
    for tree in trees:
        radius_px = max(1.2, tree.radius_m / canvas.gsd_m)
        key = (tree.kind, round(radius_px), int(rng.integers(0, 4)))
        if key not in sprites:
            sprites[key] = _crown(rng, key[1], tree.kind, sun)
        light, cover, dome = sprites[key]
        n = light.shape[0]
        row = int(tree.xy[1] / canvas.gsd_m - n / 2)
        col = int(tree.xy[0] / canvas.gsd_m - n / 2)
        rows = slice(max(row, 0), min(row + n, canvas.shape_yx[0]))
        cols = slice(max(col, 0), min(col + n, canvas.shape_yx[1]))
        colour = jitter(rng, palette.crowns[int(rng.integers(len(palette.crowns)))], 9)
        if rows.start >= rows.stop or cols.start >= cols.stop:
            continue
        cut = (
            slice(rows.start - row, rows.stop - row),
            slice(cols.start - col, cols.stop - col),
        )
        tone = light[cut].astype(np.float32) / np.float32(128)
        alpha = cover[cut]
        rgb = np.clip(tone[..., None] * np.array(colour, np.float32), 0, 250)
        premultiplied = (rgb * (alpha.astype(np.float32) / np.float32(255))[..., None]).astype(
            np.uint8
        )
        top = min(2.0 + tree.radius_m * 1.7, 12.0) * 10
        dome_share = dome[cut].astype(np.float32) * np.float32(0.6 / 255) + np.float32(0.4)
        height = (dome_share * np.float32(top)).astype(np.uint8)
        canvas.blend(rows, cols, premultiplied, alpha, height, 0.35)


def draw_cars(canvas: Canvas, cars: list[tuple[tuple[float, float], float]], rng: Rng) -> None:
    """Paint cars, windows darker than the body."""
    for xy, heading in cars:
        long, wide = rng.uniform(3.9, 4.7), rng.uniform(1.7, 1.9)
        body = jitter(rng, _CARS[int(rng.integers(len(_CARS)))], 6)
        window = canvas.window((xy[0] - 4, xy[1] - 4, xy[0] + 4, xy[1] + 4))
        if window is None:
            continue
        rows, cols = window
        s = 4
        size = (rows.stop - rows.start, cols.stop - cols.start)
        patch = np.zeros((size[0] * s, size[1] * s, 4), np.uint8)
        for u0, u1, half, tone in (
            (-long / 2, long / 2, wide / 2, body),
            (-long * 0.38, long * 0.24, wide * 0.44, scaled(body, 0.28)),
            (-long * 0.26, long * 0.06, wide * 0.42, scaled(body, 1.06)),
        ):
            corners = np.array([(u0, -half), (u1, -half), (u1, half), (u0, half)])
            turn = np.array(
                [[math.cos(heading), math.sin(heading)], [-math.sin(heading), math.cos(heading)]]
            )
            at = (corners @ turn + np.array(xy)) / canvas.gsd_m - (cols.start, rows.start)
            points = np.rint(at * (s * 16)).astype(np.int32)
            cv2.fillPoly(patch, [points], (*tone, 255.0), shift=4)
        small = cv2.resize(patch, (size[1], size[0]), interpolation=cv2.INTER_AREA)
        height = np.full(size, 14, np.uint8)
        canvas.blend(rows, cols, small[..., :3], small[..., 3], height)


def cast_shadows(canvas: Canvas, sun: Sun) -> NDArray[np.float32]:
    """(y, x) float32 in 0..1, the share of direct light that is blocked.

    Every pixel looks towards the sun, a pixel's step at a time, for something that rises above
    its line of sight.
    """
    height = canvas.height
    tallest = int(height.max())
    fall = math.tan(sun.elevation) * canvas.gsd_m * 10
    horizon = np.zeros_like(height)
    rows, cols = height.shape
    for step in range(1, int(tallest / fall) + 2):
        dx, dy = round(sun.towards_xy[0] * step), round(sun.towards_xy[1] * step)
        if abs(dx) >= cols or abs(dy) >= rows:
            break
        here = (slice(max(0, -dy), rows - max(0, dy)), slice(max(0, -dx), cols - max(0, dx)))
        there = (slice(max(0, dy), rows - max(0, -dy)), slice(max(0, dx), cols - max(0, -dx)))
        drop = min(255, round(step * fall))
        seen = np.maximum(height[there], np.uint8(drop)) - np.uint8(drop)
        np.maximum(horizon[here], seen, out=horizon[here])
    over = cv2.subtract(horizon, height)
    hidden = np.where(over > 2, np.uint8(255), np.uint8(0))
    soft = cv2.GaussianBlur(hidden, (3, 3), 0.8)
    return soft.astype(np.float32) / np.float32(255)


def expose(
    canvas: Canvas, shadow: NDArray[np.float32], rng: Rng, cast: tuple[float, float, float]
) -> NDArray[np.uint8]:
    """The image (3, y, x) uint8: ground noise, shadow, then the sensor's blur, cast and noise."""
    shape = canvas.shape_yx
    px = 0.3 / canvas.gsd_m
    strength = canvas.rgba[..., 3].astype(np.float32) / np.float32(255)
    grain = noise(rng, shape, [1.2 * px + 0.6, 3 * px, 9 * px]) * strength
    patches = noise(rng, shape, [14 * px, 40 * px, 120 * px]) * strength
    light = 1 + np.float32(0.42) * grain + np.float32(0.3) * patches
    light *= 1 - np.float32(0.56) * shadow
    out = np.empty((3, *shape), np.uint8)
    for band, (warm, gain) in enumerate(zip((34.0, 6.0, -8.0), cast, strict=True)):
        plane = canvas.rgba[..., band].astype(np.float32)
        plane += patches * np.float32(warm)
        plane *= light
        # Shade is lit by the sky alone, so it is bluer than sunlight.
        plane += shadow * np.float32((0.0, 2.0, 9.0)[band])
        sharp = np.clip(plane * np.float32(gain), 0, 255).astype(np.uint8)
        out[band] = cv2.GaussianBlur(sharp, (3, 3), 0.55)
        speckle = rng.integers(-4, 5, shape, dtype=np.int8)
        out[band] = np.clip(out[band].astype(np.int16) + speckle, 0, 255)
    return out
