"""Class masks written block by block: GeoTIFF with a georeference, palette PNG without one.

A GeoTIFF is cloud-optimised: it has overviews, and a reader fetches only the parts that it shows.
https://docs.ogc.org/is/21-026/21-026.html
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import IO, Any, Protocol
from xml.sax.saxutils import escape

import numpy as np
import rasterio.shutil
from numpy.typing import NDArray

from rooftrace.core.types import GeoGrid, Window
from rooftrace.io.files import replacing, replacing_file, write_atomically
from rooftrace.io.gdal import environment, open_quietly, rasterio_window, writing_errors
from rooftrace.io.legend import BUILDING_NAMES, NODATA, Legend, class_colours, mask_style

_TILE_PX = 512
"""Side of a tile of a GeoTIFF in pixels."""


class MaskSink(Protocol):
    """Writer of a mask by windows, which partition its grid row by row."""

    def write(self, window: Window, mask: NDArray[np.uint8]) -> None:
        """Write the class indices (y, x) of a window, NODATA where the class is not known."""
        ...

    def finish(self) -> None:
        """Do now, in any thread, what follows the last window; otherwise the context does it."""
        ...


@contextmanager
def mask_sink(
    path: Path,
    grid: GeoGrid,
    legend: Legend | None = None,
    tags: Mapping[str, str] | None = None,
    *,
    coloured: bool = True,
) -> Iterator[MaskSink]:
    """Open a mask for writing: PNG if the path ends in `.png`, else GeoTIFF.

    The file appears under its name if the block succeeds. The names of classes other than building
    are written to `PATH.aux.xml`, where GDAL reads them; such a file of an earlier mask is deleted.
    A GeoTIFF with tags gets a style (.qml) with which QGIS shows what lies below the background.

    Args:
        grid: Position of the pixels; a PNG stores only its shape.
        legend: Names and colours of the classes; default the fixed colours without names.
        tags: Further metadata by name; such as those of `MaskRecord`.
        coloured: False for a GeoTIFF of grey values, such as probabilities in 255ths.
    """
    table = class_colours() if legend is None else legend.table
    with writing_errors(path):
        if path.suffix.lower() == ".png":
            with replacing_file(path) as file:
                png = _PngMask(file, grid, table, tags or {})
                yield png
                png.finish()
        else:
            with replacing(path) as partial:
                tiff = _GeoTiffMask(partial, grid, table if coloured else None, tags or {})
                try:
                    yield tiff
                    tiff.finish()
                finally:
                    tiff.close()
        _write_names(path, () if legend is None else legend.names)
        if tags and coloured and path.suffix.lower() != ".png":
            names = (legend and legend.names) or ("background", "building")
            style = mask_style(Legend(names, legend.colours if legend else ()))
            write_atomically(path.with_suffix(".qml"), style.encode())


def _write_names(path: Path, names: tuple[str, ...]) -> None:
    """Write category names to a GDAL auxiliary file: rasterio cannot set them in the GeoTIFF.

    https://gdal.org/en/stable/user/raster_data_model.html#raster-band
    """
    target = path.with_name(f"{path.name}.aux.xml")
    if len(names) <= 2 and {*names[1:]} <= {*BUILDING_NAMES}:
        target.unlink(missing_ok=True)
        return
    lines = "".join(f"      <Category>{escape(name)}</Category>\n" for name in names)
    text = (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{lines}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )
    write_atomically(target, text.encode())


class _GeoTiffMask:
    """Writer of a cloud-optimised GeoTIFF: uint8 class indices, a colour table, a nodata value.

    Tiles of nodata are not stored. A pixel of an overview has the class of one of those below it,
    since GDAL takes as long for the most frequent one as for all else. `table` has the (256, 4)
    colours of the values, and is None for grey values.
    """

    def __init__(
        self,
        target: Path,
        grid: GeoGrid,
        table: NDArray[np.uint8] | None,
        tags: Mapping[str, str],
    ) -> None:
        # One tile needs no overview, and its file has the order of a cloud-optimised one.
        is_one_tile = max(grid.shape) <= _TILE_PX
        self._target = target
        self._path = target if is_one_tile else target.with_suffix(".scratch")
        # Written at once, because the bytes of a tile depend on the windows that it is written by.
        self._tile = np.full(grid.shape, NODATA, np.uint8) if is_one_tile else None
        with environment():
            self._made: Any = open_quietly(
                self._path, "w", driver="GTiff", dtype="uint8", count=1, nodata=NODATA,
                height=grid.height, width=grid.width, transform=grid.transform,
                crs=None if grid.crs is None else grid.crs.to_wkt(),
                tiled=True, blockxsize=_TILE_PX, blockysize=_TILE_PX, sparse_ok=True,
                compress="deflate", zlevel=6 if is_one_tile else 1, bigtiff="if_safer",
            )  # fmt: skip
        if table is not None:
            self._made.write_colormap(1, dict(enumerate(map(tuple, table.tolist()))))
        self._made.update_tags(**tags)

    def write(self, window: Window, mask: NDArray[np.uint8]) -> None:
        if self._tile is not None:
            self._tile[window.slices()] = mask
            return
        with environment():
            self._made.write(mask, 1, window=rasterio_window(window))

    def finish(self) -> None:
        if self._made.closed:
            return
        with environment():
            if self._tile is not None:
                self._made.write(self._tile, 1)
            self._made.close()
            if self._path != self._target:
                rasterio.shutil.copy(
                    self._path, self._target, driver="COG", compress="deflate",
                    blocksize=_TILE_PX, overview_resampling="nearest", sparse_ok=True,
                )  # fmt: skip
            self._check_complete()

    def _check_complete(self) -> None:
        """Raise OSError if the file ends within a tile: on a full disk, GDAL may not say so."""
        with open_quietly(self._target) as made:
            rows, cols = (range(-(-length // _TILE_PX)) for length in made.shape)
            stored = (
                [made.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1) or 0
                 for what in ("OFFSET", "SIZE")]
                for row, col in product(rows, cols)
            )  # fmt: skip
            end = max(int(offset) + int(size) for offset, size in stored)
        if end > self._target.stat().st_size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close and delete what is left of a mask that was not finished."""
        self._made.close()
        if self._path != self._target:
            self._path.unlink(missing_ok=True)


class _PngMask:
    """Writer of a palette PNG whose values are the class indices; complete rows are written.

    PNG specification, third edition: https://www.w3.org/TR/png-3/
    """

    def __init__(
        self, file: IO[bytes], grid: GeoGrid, table: NDArray[np.uint8], tags: Mapping[str, str]
    ) -> None:
        self._file = file
        self._grid = grid
        self._is_finished = False
        self._pending: list[tuple[Window, NDArray[np.uint8]]] = []
        self._deflate = zlib.compressobj(1)
        # Width, height, 8 bits, palette, then the only method of each kind.
        header = struct.pack(">IIBBBBB", grid.width, grid.height, 8, 3, 0, 0, 0)
        self._file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", header)
        self._chunk(b"PLTE", table[:, :3].tobytes())
        self._chunk(b"tRNS", table[:, 3].tobytes())
        for name, text in tags.items():
            # Of a text in UTF-8: not compressed, without a language and a translated keyword.
            self._chunk(b"iTXt", name.encode("latin-1") + bytes(5) + text.encode())

    def write(self, window: Window, mask: NDArray[np.uint8]) -> None:
        self._pending.append((window, mask))
        if window.col_stop < self._grid.width:
            return
        row = np.zeros((window.height, 1 + self._grid.width), dtype=np.uint8)
        for part, values in self._pending:
            row[:, 1 + part.col : 1 + part.col_stop] = values
        self._pending.clear()
        self._data(self._deflate.compress(row.data))

    def finish(self) -> None:
        if self._is_finished:
            return
        self._is_finished = True
        self._data(self._deflate.flush())
        self._chunk(b"IEND", b"")

    def _data(self, data: bytes) -> None:
        if data:
            self._chunk(b"IDAT", data)

    def _chunk(self, kind: bytes, data: bytes) -> None:
        check = zlib.crc32(data, zlib.crc32(kind))
        self._file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check))
