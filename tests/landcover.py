"""Generated scenes of many classes, with masks in every supported encoding."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS

from rooftrace.core.types import GeoGrid
from rooftrace.io.legend import NODATA, Legend
from town.scene import write_tif

__all__ = ["IGNORED_COLOUR", "MaskKind", "landcover_legend", "write_landcover"]

MaskKind = Literal["index", "palette", "colour"]

IGNORED_COLOUR = "#FF00FE"
"""Colour of pixels to ignore in masks of colours; other masks use NODATA."""

_CELL_PX = 24
_NOISE = 6


def landcover_legend(classes: int) -> Legend:
    """Return class names (`land`, `building`, then `cover02`…) and the colours of coloured
    masks.
    """
    names = ("land", "building", *(f"cover{index:02}" for index in range(2, classes)))
    table = Legend(names).table[:classes, :3].tolist()
    return Legend(names, tuple("#{:02X}{:02X}{:02X}".format(*rgb) for rgb in table))


def write_landcover(
    folder: Path,
    seeds: Iterable[int],
    *,
    classes: int = 20,
    masks: MaskKind = "index",
    shape_yx: tuple[int, int] = (128, 128),
    gsd_m: float = 0.5,
    ignored: bool = False,
) -> list[str]:
    """Write a training folder: `images/NAME.tif` and `masks/NAME.png`.

    A scene is a patchwork of cells. Each class has its own colour in the image, with a little
    noise, so that a small network learns it in a few steps.

    Args:
        folder: Folder to write; created where it is missing.
        seeds: Seeds, one for each scene, which is named `landcover_SEED`.
        classes: Number of classes, at most 255.
        masks: Encoding: single values, values with a palette, or the colours of `landcover_legend`.
        shape_yx: Shape of the images.
        gsd_m: Metres per pixel.
        ignored: True to mark the right quarter of each mask as ignored.

    Returns:
        The names, in the order of the seeds.
    """
    legend = landcover_legend(classes)
    grid = GeoGrid(shape_yx, Affine(gsd_m, 0, 524_000, 0, -gsd_m, 9_318_000), CRS.from_epsg(32736))
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    names = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        mask = _patchwork(rng, shape_yx, classes)
        noise = rng.integers(-_NOISE, _NOISE + 1, (*shape_yx, 3))
        pixels = (legend.table[mask, :3] + noise).clip(0, 255).astype(np.uint8)
        if ignored:
            mask[:, -(shape_yx[1] // 4) :] = NODATA
        name = f"landcover_{seed:05d}"
        write_tif(folder / "images" / f"{name}.tif", np.moveaxis(pixels, -1, 0), grid)
        _drawn(mask, masks, legend).save(folder / "masks" / f"{name}.png")
        names.append(name)
    return names


def _patchwork(
    rng: np.random.Generator, shape_yx: tuple[int, int], classes: int
) -> NDArray[np.uint8]:
    """Return (y, x) class indices of random Voronoi cells."""
    count = max(1, shape_yx[0] * shape_yx[1] // _CELL_PX**2)
    places = rng.random((count, 2)) * shape_yx
    # The classes take turns, so that even one small scene has most of them.
    of_cell = rng.permutation(np.arange(count) % classes).astype(np.uint8)
    rows, cols = np.mgrid[: shape_yx[0], : shape_yx[1]]
    nearest = np.zeros(shape_yx, dtype=np.intp)
    least = np.full(shape_yx, np.inf)
    for index, (row, col) in enumerate(places):
        distance = (rows - row) ** 2 + (cols - col) ** 2
        nearest[distance < least] = index
        np.minimum(least, distance, out=least)
    return of_cell[nearest]


def _drawn(mask: NDArray[np.uint8], kind: MaskKind, legend: Legend) -> Image.Image:
    if kind == "colour":
        colours = legend.table[:, :3].copy()
        colours[NODATA] = list(bytes.fromhex(IGNORED_COLOUR[1:]))
        return Image.fromarray(colours[mask])
    picture = Image.fromarray(mask)
    if kind == "palette":
        picture.putpalette(legend.table[:, :3].tobytes())
    return picture
