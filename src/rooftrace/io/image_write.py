"""Images written to files: pixels converted for display, PNG files, and sources without loss.

`write_raster` is for sources without a file that could be copied.
"""

from __future__ import annotations

import struct
import zlib
from math import floor, log10
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.windows import Window as RasterioWindow

from rooftrace.core.types import RasterSource, Window
from rooftrace.io.files import replacing
from rooftrace.io.gdal import open_quietly, writing_errors


def as_rgb(data: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Return (y, x, 3) uint8: the first three bands, or the first band as grey.

    Args:
        data: Pixels (band, y, x), any dtype; types other than uint8 are stretched from the 1st to
            the 99th percentile.
        valid: Pixels (y, x) from which the percentiles are computed; default all.
    """
    bands = data[:3] if len(data) >= 3 else np.repeat(data[:1], 3, axis=0)
    if bands.dtype != np.uint8:
        values = bands.astype(np.float32)
        known = values if valid is None else values[:, valid]
        low, high = np.percentile(known, (1, 99)) if known.size else (0.0, 1.0)
        bands = np.nan_to_num((values - low) / max(high - low, 1e-6) * 255).clip(0, 255)
    return np.ascontiguousarray(np.moveaxis(bands, 0, -1).astype(np.uint8))


def round_length(metres: float) -> float:
    """Return the length of a scale bar: the largest of 1, 2, 5, 10, 20… up to `metres`."""
    power = 10.0 ** floor(log10(metres))
    return float(max(step for step in (1, 2, 5) if step * power <= metres * 1.0001) * power)


PRINT_DPI = 300
"""Resolution that the files of pictures state, in dots per inch."""


def write_png(path: Path, picture: Image.Image, *, photograph: bool = False) -> None:
    """Write a PNG.

    Args:
        path: File to write.
        picture: Picture of any mode; a photograph is RGB.
        photograph: True for a picture without areas of one colour, which is written faster.

    Raises:
        ExportError: the file cannot be written.
    """
    with replacing(path) as partial:
        if photograph:
            # OpenCV looks for repetitions of single bytes alone, which takes a quarter of the time.
            bgr = cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR)
            partial.write_bytes(cv2.imencode(".png", bgr)[1].data)
        else:
            # Level 1 makes files a third larger and is five times as fast.
            picture.save(partial, format="PNG", compress_level=1, dpi=(PRINT_DPI, PRINT_DPI))


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""First bytes of every PNG file."""


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file, with its length and its checksum."""
    check = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


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
