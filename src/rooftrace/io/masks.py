"""Class masks written block by block: GeoTIFF on a georeferenced grid, palette PNG without one."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from rooftrace.core.types import GeoGrid, Window
from rooftrace.io.atomic import export_error, replacing, write_atomically
from rooftrace.io.legend import NODATA, Legend, class_colours

__all__ = ["NODATA", "MaskSink", "MemoryMask", "mask_sink"]

_TILE_PX = 512
_CACHE_BYTES = 64 * 2**20


class MaskSink(Protocol):
    """Takes a mask block by block; the windows partition its grid, row by row."""

    def write(self, window: Window, mask: NDArray[np.uint8]) -> None:
        """Class indices (y, x) of a window, NODATA where nothing is known."""
        ...


@contextmanager
def mask_sink(path: Path, grid: GeoGrid, legend: Legend | None = None) -> Iterator[MaskSink]:
    """A file to write a mask to: PNG where it ends in `.png`, else GeoTIFF.

    It appears under its name when the block ends well, and not at all where it fails. The names of
    more than two classes go to `PATH.aux.xml`, where GDAL looks for them; what lies there of an
    earlier mask is removed.

    Args:
        path: of the mask.
        grid: where its pixels lie; a PNG says nothing of it.
        legend: of the classes; default the fixed colours, and no names.

    Raises:
        ExportError: the file cannot be written.
    """
    table = class_colours() if legend is None else legend.table
    try:
        with replacing(path) as partial:
            if path.suffix.lower() == ".png":
                with partial.open("wb") as file:
                    png = _PngMask(file, grid, table)
                    yield png
                    png.finish()
            else:
                with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
                    dataset = _create(partial, grid, table)
                try:
                    yield _GeoTiffMask(dataset)
                finally:
                    dataset.close()
        _write_names(path, () if legend is None else legend.names)
    except RasterioError as error:
        raise export_error(path, error) from error


def _write_names(path: Path, names: tuple[str, ...]) -> None:
    """Category names as a GDAL auxiliary file: rasterio cannot set them in the GeoTIFF.

    https://gdal.org/en/stable/user/raster_data_model.html#raster-band
    """
    target = path.with_name(f"{path.name}.aux.xml")
    if len(names) <= 2:
        target.unlink(missing_ok=True)
        return
    lines = "".join(f"      <Category>{escape(name)}</Category>\n" for name in names)
    text = (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{lines}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )
    write_atomically(target, text.encode())


def _create(path: Path, grid: GeoGrid, table: NDArray[np.uint8]) -> Any:
    dataset = rasterio.open(
        path, "w", driver="GTiff", dtype="uint8", count=1, nodata=NODATA,
        height=grid.height, width=grid.width, transform=grid.transform,
        crs=None if grid.crs is None else grid.crs.to_wkt(),
        tiled=True, blockxsize=_TILE_PX, blockysize=_TILE_PX,
        compress="deflate", zlevel=1, bigtiff="if_safer",
    )  # fmt: skip
    dataset.write_colormap(1, {index: tuple(rgba) for index, rgba in enumerate(table.tolist())})
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

    def __init__(self, file: IO[bytes], grid: GeoGrid, table: NDArray[np.uint8]) -> None:
        self._file = file
        self._grid = grid
        self._row = 0
        self._pending: list[tuple[Window, NDArray[np.uint8]]] = []
        self._deflate = zlib.compressobj(1)
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
