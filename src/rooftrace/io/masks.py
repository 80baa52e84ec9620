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
from rooftrace.io.gdal import open_quietly
from rooftrace.io.legend import NODATA, Legend, class_colours

__all__ = ["NODATA", "MaskSink", "MemoryMask", "NoMask", "mask_sink"]

_TILE_PX = 512


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
                tiff = _GeoTiffMask(partial, grid, table)
                try:
                    yield tiff
                finally:
                    tiff.close()
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


class _GeoTiffMask:
    """Tiled, uint8 class indices with a colour table, nodata set; nothing is stored for nodata.

    Tiles are written when they are whole, each once, and the file is let go of after every window:
    so their order in it, and every byte, follows from the windows alone, and not from when GDAL's
    cache, which is shared with what is read meanwhile, happens to be full.
    """

    def __init__(self, path: Path, grid: GeoGrid, table: NDArray[np.uint8]) -> None:
        self._path = path
        self._shape_yx = grid.shape
        self._started: dict[tuple[int, int], _StartedTile] = {}
        self._dataset: Any = rasterio.open(
            path, "w", driver="GTiff", dtype="uint8", count=1, nodata=NODATA,
            height=grid.height, width=grid.width, transform=grid.transform,
            crs=None if grid.crs is None else grid.crs.to_wkt(),
            tiled=True, blockxsize=_TILE_PX, blockysize=_TILE_PX,
            compress="deflate", zlevel=1, bigtiff="if_safer", sparse_ok=True,
        )  # fmt: skip
        colours = {index: tuple(rgba) for index, rgba in enumerate(table.tolist())}
        self._dataset.write_colormap(1, colours)

    def write(self, window: Window, mask: NDArray[np.uint8]) -> None:
        inside = self._whole_tiles(window)
        if inside is not None:
            self._store(inside, mask[inside.slices(window)])
        for place in _tiles_under(window):
            tile = self._tile(place)
            if inside is not None and tile.intersection(inside) is not None:
                continue
            part = tile.intersection(window)
            assert part is not None
            started = self._started.get(place)
            if started is None:
                started = self._started[place] = _StartedTile(tile.shape_yx)
            started.add(part.slices(tile), mask[part.slices(window)])
            if not started.missing_px:
                if started.values is not None:
                    self._store(tile, started.values)
                del self._started[place]

    def close(self) -> None:
        if self._dataset is not None:
            self._dataset.close()
            self._dataset = None

    def _store(self, window: Window, mask: NDArray[np.uint8]) -> None:
        if (mask == NODATA).all():
            return
        area = RasterioWindow(window.col, window.row, window.width, window.height)
        try:
            if self._dataset is None:
                self._dataset = open_quietly(self._path, "r+")
            self._dataset.write(mask, 1, window=area)
        finally:
            self.close()

    def _whole_tiles(self, window: Window) -> Window | None:
        """The tiles that lie in a window altogether."""
        (top, bottom), (left, right) = (
            (-(-start // _TILE_PX) * _TILE_PX,
             stop if stop == length else stop // _TILE_PX * _TILE_PX)
            for start, stop, length in (
                (window.row, window.row_stop, self._shape_yx[0]),
                (window.col, window.col_stop, self._shape_yx[1]),
            )
        )  # fmt: skip
        if top >= bottom or left >= right:
            return None
        return Window(top, left, bottom - top, right - left)

    def _tile(self, place: tuple[int, int]) -> Window:
        tile = Window(place[0] * _TILE_PX, place[1] * _TILE_PX, _TILE_PX, _TILE_PX)
        inside = tile.intersection(Window.whole(self._shape_yx))
        assert inside is not None
        return inside


class _StartedTile:
    """A tile of the file that windows have covered in part; pixels are kept where any is known."""

    def __init__(self, shape_yx: tuple[int, int]) -> None:
        self.values: NDArray[np.uint8] | None = None
        self.missing_px = shape_yx[0] * shape_yx[1]
        self._shape_yx = shape_yx

    def add(self, into: tuple[slice, slice], values: NDArray[np.uint8]) -> None:
        self.missing_px -= values.size
        if self.values is None and (values != NODATA).any():
            self.values = np.full(self._shape_yx, NODATA, dtype=np.uint8)
        if self.values is not None:
            self.values[into] = values


def _tiles_under(window: Window) -> Iterator[tuple[int, int]]:
    for row in range(window.row // _TILE_PX, -(-window.row_stop // _TILE_PX)):
        for col in range(window.col // _TILE_PX, -(-window.col_stop // _TILE_PX)):
            yield row, col


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


class NoMask:
    """A mask that nobody wants."""

    def write(self, window: Window, mask: NDArray[np.uint8]) -> None:
        """Does nothing."""
