"""Class masks written block by block: GeoTIFF with a georeference, palette PNG without one.

A GeoTIFF is cloud-optimised: it has overviews, and a reader fetches only the parts that it shows.
https://docs.ogc.org/is/21-026/21-026.html
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Protocol
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray

from rooftrace.core.types import GeoGrid, Window
from rooftrace.io.files import replacing, write_atomically
from rooftrace.io.gdal import environment, open_quietly, rasterio_window, writing_errors
from rooftrace.io.image_write import PNG_SIGNATURE, png_chunk
from rooftrace.io.legend import NODATA, Legend, class_colours

_TILE_PX = 512

_FAST = "packbits"
"""Compression of the tiles before they are copied. It takes a quarter of the time of deflate."""

_COPY_CACHE_BYTES = 16 * 2**20
"""Size of GDAL's cache of blocks while a mask is copied."""


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

    The file appears under its name if the block succeeds. The names of more than two classes are
    written to `PATH.aux.xml`, where GDAL reads them; such a file of an earlier mask is deleted.

    Args:
        path: File to write.
        grid: Position of the pixels; a PNG stores only its shape.
        legend: Names and colours of the classes; default the fixed colours without names.
        tags: Further metadata by name; such as those of `MaskRecord`.
        coloured: False for a GeoTIFF of grey values, such as probabilities in 255ths.

    Raises:
        ExportError: the file cannot be written.
    """
    table = class_colours() if legend is None else legend.table
    with writing_errors(path):
        with replacing(path) as partial:
            if path.suffix.lower() == ".png":
                with partial.open("wb") as file:
                    png = _PngMask(file, grid, table, tags or {})
                    yield png
                    png.finish()
            else:
                # The parts of a cloud-optimised file are in another order than that of the blocks.
                with TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
                    tiles = Path(folder) / "tiles"
                    tiff = _GeoTiffMask(
                        tiles, partial, grid, table if coloured else None, tags or {}
                    )
                    try:
                        yield tiff
                    finally:
                        tiff.close()
                    tiff.finish()
        _write_names(path, () if legend is None else legend.names)


def _write_names(path: Path, names: tuple[str, ...]) -> None:
    """Write category names to a GDAL auxiliary file: rasterio cannot set them in the GeoTIFF.

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


def _optimise(tiles: Path, path: Path) -> None:
    """Copy a tiled GeoTIFF to a cloud-optimised one with overviews.

    The bytes do not depend on the number of threads.
    """
    # GDAL fills its cache with blocks that are read once. The image is no longer read.
    with environment(GDAL_CACHEMAX=_COPY_CACHE_BYTES):
        _write_overviews(tiles)
        rasterio.shutil.copy(
            tiles, path, driver="COG", compress="deflate", blocksize=_TILE_PX,
            bigtiff="if_safer", sparse_ok="true",
        )  # fmt: skip
        with open_quietly(path) as made:
            _check_complete(path, made)


def _write_overviews(path: Path) -> None:
    """Write the overviews of a tiled GeoTIFF beside it, each half as large as the one before.

    A pixel has the most frequent class of the four below it. GDAL's own overviews of this kind take
    memory in proportion to the width of the image, and decode tiles that are not stored.
    """
    with open_quietly(path) as fine:
        if max(fine.shape) <= _TILE_PX:
            return
        shape_yx = (-(-fine.height // 2), -(-fine.width // 2))
        # GDAL looks for overviews of `tiles` in `tiles.ovr`, and for their own in `tiles.ovr.ovr`.
        overview = path.with_name(f"{path.name}.ovr")
        with rasterio.open(
            overview, "w", driver="GTiff", dtype="uint8", count=1, nodata=NODATA,
            height=shape_yx[0], width=shape_yx[1],
            tiled=True, blockxsize=_TILE_PX, blockysize=_TILE_PX,
            compress=_FAST, bigtiff="if_safer", sparse_ok=True,
        ) as coarse:  # fmt: skip
            for place in _tiles_under(Window.whole(shape_yx)):
                tile = _tile(place, shape_yx)
                below = Window(2 * tile.row, 2 * tile.col, 2 * tile.height, 2 * tile.width)
                inside = below.intersection(Window.whole(fine.shape))
                assert inside is not None
                if not any(_tile_span(fine, place)[1] for place in _tiles_under(inside)):
                    continue
                mask = np.full(below.shape_yx, NODATA, np.uint8)
                mask[inside.slices(below)] = fine.read(1, window=rasterio_window(inside))
                coarse.write(_most_frequent(mask), 1, window=rasterio_window(tile))
    _write_overviews(overview)


def _most_frequent(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the most frequent known class of each 2 by 2 pixels; of two, that of the first."""
    first = mask[::2, ::2]
    ranked = [first, mask[::2, 1::2], mask[1::2, ::2], mask[1::2, 1::2]]
    if mask.max() <= 1:
        # Without nodata two classes can be added, and the first pixel decides where both are equal.
        total = first + ranked[1]
        total += ranked[2]
        total += ranked[3]
        total += first
        return (total > 2).view(np.uint8)
    # Sorted, the same classes are neighbours, and NODATA, the highest value, is last.
    for low, high in ((0, 1), (2, 3), (0, 2), (1, 3), (1, 2)):
        ranked[low], ranked[high] = (
            np.minimum(ranked[low], ranked[high]), np.maximum(ranked[low], ranked[high])
        )  # fmt: skip
    twice = [(one == next_) & (one != NODATA) for one, next_ in pairwise(ranked)]
    is_tie = twice[0] & twice[2] & ~twice[1]
    first = np.where(first == NODATA, ranked[0], first)
    return np.select([is_tie, *twice], [first, *ranked[:3]], first)


def _check_complete(path: Path, dataset: Any) -> None:
    """Check that a file has its last tile: on a full disk, GDAL may leave one that is cut off.

    Raises:
        OSError: it has not.
    """
    ends = (sum(_tile_span(dataset, place)) for place in _tiles_under(Window.whole(dataset.shape)))
    if max(ends) > path.stat().st_size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _tile_span(dataset: Any, place: tuple[int, int]) -> tuple[int, int]:
    """Return the offset and the length of a tile in a GeoTIFF in bytes; zeros if it is not there.

    https://gdal.org/en/stable/drivers/raster/gtiff.html#metadata
    """
    row, col = place
    offset, size = (
        dataset.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1)
        for what in ("OFFSET", "SIZE")
    )
    return int(offset or 0), int(size or 0)


class _FileMask(ABC):
    """Mask in a file, which is completed once, by `finish` or by its context."""

    def __init__(self) -> None:
        self._is_finished = False

    def finish(self) -> None:
        if not self._is_finished:
            self._is_finished = True
            self._complete()

    @abstractmethod
    def _complete(self) -> None:
        """Write what follows the last window."""


class _GeoTiffMask(_FileMask):
    """Writer of a tiled GeoTIFF: uint8 class indices, a colour table, a nodata value.

    Tiles of nodata are not stored. Each tile is written once, when it is complete, and the file is
    closed after every window, so that its tiles do not fill GDAL's cache, which reads share.
    """

    def __init__(
        self,
        path: Path,
        target: Path,
        grid: GeoGrid,
        table: NDArray[np.uint8] | None,
        tags: Mapping[str, str],
    ) -> None:
        super().__init__()
        self._path = path
        self._target = target
        self._shape_yx = grid.shape
        self._started: dict[tuple[int, int], _StartedTile] = {}
        self._dataset: Any = rasterio.open(
            path, "w", driver="GTiff", dtype="uint8", count=1, nodata=NODATA,
            height=grid.height, width=grid.width, transform=grid.transform,
            crs=None if grid.crs is None else grid.crs.to_wkt(),
            tiled=True, blockxsize=_TILE_PX, blockysize=_TILE_PX,
            compress=_FAST, bigtiff="if_safer", sparse_ok=True,
        )  # fmt: skip
        if table is not None:
            colours = {index: tuple(rgba) for index, rgba in enumerate(table.tolist())}
            self._dataset.write_colormap(1, colours)
        self._dataset.update_tags(**tags)

    def write(self, window: Window, mask: NDArray[np.uint8]) -> None:
        complete: list[tuple[Window, NDArray[np.uint8]]] = []
        inside = self._whole_tiles(window)
        if inside is not None:
            complete.append((inside, mask[inside.slices(window)]))
        for place in _tiles_under(window):
            tile = _tile(place, self._shape_yx)
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
                    complete.append((tile, started.values))
                del self._started[place]
        self._store(complete)

    def _complete(self) -> None:
        self.close()
        _optimise(self._path, self._target)

    def close(self) -> None:
        if self._dataset is not None:
            self._dataset.close()
            self._dataset = None

    def _store(self, complete: Sequence[tuple[Window, NDArray[np.uint8]]]) -> None:
        try:
            for window, mask in complete:
                if (mask == NODATA).all():
                    continue
                if self._dataset is None:
                    self._dataset = open_quietly(self._path, "r+")
                self._dataset.write(mask, 1, window=rasterio_window(window))
        finally:
            self.close()

    def _whole_tiles(self, window: Window) -> Window | None:
        """Return the window of the tiles that lie completely in `window`, or None."""
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


class _StartedTile:
    """A tile that windows have covered in part; pixels are kept if any of them is known."""

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


def _tile(place: tuple[int, int], shape_yx: tuple[int, int]) -> Window:
    tile = Window(place[0] * _TILE_PX, place[1] * _TILE_PX, _TILE_PX, _TILE_PX)
    inside = tile.intersection(Window.whole(shape_yx))
    assert inside is not None
    return inside


def _tiles_under(window: Window) -> Iterator[tuple[int, int]]:
    for row in range(window.row // _TILE_PX, -(-window.row_stop // _TILE_PX)):
        for col in range(window.col // _TILE_PX, -(-window.col_stop // _TILE_PX)):
            yield row, col


class _PngMask(_FileMask):
    """Writer of a palette PNG whose values are the class indices; complete rows are written.

    PNG specification, third edition: https://www.w3.org/TR/png-3/
    """

    def __init__(
        self,
        file: IO[bytes],
        grid: GeoGrid,
        table: NDArray[np.uint8],
        tags: Mapping[str, str],
    ) -> None:
        super().__init__()
        self._file = file
        self._grid = grid
        self._row = 0
        self._pending: list[tuple[Window, NDArray[np.uint8]]] = []
        self._deflate = zlib.compressobj(1)
        # Width, height, 8 bits, palette, then the only method of each kind.
        header = struct.pack(">IIBBBBB", grid.width, grid.height, 8, 3, 0, 0, 0)
        self._file.write(PNG_SIGNATURE)
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
            if (part.row, part.height) != (self._row, window.height):
                raise ValueError(f"{part} does not follow row {self._row} of the mask")
            row[:, 1 + part.col : 1 + part.col_stop] = values
        self._pending.clear()
        self._row += window.height
        self._data(self._deflate.compress(row.data))

    def _complete(self) -> None:
        if self._row != self._grid.height:
            raise ValueError(f"the mask has {self._row} of {self._grid.height} rows")
        self._data(self._deflate.flush())
        self._chunk(b"IEND", b"")

    def _data(self, data: bytes) -> None:
        if data:
            self._chunk(b"IDAT", data)

    def _chunk(self, kind: bytes, data: bytes) -> None:
        self._file.write(png_chunk(kind, data))


class MemoryMask:
    """A mask in memory.

    Args:
        shape_yx: Rows and columns of the mask.
    """

    def __init__(self, shape_yx: tuple[int, int]) -> None:
        self.data: NDArray[np.uint8] = np.full(shape_yx, NODATA, dtype=np.uint8)

    def write(self, window: Window, mask: NDArray[np.uint8]) -> None:
        self.data[window.slices()] = mask

    def finish(self) -> None:
        """Do nothing."""


class NullMask:
    """A mask that is not stored."""

    def write(self, window: Window, mask: NDArray[np.uint8]) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""
