"""Class masks written block by block: GeoTIFF with a georeference, palette PNG without one.

A GeoTIFF is cloud-optimised: it has overviews, and a reader fetches only the parts that it shows.
https://docs.ogc.org/is/21-026/21-026.html
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Protocol
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.parallel import Threads, Workers
from rooftrace.core.types import GeoGrid, Window
from rooftrace.io.cloud_tiff import TILE_PX, CloudTiff, decode_tile, encode_tile
from rooftrace.io.files import replacing, replacing_file, write_atomically
from rooftrace.io.gdal import writing_errors
from rooftrace.io.legend import NODATA, Legend, class_colours
from rooftrace.io.picture import PNG_SIGNATURE, png_chunk
from rooftrace.io.qgis_style import mask_style

_Place = tuple[int, int]
"""Row and column of a tile in its image."""


class MaskSink(Protocol):
    """Writer of a mask by windows, which partition its grid row by row."""

    def write(self, window: Window, mask: NDArray[np.uint8] | MaskTiles) -> None:
        """Write the class indices (y, x) of a window, NODATA where the class is not known.

        The array must stay as it is until the next call. Only a GeoTIFF takes `MaskTiles`.
        """
        ...

    def finish(self, workers: Workers | None = None) -> None:
        """Do now, in any thread, what follows the last window; otherwise the context does it.

        Args:
            workers: Workers that make the overviews; default: threads.
        """
        ...


_PARALLEL_PX = 2**20
"""Number of pixels of a window from which threads compress its tiles."""


@dataclass(frozen=True)
class MaskTiles:
    """A window of a mask as a GeoTIFF stores it; picklable.

    Args:
        tiles: Row, column and compressed pixels of each tile inside the window.
        rest: Windows and pixels (y, x) of the tiles that reach into other windows.
    """

    tiles: tuple[tuple[_Place, bytes], ...]
    rest: tuple[tuple[Window, NDArray[np.uint8]], ...]

    @classmethod
    def of(
        cls,
        window: Window,
        mask: NDArray[np.uint8],
        shape_yx: tuple[int, int],
    ) -> MaskTiles:
        """Return a window (y, x) of a mask with the given shape."""
        whole, rest = _divided(window, mask, shape_yx)
        return cls(
            tuple((place, encode_tile(values)) for place, values in whole),
            tuple((part, values.copy()) for part, values in rest),
        )


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
    written to `PATH.aux.xml`, where GDAL reads them; such a file of an earlier mask is deleted. A
    GeoTIFF with tags gets a style (.qml) with which QGIS shows what lies below the background.

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
        if path.suffix.lower() == ".png":
            with replacing_file(path) as file:
                png = _PngMask(file, grid, table, tags or {})
                yield png
                png.finish()
        else:
            # The tiles of a cloud-optimised file are in another order than the blocks.
            with (
                replacing(path) as partial,
                TemporaryFile(dir=path.parent) as scratch,
                Threads("mask") as threads,
            ):
                tiff = _GeoTiffMask(
                    scratch, partial, grid, table if coloured else None, tags or {}, threads
                )
                yield tiff
                tiff.finish()
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
    if len(names) <= 2:
        target.unlink(missing_ok=True)
        return
    lines = "".join(f"      <Category>{escape(name)}</Category>\n" for name in names)
    text = (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{lines}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )
    write_atomically(target, text.encode())


def _overview_tiles(below: list[bytes]) -> list[bytes]:
    """Return n neighbouring tiles of an overview from the 2 by 2n tiles below them, row by row.

    A pixel has the most frequent class of the four below it.
    """
    across = len(below) // 2
    if not any(below):
        return [b""] * (across // 2)
    tiles = map(decode_tile, below)
    half = _most_frequent(np.block([[next(tiles) for _ in range(across)] for _ in range(2)]))
    return [encode_tile(half[:, col : col + TILE_PX]) for col in range(0, half.shape[1], TILE_PX)]


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


class _GeoTiffMask:
    """Writer of a tiled GeoTIFF: uint8 class indices, a colour table, a nodata value.

    Tiles of nodata are not stored. Each tile is compressed once, when it is complete; those of a
    large window by threads, while the caller goes on.
    """

    def __init__(
        self,
        scratch: IO[bytes],
        target: Path,
        grid: GeoGrid,
        table: NDArray[np.uint8] | None,
        tags: Mapping[str, str],
        threads: Threads,
    ) -> None:
        self._target: Path | None = target
        """File to write; None when it is written."""

        self._shape_yx = grid.shape
        self._started: dict[_Place, _StartedTile] = {}
        colours = None if table is None else dict(enumerate(map(tuple, table.tolist())))
        self._tiff = CloudTiff(grid, scratch, colours, tags)
        self._threads = threads
        self._coming: list[tuple[_Place, Future[bytes]]] = []
        """Tiles of the last window that threads compress."""

    def write(self, window: Window, mask: NDArray[np.uint8] | MaskTiles) -> None:
        self._add_coming()
        whole: list[tuple[_Place, NDArray[np.uint8]]] = []
        rest: Sequence[tuple[Window, NDArray[np.uint8]]]
        if isinstance(mask, MaskTiles):
            self._tiff.add(mask.tiles)
            rest = mask.rest
        else:
            whole, rest = _divided(window, mask, self._shape_yx)
        for part, values in rest:
            place = part.row // TILE_PX, part.col // TILE_PX
            tile = _tile(place, self._shape_yx)
            started = self._started.setdefault(place, _StartedTile(tile.shape_yx))
            started.add(part.slices(tile), values)
            if not started.missing_px:
                if started.values is not None:
                    whole.append((place, started.values))
                del self._started[place]
        if window.area_px < _PARALLEL_PX:
            self._tiff.add([(place, encode_tile(values)) for place, values in whole])
        else:
            self._coming = [
                (place, self._threads.submit(encode_tile, values)) for place, values in whole
            ]

    def _add_coming(self) -> None:
        self._tiff.add([(place, encoded.result()) for place, encoded in self._coming])
        self._coming = []

    def finish(self, workers: Workers | None = None) -> None:
        if self._target is not None:
            self._add_coming()
            self._tiff.add_overviews(_overview_tiles, workers)
            self._tiff.write(self._target)
            self._target = None


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


def _tile(place: _Place, shape_yx: tuple[int, int]) -> Window:
    tile = Window(place[0] * TILE_PX, place[1] * TILE_PX, TILE_PX, TILE_PX)
    inside = tile.intersection(Window.whole(shape_yx))
    assert inside is not None
    return inside


def _divided(
    window: Window, mask: NDArray[np.uint8], shape_yx: tuple[int, int]
) -> tuple[list[tuple[_Place, NDArray[np.uint8]]], list[tuple[Window, NDArray[np.uint8]]]]:
    """Return the tiles inside a window (y, x) of a mask, by row and column, and the windows and
    pixels of those that reach into other windows; all are views.
    """
    whole: list[tuple[_Place, NDArray[np.uint8]]] = []
    rest: list[tuple[Window, NDArray[np.uint8]]] = []
    rows = range(window.row // TILE_PX, -(-window.row_stop // TILE_PX))
    cols = range(window.col // TILE_PX, -(-window.col_stop // TILE_PX))
    for place in product(rows, cols):
        tile = _tile(place, shape_yx)
        part = tile.intersection(window)
        assert part is not None
        values = mask[part.slices(window)]
        if part == tile:
            whole.append((place, values))
        else:
            rest.append((part, values))
    return whole, rest


class _PngMask:
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
        self._file = file
        self._grid = grid
        self._row = 0
        self._is_finished = False
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

    def write(self, window: Window, mask: NDArray[np.uint8] | MaskTiles) -> None:
        assert not isinstance(mask, MaskTiles)
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

    def finish(self, workers: Workers | None = None) -> None:
        if self._is_finished:
            return
        self._is_finished = True
        if self._row != self._grid.height:
            raise ValueError(f"the mask has {self._row} of {self._grid.height} rows")
        self._data(self._deflate.flush())
        self._chunk(b"IEND", b"")

    def _data(self, data: bytes) -> None:
        if data:
            self._chunk(b"IDAT", data)

    def _chunk(self, kind: bytes, data: bytes) -> None:
        self._file.write(png_chunk(kind, data))
