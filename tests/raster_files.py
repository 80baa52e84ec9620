"""GeoTIFFs and PNGs that tests write."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

PLACE = {"crs": "EPSG:32737", "transform": Affine(0.5, 0, 5e5, 0, -0.5, 9e6)}
"""Default georeference: half a metre per pixel in UTM zone 37 south."""


def write_geotiff(
    path: Path, data: np.ndarray, descriptions: Sequence[str] = (), **options: Any
) -> Path:
    """Write (band, y, x) or (y, x) as a GeoTIFF at `PLACE`, or with other options of rasterio."""
    bands = data[None] if data.ndim == 2 else data
    count, height, width = bands.shape
    size = {"count": count, "height": height, "width": width}
    profile = {"driver": "GTiff", "dtype": bands.dtype, **PLACE, **options, **size}
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands)
        if descriptions:
            file.descriptions = descriptions
    return path


def with_blocks(tiff: bytes, block: bytes) -> bytes:
    """Return a TIFF with the beginning of `block` in place of each of its compressed blocks.

    Args:
        tiff: TIFF with little-endian numbers, as GDAL writes it.
        block: Bytes for each block; 0 follows where it is shorter than the block.
    """
    changed = bytearray(tiff)
    place = struct.unpack_from("<I", changed, 4)[0]
    tags: dict[int, tuple[int, ...]] = {}
    for at in range(place + 2, place + 2 + 12 * struct.unpack_from("<H", changed, place)[0], 12):
        tag, kind, count, value = struct.unpack_from("<HHII", changed, at)
        numbers = struct.Struct(f"<{count}" + {3: "H", 4: "I"}.get(kind, "B"))
        tags[tag] = numbers.unpack_from(changed, at + 8 if numbers.size <= 4 else value)
    for offset, size in zip(tags[273], tags[279]):
        changed[offset : offset + size] = block[:size].ljust(size, b"\0")
    return bytes(changed)


TOO_LONG = b"\x78\x9c\x01" + struct.pack("<HH", 65535, 0) + bytes(65535)
"""Deflate stream of one piece that is longer than a block of fewer bytes: libtiff leaves the pixels
of the block as memory was."""


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
