"""Class masks written block by block: GeoTIFF on a georeferenced grid, palette PNG without one."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from rooftrace.core.types import GeoGrid, Window
from rooftrace.io.atomic import export_error, replacing

__all__ = ["NODATA", "MaskSink", "MemoryMask", "class_colours", "mask_sink"]

NODATA = 255
"""The class index of a pixel about which nothing is known."""

_TILE_PX = 512
_CACHE_BYTES = 64 * 2**20

# Colour-blind safe, after Paul Tol's "bright" scheme; the background is nearly black.
_COLOURS = (
    (20, 20, 24), (238, 102, 119), (102, 204, 238), (34, 136, 51), (204, 187, 68),
    (68, 119, 170), (170, 51, 119), (187, 187, 187),
)  # fmt: skip


class MaskSink(Protocol):
    """Takes a mask block by block; the windows partition its grid, row by row."""

    def write(self, window: Window, mask: NDArray[np.uint8]) -> None:
        """Class indices (y, x) of a window, NODATA where nothing is known."""
        ...


def class_colours() -> NDArray[np.uint8]:
    """(256, 4) RGBA of every class index; nodata is transparent."""
    colours = np.zeros((256, 4), dtype=np.uint8)
    for index in range(NODATA):
        known = index < len(_COLOURS)
        rgb = _COLOURS[index] if known else tuple((index * k) % 256 for k in (97, 57, 151))
        colours[index] = (*rgb, 255)
    return colours


@contextmanager
def mask_sink(path: Path, grid: GeoGrid) -> Iterator[MaskSink]:
    """A file to write a mask to: PNG where it ends in `.png`, else GeoTIFF.

    It appears under its name when the block ends well, and not at all where it fails.

    Raises:
        ExportError: the file cannot be written.
    """
    try:
        with replacing(path) as partial:
            if path.suffix.lower() == ".png":
                with partial.open("wb") as file:
                    png = _PngMask(file, grid)
                    yield png
                    png.finish()
            else:
                with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
                    dataset = _create(partial, grid)
                try:
                    yield _GeoTiffMask(dataset)
                finally:
                    dataset.close()
    except RasterioError as error:
        raise export_error(path, error) from error


def _create(path: Path, grid: GeoGrid) -> Any:
    dataset = rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=1, nodata=NODATA,
        height=grid.height, width=grid.width, transform=grid.transform,
        crs=None if grid.crs is None else grid.crs.to_wkt(),
        tiled=True, blockxsize=_TILE_PX, blockysize=_TILE_PX,
        compress="deflate", zlevel=1, bigtiff="if_safer",
    )  # fmt: skip
    colours = {index: tuple(map(int, rgba)) for index, rgba in enumerate(class_colours())}
    dataset.write_colormap(1, colours)
    return dataset


class _GeoTiffMask:
    """Tiled, uint8 class indices with a colour table, nodata set."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def write(self, window: Window, mask: NDArray[np.uint8]) -> None:
        area = RasterioWindow(window.col, window.row, window.width, window.height)
        with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
            self._dataset.write(mask, 1, window=area)


class _PngMask:
    """A palette PNG whose values are the class indices, written as its rows are complete.

    PNG specification, third edition: https://www.w3.org/TR/png-3/
    """

    def __init__(self, file: IO[bytes], grid: GeoGrid) -> None:
        self._file = file
        self._grid = grid
        self._row = 0
        self._pending: list[tuple[Window, NDArray[np.uint8]]] = []
        self._deflate = zlib.compressobj(1)
        table = class_colours()
        # Width, height, 8 bits, palette, then the only method there is of each kind.
        header = struct.pack(">IIBBBBB", grid.width, grid.height, 8, 3, 0, 0, 0)
        self._file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", header)
        self._chunk(b"PLTE", table[:, :3].tobytes())
        self._chunk(b"tRNS", table[:, 3].tobytes())

    def write(self, window: Window, mask: NDArray[np.uint8]) -> None:
        self._pending.append((window, mask))
        if window.col_stop < self._grid.width:
            return
        row = np.zeros((window.height, 1 + self._grid.width), dtype=np.uint8)
        for part, values in self._pending:
            if (part.row, part.height) != (self._row, window.height):
                raise ValueError(f"{part} does not follow row {self._row} of the mask")
            row[:, 1 + part.col : 1 + part.col_stop] = values
        self._pending.clear()
        self._row += window.height
        self._data(self._deflate.compress(row.data))

    def finish(self) -> None:
        if self._row != self._grid.height:
            raise ValueError(f"the mask has {self._row} of {self._grid.height} rows")
        self._data(self._deflate.flush())
        self._chunk(b"IEND", b"")

    def _data(self, data: bytes) -> None:
        if data:
            self._chunk(b"IDAT", data)

    def _chunk(self, kind: bytes, data: bytes) -> None:
        check = zlib.crc32(data, zlib.crc32(kind))
        self._file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check))


class MemoryMask:
    """A mask kept in memory.

    Args:
        shape_yx: of the whole.
    """

    def __init__(self, shape_yx: tuple[int, int]) -> None:
        self.data: NDArray[np.uint8] = np.full(shape_yx, NODATA, dtype=np.uint8)

    def write(self, window: Window, mask: NDArray[np.uint8]) -> None:
        self.data[window.slices()] = mask
