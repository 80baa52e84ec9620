"""Generated towns with known roofs: a surface model, its terrain, and the truth of each house."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SHAPES = ("flat", "skillion", "gabled", "hipped")


@dataclass(frozen=True)
class RoofTown:
    """A town on a slope.

    Args:
        surface, terrain: (y, x) float32 metres, north up, the lower left corner at `origin`.
        pixel_m: Metres per pixel.
        outlines: (n,) outlines in metres.
        top, eaves, ground: (n,) float64 heights of ridge, eaves and ground at the centre.
        shape: (n,) names of `SHAPES`.
        direction: (n,) bearing of the ridge in degrees, 0 to 180; NaN for flat roofs.
    """

    surface: NDArray[np.float32]
    terrain: NDArray[np.float32]
    pixel_m: float
    outlines: NDArray[np.object_]
    top: Floats
    eaves: Floats
    ground: Floats
    shape: NDArray[np.str_]
    direction: Floats


def make_roof_town(
    houses: int = 60,
    *,
    pixel_m: float = 0.25,
    slope: float = 0.0,
    noise_m: float = 0.05,
    trees: int = 40,
    touching: bool = True,
    seed: int = 1,
    plot_m: float = 26.0,
    base_m: float = 100.0,
) -> RoofTown:
    """Return a town whose houses stand on plots in rows, every fifth one beside a neighbour.

    Args:
        houses: Number of houses.
        pixel_m: Metres per pixel.
        slope: Slope of the ground to the south-east, as a ratio.
        noise_m: Standard deviation of the heights in metres.
        trees: Number of trees between and over houses.
        touching: Whether some houses share a wall.
        seed: Seed of everything random.
        plot_m: Side of a plot in metres.
        base_m: Height of the ground at the lower left corner.
    """
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(houses)))
    extent = side * plot_m
    size = round(extent / pixel_m)
    centre = (np.arange(size) + 0.5) * pixel_m
    x, y = np.meshgrid(centre, extent - centre)
    terrain = base_m + slope * (x - y) / np.sqrt(2)
    surface = terrain.copy()
    rows = []
    outlines: list[shapely.Polygon] = []
    for number in range(houses):
        cx = (number % side + 0.5) * plot_m + rng.uniform(-2, 2)
        cy = (number // side + 0.5) * plot_m + rng.uniform(-2, 2)
        joined = touching and number % 5 == 0
        parts = 2 if joined else 1
        length, width = rng.uniform(9, 13), rng.uniform(7, 9)
        if joined:
            length, width = rng.uniform(7, 8), rng.uniform(7, 8)
        angle = rng.uniform(0, np.pi)
        for part in range(parts):
            along = (part - (parts - 1) / 2) * length
            px, py = cx + along * np.cos(angle), cy + along * np.sin(angle)
            rows.append(
                _add_house(
                    surface, x, y, (px, py), (length, width), angle, rng, base_m, slope, outlines
                )
            )
    for _ in range(trees):
        tx, ty, radius = *rng.uniform(0, extent, 2), rng.uniform(1.5, 3)
        inside = np.hypot(x - tx, y - ty) < radius
        crown = base_m + slope * (tx - ty) / np.sqrt(2) + rng.uniform(3, 9, surface.shape)
        surface[inside] = np.maximum(surface, crown)[inside]
    surface += rng.normal(0, noise_m, surface.shape)
    top, eaves, ground, shape, direction = zip(*rows)
    return RoofTown(
        surface.astype(np.float32), terrain.astype(np.float32), pixel_m,
        np.array(outlines, np.object_), np.array(top), np.array(eaves), np.array(ground),
        np.array(shape), np.array(direction),
    )  # fmt: skip


def _add_house(
    surface: Floats,
    x: Floats,
    y: Floats,
    centre: tuple[float, float],
    size: tuple[float, float],
    angle: float,
    rng: np.random.Generator,
    base_m: float,
    slope: float,
    outlines: list[shapely.Polygon],
) -> tuple[float, float, float, str, float]:
    (cx, cy), (length, width) = centre, size
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
    inside = (np.abs(u) <= length / 2) & (np.abs(v) <= width / 2)
    shape = str(rng.choice(SHAPES))
    ground = base_m + slope * (cx - cy) / np.sqrt(2)
    eaves = ground + rng.uniform(3, 9)
    pitch = np.tan(np.radians(rng.uniform(20, 45)))
    if shape == "flat":
        roof, top = np.full(x.shape, eaves), eaves
    elif shape == "skillion":
        pitch = np.tan(np.radians(rng.uniform(10, 20)))
        roof, top = eaves + (v + width / 2) * pitch, eaves + width * pitch
    else:
        down = width / 2 - np.abs(v)
        if shape == "hipped":
            down = np.minimum(down, length / 2 - np.abs(u))
        roof, top = eaves + down * pitch, eaves + min(width, length) / 2 * pitch
        if shape == "gabled":
            top = eaves + width / 2 * pitch
    surface[inside] = roof[inside]
    outlines.append(
        shapely.Polygon(
            [
                (
                    cx + a * length / 2 * np.cos(angle) - b * width / 2 * np.sin(angle),
                    cy + a * length / 2 * np.sin(angle) + b * width / 2 * np.cos(angle),
                )
                for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
            ]
        )
    )
    bearing = (90 - np.degrees(angle)) % 180
    if shape == "hipped" and length < width:
        bearing = (bearing + 90) % 180
    return top, eaves, ground, shape, np.nan if shape == "flat" else bearing


def levels_town(slope: float = 0.0) -> RoofTown:
    """Return a house of two flat levels, 59 and 54 m, on ground of 50 m that rises to the east."""
    terrain = np.tile(50 + slope * ((np.arange(160) + 0.5) / 4 - 20), (120, 1))
    surface = terrain.copy()
    surface[40:80, 40:72] = 59.0
    surface[40:80, 72:120] = 54.0
    outline = shapely.box(10.0, 10.0, 30.0, 20.0)
    one = np.array([1.0])
    return RoofTown(
        surface.astype(np.float32), terrain.astype(np.float32), 0.25,
        np.array([outline], np.object_), 59 * one, 54 * one, 50 * one,
        np.array(["flat"]), np.nan * one,
    )  # fmt: skip
