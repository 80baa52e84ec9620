"""Class masks written block by block: GeoTIFF with a georeference, palette PNG without one.

A GeoTIFF is cloud-optimised: it has overviews, and a reader fetches only the parts that it shows.
GDAL's driver makes such a file from a finished image: it decodes all tiles and compresses them
again. Here any process compresses each tile once, and compressed tiles are put in order.
https://docs.ogc.org/is/21-026/21-026.html
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from rasterio.io import MemoryFile

from rooftrace.core.parallel import Threads, Workers, in_order
from rooftrace.core.types import GeoGrid, Ints, Window
from rooftrace.io.files import replacing, replacing_file, write_atomically
from rooftrace.io.gdal import environment, open_quietly, writing_errors
from rooftrace.io.legend import BUILDING_NAMES, NODATA, Legend, class_colours, mask_style

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
    def of(cls, window: Window, mask: NDArray[np.uint8], shape_yx: tuple[int, int]) -> MaskTiles:
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
    if len(names) <= 2 and {*names[1:]} <= {*BUILDING_NAMES}:
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
    blank = np.full((TILE_PX, TILE_PX), NODATA, np.uint8)
    tiles = (
        np.frombuffer(zlib.decompress(one), np.uint8).reshape(blank.shape) if one else blank
        for one in below
    )
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
    large window by threads, while the caller goes on. Tiles are written in the order of the format
    at the end; `scratch`, an empty file, holds them until then. `table` has the (256, 4) colours of
    the values, and is None for grey values.
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

        self._started: dict[_Place, _StartedTile] = {}
        self._threads = threads
        self._coming: list[tuple[_Place, Future[bytes]]] = []
        """Tiles of the last window that threads compress."""

        self._scratch = scratch
        self._size = 0
        colours = None if table is None else dict(enumerate(map(tuple, table.tolist())))
        self._entries = _template(grid, colours, tags)
        self._shapes = [grid.shape]
        while max(self._shapes[-1]) > TILE_PX:
            rows, cols = self._shapes[-1]
            self._shapes.append((-(-rows // 2), -(-cols // 2)))
        # (tile rows, tile columns, 2) offset and size in the scratch file, of image and overviews.
        self._spans = [
            np.zeros((*(-(-size // TILE_PX) for size in shape), 2), np.int64)
            for shape in self._shapes
        ]

    def write(self, window: Window, mask: NDArray[np.uint8] | MaskTiles) -> None:
        self._add_coming()
        whole: list[tuple[_Place, NDArray[np.uint8]]] = []
        rest: Sequence[tuple[Window, NDArray[np.uint8]]]
        if isinstance(mask, MaskTiles):
            self._add(mask.tiles)
            rest = mask.rest
        else:
            whole, rest = _divided(window, mask, self._shapes[0])
        for part, values in rest:
            place = part.row // TILE_PX, part.col // TILE_PX
            tile = _tile(place, self._shapes[0])
            started = self._started.setdefault(place, _StartedTile(tile.shape_yx))
            started.add(part.slices(tile), values)
            if not started.missing_px:
                if started.values is not None:
                    whole.append((place, started.values))
                del self._started[place]
        if window.area_px < _PARALLEL_PX:
            self._add([(place, encode_tile(values)) for place, values in whole])
        else:
            self._coming = [
                (place, self._threads.submit(encode_tile, values)) for place, values in whole
            ]

    def _add_coming(self) -> None:
        self._add([(place, encoded.result()) for place, encoded in self._coming])
        self._coming = []

    def finish(self, workers: Workers | None = None) -> None:
        if self._target is not None:
            self._add_coming()
            self._add_overviews(workers)
            self._put_in_order(self._target)
            self._target = None

    def _add(self, tiles: Iterable[tuple[_Place, bytes]], level: int = 0) -> None:
        """Add tiles as `encode_tile` makes them to the image, or to the overview of a level."""
        stored = [(place, encoded) for place, encoded in tiles if encoded]
        at = self._size
        for place, encoded in stored:
            self._spans[level][place] = at, len(encoded)
            at += len(encoded)
        self._scratch.seek(self._size)
        self._scratch.write(b"".join(encoded for _, encoded in stored))
        self._size = at

    def _add_overviews(self, workers: Workers | None) -> None:
        """Make the tiles of the overviews, each half as large as the one before."""
        for level in range(1, len(self._spans)):
            rows, cols, _ = self._spans[level].shape
            spans = self._spans[level - 1]
            parts = [
                (row, range(col, min(col + _TILES_AT_ONCE, cols)))
                for row in range(rows)
                for col in range(0, cols, _TILES_AT_ONCE)
            ]
            below = (
                (
                    [
                        self._read(spans[r, c]) if r < len(spans) and c < spans.shape[1] else b""
                        for r in (2 * row, 2 * row + 1)
                        for c in range(2 * own[0], 2 * own[-1] + 2)
                    ],
                )
                for row, own in parts
            )
            made_of = in_order(_overview_tiles, below, workers)
            for (row, own), made in zip(parts, made_of, strict=True):
                self._add((((row, col), one) for col, one in zip(own, made, strict=True)), level)

    def _read(self, span: Ints) -> bytes:
        self._scratch.seek(int(span[0]))
        return self._scratch.read(int(span[1]))

    def _put_in_order(self, path: Path) -> None:
        """Write the file."""
        starts = [np.zeros(spans.shape[:2], np.int64) for spans in self._spans]
        stored = sum(int(np.count_nonzero(spans[..., 1])) for spans in self._spans)
        size = self._size + stored * (_LEADER_BYTES + _TRAILER_BYTES)
        is_big = len(self._head(starts, is_big=True)) + size > _MOST_CLASSIC
        at = len(self._head(starts, is_big=is_big))
        for level in reversed(range(len(starts))):
            sizes = self._spans[level][..., 1]
            room = np.where(sizes > 0, sizes + _LEADER_BYTES + _TRAILER_BYTES, 0)
            ends = at + np.cumsum(room).reshape(sizes.shape)
            starts[level] = np.where(sizes > 0, ends - sizes - _TRAILER_BYTES, 0)
            at = int(ends[-1, -1])
        with path.open("wb") as file:
            file.write(self._head(starts, is_big=is_big))
            for spans in reversed(self._spans):
                for span in spans[spans[..., 1] > 0]:
                    tile = self._read(span)
                    file.write(struct.pack("<I", len(tile)) + tile + tile[-_TRAILER_BYTES:])

    def _head(self, starts: Sequence[Ints], *, is_big: bool) -> bytes:
        """Return everything before the tiles, whose offsets are given by level."""
        first = -(-((16 if is_big else 8) + len(_LAYOUT)) // 16) * 16
        begin = (b"II", 43, 8, 0, first) if is_big else (b"II", 42, first)
        head = struct.pack("<2sHHHQ" if is_big else "<2sHI", *begin) + _LAYOUT
        head = head.ljust(first, b"\0")
        kind, form = (_LONG8, "<u8") if is_big else (_LONG, "<u4")
        for level, (shape, offsets) in enumerate(zip(self._shapes, starts)):
            entries = {
                tag: entry for tag, entry in self._entries.items() if not level or tag in _OF_ALL
            }
            if level:
                entries[_SUBFILE] = _LONG, 1, struct.pack("<I", 1)
            entries[_LENGTH], entries[_WIDTH] = ((_LONG, 1, struct.pack("<I", n)) for n in shape)
            entries[_OFFSETS] = kind, offsets.size, offsets.astype(form).tobytes()
            sizes = self._spans[level][..., 1].astype("<u4")
            entries[_SIZES] = _LONG, sizes.size, sizes.tobytes()
            is_last = level == len(starts) - 1
            head += _directory(entries, len(head), is_big=is_big, is_last=is_last)
        return head


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

    def write(self, window: Window, mask: NDArray[np.uint8] | MaskTiles) -> None:
        assert not isinstance(mask, MaskTiles)
        self._pending.append((window, mask))
        if window.col_stop < self._grid.width:
            return
        row = np.zeros((window.height, 1 + self._grid.width), dtype=np.uint8)
        for part, values in self._pending:
            row[:, 1 + part.col : 1 + part.col_stop] = values
        self._pending.clear()
        self._data(self._deflate.compress(row.data))

    def finish(self, workers: Workers | None = None) -> None:
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


TILE_PX = 512
"""Side of a tile in pixels."""

_TILES_AT_ONCE = 2
"""Maximum number of neighbouring tiles of an overview that are made at once."""

_SUBFILE, _WIDTH, _LENGTH, _OFFSETS, _SIZES = 254, 256, 257, 324, 325
_OF_ALL = {258, 259, 262, 277, 284, 320, 322, 323, 339, 42113}
"""Tags that overviews share with the image: pixels, compression, colours, tiles, nodata."""

_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
"""Size of a value by the type of a tag (TIFF 6.0)."""

_LONG, _LONG8 = 4, 16
_MOST_CLASSIC = 2**32 - 1
"""Maximum size in bytes of a TIFF whose offsets have four bytes."""

_LAYOUT = (
    b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
_LAYOUT = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(_LAYOUT) + _LAYOUT
"""Statement of the order of the tiles, by which GDAL knows the file as cloud-optimised, see
https://gdal.org/en/stable/drivers/raster/cog.html#header-ghost-area."""

_LEADER_BYTES = _TRAILER_BYTES = 4
"""A tile follows its size, and its last bytes are repeated after it: readers that know this save a
request, and see whether another program has changed the file."""

_Entry = tuple[int, int, bytes]
"""Type, number of values, and bytes of a tag."""


def encode_tile(tile: NDArray[np.uint8]) -> bytes:
    """Return the pixels (y, x) of a tile compressed; b"" where all are nodata.

    Beyond the edge of the image, a tile repeats the last row and column.
    """
    if (tile == NODATA).all():
        return b""
    if tile.shape != (TILE_PX, TILE_PX):
        tile = np.pad(tile, [(0, TILE_PX - size) for size in tile.shape], mode="edge")
    # Of repetitions of single bytes alone: a quarter of the time, and 8 % more bytes.
    deflate = zlib.compressobj(strategy=zlib.Z_RLE)
    return deflate.compress(np.ascontiguousarray(tile).data) + deflate.flush()


def _directory(entries: Mapping[int, _Entry], at: int, *, is_big: bool, is_last: bool) -> bytes:
    """Return a directory of tags with their values, which begins at an offset of the file."""
    count, word, room = ("<Q", "Q", 8) if is_big else ("<H", "I", 4)
    begin = at + struct.calcsize(count) + len(entries) * (4 + 2 * room) + room
    table, values = struct.pack(count, len(entries)), b""
    for tag, (kind, number, data) in sorted(entries.items()):
        place = data.ljust(room, b"\0")
        if len(data) > room:
            place = struct.pack("<" + word, begin + len(values))
            values += data + bytes(len(data) % 2)
        table += struct.pack("<HH" + word, tag, kind, number) + place
    return table + struct.pack("<" + word, 0 if is_last else begin + len(values)) + values


def _template(
    grid: GeoGrid, colours: Mapping[int, tuple[int, ...]] | None, tags: Mapping[str, str]
) -> dict[int, _Entry]:
    """Return the tags of a GeoTIFF of GDAL with one tile of nodata, by their numbers."""
    with environment(), MemoryFile() as memory:
        with open_quietly(
            memory.name, "w", driver="GTiff", dtype="uint8", count=1, nodata=NODATA,
            height=TILE_PX, width=TILE_PX, transform=grid.transform,
            crs=None if grid.crs is None else grid.crs.to_wkt(),
            tiled=True, blockxsize=TILE_PX, blockysize=TILE_PX, compress="deflate",
            sparse_ok=True, endianness="little", bigtiff="no",
        ) as made:  # fmt: skip
            if colours is not None:
                made.write_colormap(1, colours)
            made.update_tags(**tags)
        data: bytes = memory.read()
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    entries = {}
    for place in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number, begin = struct.unpack_from("<HHII", data, place)
        size = number * _BYTES[kind]
        begin = begin if size > 4 else place + 8
        entries[tag] = kind, number, data[begin : begin + size]
    return entries
