"""Synthetic overhead scenes with their truth: layout, drawing, files and the shipped demo scene."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from shapely import affinity, clip_by_rect
from shapely.geometry import LineString, MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

from raster_files import write_geotiff
from rooftrace.core.types import GeoGrid
from rooftrace.io.files import demo_scene_path
from rooftrace.io.gdal import pyogrio_options, rasterize
from town.buildings import Sun, draw_building, draw_rooftop
from town.canvas import Canvas, Palette, Rng, jitter, noise, polygons_of, scaled
from town.districts import estate, fields, industrial, informal, park, rows, suburb, township
from town.town import (
    BLOCKED,
    Cell,
    Frame,
    Town,
    arterials,
    cast_shadows,
    draw_cars,
    draw_roads,
    draw_trees,
    expose,
    street_trees,
)

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

# Distance in metres from the centre of a main road to the first plot.
_INSET_M = 7.4


def _rng(seed: int, part: int) -> Rng:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, part])))


Rect = tuple[float, float, float, float]


def _split(
    rng: Rng, rect: Rect, least_m: float, depth: int = 0
) -> tuple[list[Rect], list[tuple[float, float, float, float, int]]]:
    """Return cells with sides of at most about twice `least_m`, and the cuts between them."""
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
    """Return a winding band from one side of the scene to the other."""
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
) -> tuple[Town, Sun, tuple[float, float, float]]:
    """Return a town, the sun and the colour cast, before roofs, crowns, cars and light are drawn.

    Each attempt has its own random stream. Without `districts`, all that fit this size are used.
    """
    rng = _rng(seed, 1000 * attempt)
    palette = _REGIONS[int(rng.integers(len(_REGIONS)))]
    canvas = Canvas(shape_yx, gsd_m, palette.dry)
    town = Town(canvas, palette)
    height, width = canvas.size_m
    azimuth = rng.uniform(0, 2 * math.pi)
    sun = Sun(
        (round(math.cos(azimuth), 5), round(math.sin(azimuth), 5)),
        round(rng.uniform(0.72, 1.05), 4),
    )
    red, green, blue = np.round(rng.normal(1.0, 0.02, 3) + rng.normal(0, 0.04), 4).tolist()
    diagonal = math.hypot(height, width)
    # The frame is larger than the scene and shifted, so that the first cut may lie anywhere.
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
    return town, sun, (red, green, blue)


def _draw_water(rng: Rng, town: Town) -> None:
    """Paint the river and its banks, with trees along them."""
    water, colour = town.water, town.palette.water
    town.canvas.fill(water.buffer(4.5), jitter(rng, town.palette.grass), texture=0.95)
    town.canvas.fill(water.buffer(1.2), scaled(town.palette.soil, 0.92), texture=0.8)
    for step in range(4):
        town.canvas.fill(water.buffer(-1.6 * step), scaled(colour, 1.12 - 0.05 * step), texture=0.1)
    bank = water.buffer(4.5).boundary
    for at in np.arange(0.0, bank.length, 5.0):
        spot = bank.interpolate(float(at))
        if rng.random() < 0.4:
            where = (spot.x + rng.normal(0, 1.5), spot.y + rng.normal(0, 1.5))
            town.plant(rng, where, rng.uniform(1.3, 3.6))


def draw_town(
    town: Town, sun: Sun, cast: tuple[float, float, float], seed: int
) -> tuple[NDArray[np.uint8], list[Polygon]]:
    """Return the image (3, y, x) and the outlines of the buildings in the scene's metres."""
    rng = _rng(seed, 1)
    canvas = town.canvas
    table = noise(rng, (512, 512), [1, 4, 16])
    table *= np.float32(1.6)
    kept = town.disjoint()
    for index in kept:
        draw_building(canvas, town.buildings[index], sun, table, rng)
        draw_rooftop(canvas, town.buildings[index], rng)
    draw_cars(canvas, town.cars, rng)
    draw_trees(canvas, town.trees, town.palette, sun, rng)
    shadow = cast_shadows(canvas, sun)
    image = expose(canvas, shadow, rng, cast)
    return image, [town.outlines[i] for i in kept]


# Maximum number of layouts: a very small scene may lie between houses, and is then laid out again.
_ATTEMPTS = 12
_LEAST_SHARE = 0.04


@dataclass(frozen=True)
class SyntheticScene:
    """A drawn scene and its truth.

    Args:
        image: (3, y, x) uint8, red, green, blue.
        grid: Grid of the pixels.
        buildings: Footprints in the grid's CRS, clipped at the edge of the image. No two overlap by
            more than rounding; houses of a row touch.
        seed: Seed of the scene.
    """

    image: NDArray[np.uint8]
    grid: GeoGrid
    buildings: tuple[Polygon, ...]
    seed: int

    @cached_property
    def _mask(self) -> NDArray[np.uint8]:
        if not self.buildings:
            return np.zeros(self.grid.shape, np.uint8)
        return np.asarray(
            rasterize(self.buildings, self.grid.shape, transform=self.grid.transform, dtype="uint8")
        )

    def mask(self) -> NDArray[np.uint8]:
        """Return (y, x) uint8, 1 where the centre of the pixel lies in a building, else 0."""
        return self._mask.copy()

    def write(
        self, folder: Path, name: str, *, jpeg_quality: int | None = None
    ) -> tuple[Path, Path]:
        """Write `NAME.tif` (tiled GeoTIFF) and `NAME_truth.gpkg` (layer `buildings`).

        Args:
            folder: Folder of the files; created where it is missing.
            name: Stem of both files.
            jpeg_quality: 1..100 for JPEG (YCbCr) inside the GeoTIFF; default deflate, lossless.

        Returns:
            The paths of the image and of the truth.
        """
        folder.mkdir(parents=True, exist_ok=True)
        image, truth = folder / f"{name}.tif", folder / f"{name}_truth.gpkg"
        write_tif(image, self.image, self.grid, jpeg_quality)
        truth.unlink(missing_ok=True)
        frame = gpd.GeoDataFrame(
            {"id": np.arange(1, len(self.buildings) + 1)},
            geometry=list(self.buildings),
            crs=self.grid.crs,
        )
        frame.to_file(truth, layer="buildings", driver="GPKG", engine="pyogrio")
        return image, truth


def write_tif(
    path: Path, data: NDArray[np.uint8], grid: GeoGrid, jpeg_quality: int | None = None
) -> None:
    """Write (band, y, x) as a tiled GeoTIFF."""
    profile: dict[str, Any] = {"compress": "deflate", "predictor": 2}
    if jpeg_quality is not None:
        profile = {"compress": "jpeg", "photometric": "YCBCR", "jpeg_quality": jpeg_quality}
    write_geotiff(
        path, data, crs=grid.crs, transform=grid.transform, tiled=True, blockxsize=256,
        blockysize=256, **profile,
    )  # fmt: skip


def generate_scene(
    seed: int,
    shape_yx: tuple[int, int] = (2048, 2048),
    gsd_m: float = 0.3,
    crs: CRS | str | int = 32736,
    origin_xy: tuple[float, float] = (524_000.0, 9_318_000.0),
    districts: Sequence[str] = (),
) -> SyntheticScene:
    """Draw a scene: districts of several kinds, their buildings, and the truth.

    The same arguments give the same scene.

    Args:
        seed: Seed, 0 or more.
        shape_yx: Shape in pixels, 64 or more in each direction.
        gsd_m: Metres per pixel, 0.05 to 2.
        crs: Projected CRS of the scene in metres.
        origin_xy: Upper left corner in `crs`.
        districts: Names of `DISTRICTS` to use, such as `rows` for touching houses alone; default
            all that fit a scene of this size.
    """
    place = CRS.from_user_input(crs)
    drawn = _drawn(seed, tuple(shape_yx), gsd_m, place, tuple(origin_xy), tuple(districts))
    return replace(drawn, image=drawn.image.copy())


@lru_cache(maxsize=64)
def _drawn(
    seed: int, shape_yx: tuple[int, int], gsd_m: float, crs: CRS, origin_xy: tuple[float, float],
    districts: tuple[str, ...],
) -> SyntheticScene:  # fmt: skip
    """Draw a scene, once for all tests of a process that want it."""
    height_m, width_m = shape_yx[0] * gsd_m, shape_yx[1] * gsd_m
    for attempt in range(_ATTEMPTS):
        chosen = [DISTRICTS[name] for name in districts]
        town, sun, cast = lay_out(seed, shape_yx, gsd_m, attempt, chosen)
        built = sum(clip_by_rect(o, 0, 0, width_m, height_m).area for o in town.outlines)
        if built > _LEAST_SHARE * height_m * width_m:
            break
    image, outlines = draw_town(town, sun, cast, seed)
    frame = box(0, 0, width_m, height_m)
    parts = [part for outline in outlines for part in polygons_of(outline.intersection(frame))]
    # Slivers too small to contain the centre of a pixel are no buildings.
    seen = [part for part in parts if part.area >= gsd_m * gsd_m / 16]
    buildings = [affinity.affine_transform(part, [1, 0, 0, -1, *origin_xy]) for part in seen]
    transform = Affine(gsd_m, 0.0, origin_xy[0], 0.0, -gsd_m, origin_xy[1])
    return SyntheticScene(image, GeoGrid(shape_yx, transform, crs), tuple(buildings), seed)


def write_pairs(
    folder: Path,
    seeds: Iterable[int],
    *,
    shape_yx: tuple[int, int] = (512, 512),
    gsd_m: float = 0.3,
    prefix: str = "synthetic",
) -> list[str]:
    """Write a training folder: `images/NAME.tif` and `masks/NAME.tif` (0 and 255).

    Args:
        folder: Folder to write; created where it is missing.
        seeds: Seeds, one for each scene, which is named `PREFIX_SEED`.
        shape_yx, gsd_m: See `generate_scene`.
        prefix: Prefix of the names.

    Returns:
        The names, in the order of the seeds.
    """
    names = []
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        scene = generate_scene(seed, shape_yx, gsd_m)
        name = f"{prefix}_{seed:05d}"
        write_tif(folder / "images" / f"{name}.tif", scene.image, scene.grid)
        write_tif(folder / "masks" / f"{name}.tif", scene.mask()[None] * np.uint8(255), scene.grid)
        names.append(name)
    return names


# Chosen by eye among the first seeds: it has a river and all kinds of districts.
DEMO_SEED = 19

# Keeps the package small; below this quality, ridges of sheet metal begin to blur.
_JPEG_QUALITY = 90
_NAME = "demo_scene"


def demo_scene() -> SyntheticScene:
    """Draw the demo scene, which takes seconds: 2048 × 2048 pixels of 0.3 m in EPSG:32736."""
    return generate_scene(DEMO_SEED)


def write_demo(folder: Path) -> tuple[Path, Path]:
    """Write the demo scene's image (JPEG in GeoTIFF) and truth (GeoPackage) into `folder`."""
    # A GeoPackage records the time of writing; a fixed date makes the file reproducible.
    with pyogrio_options({"OGR_CURRENT_DATE": "2026-01-01T00:00:00.000Z"}):
        return demo_scene().write(folder, _NAME, jpeg_quality=_JPEG_QUALITY)


def demo_truth_path() -> Path:
    """Return the path of the true footprints of the demo scene: GeoPackage, layer `buildings`."""
    return demo_scene_path().with_name(f"{_NAME}_truth.gpkg")
