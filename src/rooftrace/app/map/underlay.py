"""What lies under the results: the image that was predicted, or its preview."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from typing import Any

from rooftrace.app.map.place import Place
from rooftrace.app.map.pyramid import overviews
from rooftrace.core.errors import RooftraceError
from rooftrace.core.types import GeoGrid, RasterSource, Window
from rooftrace.flows.inputs import find_jobs
from rooftrace.io.memory import ArraySource
from rooftrace.io.nodata import NodataRule
from rooftrace.io.placed import PlacedSource
from rooftrace.io.raster import RasterFile, open_raster
from rooftrace.io.remote import is_url

__all__ = ["find_image", "levels_of", "read_preview"]

_PREVIEW_PX = 1600
_PREVIEW_WIDTH = 420
"""A preview is no narrower than this, for its caption."""


def find_image(
    told: object, run: Mapping[str, Any], folder: Path, mask: GeoGrid | None
) -> tuple[RasterSource | None, str]:
    """The image that was predicted, if it is still there, or else a sentence of why not.

    Args:
        told: what `run.json` calls it.
        run: all that `run.json` says.
        folder: of the results.
        mask: where its mask lies; None where there is none.
    """
    if not isinstance(told, str):
        return None, "Nothing says which image this was: run.json does not tell of it."
    if is_url(told):
        return None, "The image lies on a server and is not fetched."
    path = next((path for path in _candidates(told, folder) if path.exists()), Path(told))
    options = run.get("options") or {}
    try:
        jobs, _ = find_jobs(
            [path], _nodata(options), mosaic=path.is_dir(), zoom=options.get("zoom")
        )
        source: RasterSource = jobs[0].source
        grid = source.grid
    except RooftraceError:
        more = ", or cannot be read any more" if path.exists() else ""
        return None, f"The image {path.name} is not where it was{more}."
    # Of an image that was limited to an area, the mask is smaller.
    limited = mask is not None and grid.crs is not None and not Place(mask).flat
    if mask is None or grid.shape == mask.shape or limited:
        return source, ""
    return None, (
        f"The image {path.name} has {grid.height} × {grid.width} pixels, but its mask has "
        f"{mask.height} × {mask.width}: it is another one by now."
    )


def levels_of(source: RasterSource, grid: GeoGrid) -> list[RasterSource]:
    """An image and its overviews.

    Args:
        source: the image.
        grid: of its mask: an image of as many pixels lies there, whatever it says itself.

    Raises:
        DataError: it cannot be read.
    """
    alike = source.grid.shape == grid.shape
    file = source.source if alike and isinstance(source, PlacedSource) else source
    levels: list[RasterSource] = [source]
    if isinstance(file, RasterFile):
        levels += overviews(file)
    return [PlacedSource(level, _scaled(grid)) for level in levels] if alike else levels


def read_preview(path: Path, grid: GeoGrid) -> RasterSource | None:
    """The picture with the polygons on it, without its caption; None where it is another's.

    Args:
        path: of what `rooftrace predict` drew.
        grid: of the image.

    Raises:
        DataError: it cannot be read.
    """
    step = max(1, ceil(max(grid.shape) / _PREVIEW_PX))
    rows, cols = ceil(grid.height / step), ceil(grid.width / step)
    page = open_raster(path).read()
    height, width = page.valid.shape
    if width != max(cols, _PREVIEW_WIDTH) or height <= rows:
        return None
    part = Window(0, (width - cols) // 2, rows, cols).slices()
    placed = grid.resampled((rows, cols), (step, step))
    return ArraySource(page.data[(slice(None), *part)], placed, page.valid[part], "preview")


def _scaled(grid: GeoGrid) -> Callable[[GeoGrid], GeoGrid]:
    """Where a coarser image of the same ground lies."""

    def placed(own: GeoGrid) -> GeoGrid:
        return grid.resampled(own.shape, (grid.height / own.height, grid.width / own.width))

    return placed


def _candidates(told: str, folder: Path) -> list[Path]:
    """Where an image may be that a run knew by a path of its own working directory."""
    path = Path(told)
    if path.is_absolute():
        return [path, folder / path.name, folder.parent / path.name]
    return [path, folder.parent / path, folder / path.name, folder.parent / path.name]


def _nodata(options: Mapping[str, Any]) -> NodataRule | None:
    told = options.get("nodata")
    if not isinstance(told, dict):
        return None
    colour = told.get("colour")
    return NodataRule(
        told.get("value"), None if colour is None else tuple(colour), told.get("alpha", True)
    )
