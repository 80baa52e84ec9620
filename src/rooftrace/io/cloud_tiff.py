"""Cloud-optimised GeoTIFF of one band of bytes, from tiles that any process has compressed.

GDAL's driver makes such a file from a finished image: it decodes all tiles and compresses them
again. Here each tile is compressed once, and compressed tiles are put in order.
https://docs.ogc.org/is/21-026/21-026.html
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from rooftrace.core.parallel import Workers, in_order
from rooftrace.core.types import GeoGrid
from rooftrace.io.gdal import environment, open_quietly
from rooftrace.io.legend import NODATA

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


def decode_tile(encoded: bytes) -> NDArray[np.uint8]:
    """Return the (y, x) pixels of a tile."""
    if not encoded:
        return np.full((TILE_PX, TILE_PX), NODATA, np.uint8)
    return np.frombuffer(zlib.decompress(encoded), np.uint8).reshape(TILE_PX, TILE_PX)


class CloudTiff:
    """A GeoTIFF whose tiles are added in any order, and written in the order of the format.

    Args:
        grid: Grid of the pixels; NODATA marks unknown pixels.
        scratch: Empty file that holds the tiles until they are written.
        colours: Colour (red, green, blue, opacity) by value; None for grey values.
        tags: Metadata by name.
    """

    def __init__(
        self,
        grid: GeoGrid,
        scratch: IO[bytes],
        colours: Mapping[int, tuple[int, ...]] | None,
        tags: Mapping[str, str],
    ) -> None:
        self._scratch = scratch
        self._size = 0
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

    def add(self, tiles: Iterable[tuple[tuple[int, int], bytes]], level: int = 0) -> None:
        """Add tiles.

        Args:
            tiles: Row and column of each tile, and the result of `encode_tile`.
            level: 0 for the image, and the number of the overview.
        """
        stored = [(place, encoded) for place, encoded in tiles if encoded]
        at = self._size
        for place, encoded in stored:
            self._spans[level][place] = at, len(encoded)
            at += len(encoded)
        self._scratch.seek(self._size)
        self._scratch.write(b"".join(encoded for _, encoded in stored))
        self._size = at

    def add_overviews(
        self, halve: Callable[[list[bytes]], list[bytes]], workers: Workers | None
    ) -> None:
        """Make the tiles of the overviews, each half as large as the one before.

        Args:
            halve: Function that makes n neighbouring tiles from the 2 by 2n below them, row by row.
            workers: Workers that call it; default: threads.
        """
        for level in range(1, len(self._spans)):
            rows, cols, _ = self._spans[level].shape
            parts = [
                (row, range(col, min(col + _TILES_AT_ONCE, cols)))
                for row in range(rows)
                for col in range(0, cols, _TILES_AT_ONCE)
            ]
            below = (([*self._below(level, *part)],) for part in parts)
            for (row, own), made in zip(parts, in_order(halve, below, workers), strict=True):
                self.add((((row, col), one) for col, one in zip(own, made, strict=True)), level)

    def _below(self, level: int, row: int, cols: range) -> Iterator[bytes]:
        spans = self._spans[level - 1]
        for r in (2 * row, 2 * row + 1):
            for c in range(2 * cols[0], 2 * cols[-1] + 2):
                yield self._read(spans[r, c]) if r < len(spans) and c < spans.shape[1] else b""

    def _read(self, span: NDArray[np.int64]) -> bytes:
        self._scratch.seek(int(span[0]))
        return self._scratch.read(int(span[1]))

    def write(self, path: Path) -> None:
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

    def _head(self, starts: Sequence[NDArray[np.int64]], *, is_big: bool) -> bytes:
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
