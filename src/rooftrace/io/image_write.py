"""Images written to files without loss, from sources without a file that could be copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window as RasterioWindow

from rooftrace.core.types import RasterSource, Window
from rooftrace.io.files import replacing
from rooftrace.io.gdal import open_quietly, writing_errors

_ROWS = 1024
"""Number of rows in memory at a time: two rows of the file's own tiles."""


def write_raster(folder: Path, name: str, source: RasterSource) -> Path:
    """Write an image without loss, as PNG if possible, else as a tiled GeoTIFF.

    PNG can hold 8-bit images of one or three bands without georeference and nodata. A GeoTIFF
    stores nodata as an internal mask, so that every pixel value can be used.

    Args:
        folder: Output folder; it is created if necessary.
        name: File name without a suffix; it may hold folders.
        source: Image to write.

    Returns:
        Path of the file.

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
    with (
        writing_errors(path),
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
    return path


def _create(path: Path, source: RasterSource) -> Any:
    """Create a file for the pixels of `source`; the suffix selects the format."""
    height, width = source.grid.shape
    options: dict[str, Any] = {"driver": "PNG"}
    if path.suffix == ".tif":
        options = {
            "driver": "GTiff", "tiled": True, "blockxsize": 512, "blockysize": 512,
            "compress": "deflate", "bigtiff": "if_safer",
            # By default GDAL treats a fourth 8-bit band as alpha.
            "photometric": "rgb" if source.bands == 3 else "minisblack",
        }  # fmt: skip
        if source.grid.crs is not None:
            options |= {"transform": source.grid.transform, "crs": source.grid.crs.to_wkt()}
    return open_quietly(
        path, "w", dtype=source.dtype.name, count=source.bands, height=height, width=width,
        **options,
    )  # fmt: skip
