"""GeoTIFFs and PNGs that tests write."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

PLACE = {"crs": "EPSG:32737", "transform": Affine(0.5, 0, 5e5, 0, -0.5, 9e6)}
"""Default georeference: half a metre per pixel in UTM zone 37 south."""


def write_geotiff(path: Path, data: np.ndarray, **options: Any) -> Path:
    """Write (band, y, x) or (y, x) as a GeoTIFF at `PLACE`, or with other options of rasterio."""
    bands = data[None] if data.ndim == 2 else data
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "dtype": bands.dtype, **PLACE, **options}
    with rasterio.open(path, "w", count=count, height=height, width=width, **profile) as file:
        file.write(bands)
    return path


def png_of_rows(mode: str, rows: int) -> bytes:
    """Return a PNG of 256 × 256 pixels of the value 200 that holds fewer rows, unnoticed.

    Args:
        mode: Bands as Pillow names them: L, LA, RGB or RGBA.
        rows: Number of rows that it holds. All checksums are right.
    """
    pixels = zlib.compress(b"".join(b"\0" + b"\xc8" * (256 * len(mode)) for _ in range(rows)))
    colour = {"L": 0, "LA": 4, "RGB": 2, "RGBA": 6}[mode]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 256, 256, 8, colour, 0, 0, 0)),
        (b"IDAT", pixels), (b"IEND", b""),
    ]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
