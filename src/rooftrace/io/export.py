"""Images to files: what a converter writes where there is no file to copy."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from rooftrace.core.types import RasterSource, Window
from rooftrace.io.atomic import export_error, replacing

__all__ = ["write_raster"]

_ROWS = 1024
"""Rows that are held at a time: two rows of the file's own tiles."""


def write_raster(folder: Path, name: str, source: RasterSource) -> Path:
    """Write an image without loss, as PNG where that holds it, else as a tiled GeoTIFF.

    PNG holds 8-bit images of one or three bands that lie nowhere and have no nodata. In a GeoTIFF
    nodata is an internal mask, so that every pixel value stays free.

    Args:
        folder: made where it is missing.
        name: without an ending; may hold folders.

    Returns:
        The file.

    Raises:
        DataError: the source cannot be read.
        ExportError: the file cannot be written.
    """
    height, width = source.grid.shape
    small = height <= _ROWS
    first = source.read(Window(0, 0, min(_ROWS, height), width))
    as_png = (
        small
        and source.grid.crs is None
        and source.dtype == np.uint8
        and source.bands in (1, 3)
        and bool(first.valid.all())
    )
    path = folder / f"{name}{'.png' if as_png else '.tif'}"
    try:
        with (
            replacing(path) as partial,
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True, GDAL_PAM_ENABLED=False),
            _create(partial, source) as out,
        ):
            for row in range(0, height, _ROWS):
                window = Window(row, 0, min(_ROWS, height - row), width)
                raster = first if row == 0 else source.read(window)
                area = RasterioWindow(0, row, width, window.height)
                out.write(raster.data, window=area)
                if not as_png:
                    out.write_mask(raster.valid, window=area)
    except RasterioError as error:
        raise export_error(path, error) from error
    return path


def _create(path: Path, source: RasterSource) -> Any:
    """A file to write the pixels of `source` to; its ending says the format."""
    height, width = source.grid.shape
    options: dict[str, Any] = {"driver": "PNG"}
    if path.suffix == ".tif":
        options = {
            "driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512,
            "compress": "deflate", "bigtiff": "if_safer",
            # Left to itself GDAL takes a fourth band of 8 bits for alpha.
            "photometric": "rgb" if source.bands == 3 else "minisblack",
        }  # fmt: skip
        if source.grid.crs is not None:
            options |= {"transform": source.grid.transform, "crs": source.grid.crs.to_wkt()}
    with warnings.catch_warnings():
        # An image that lies nowhere is meant to.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(
            path, "w", dtype=source.dtype.name, count=source.bands, height=height, width=width,
            **options,
        )  # fmt: skip
