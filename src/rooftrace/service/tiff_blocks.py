"""Check of the compressed blocks of a TIFF, which libtiff does not make.

A block that is compressed by deflate and holds more bytes than its pixels need is read without an
error: libtiff takes what libdeflate wrote until its buffer was full. Where the next piece of the
stream did not fit, the rest of the buffer keeps what was in memory before, such as pixels of
another image.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import BinaryIO

from rooftrace.core.errors import DataError

_Tags = Mapping[int, tuple[int, ...]]
"""Whole numbers of the tags of one image, by the number of the tag."""

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_LENGTH, _TILES, _TILE_BYTES, _SUBSAMPLING = 322, 323, 324, 325, 530
_READ = {
    _WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES,
    _PLANAR, _TILE_WIDTH, _TILE_LENGTH, _TILES, _TILE_BYTES, _SUBSAMPLING,
}  # fmt: skip
"""Numbers of the tags that describe the blocks (TIFF 6.0)."""

_WHOLE_NUMBERS = {
    1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q",
}  # fmt: skip
"""Code of `struct` by type of a tag."""

_DEFLATE = (8, 32946)
"""Numbers of deflate among the compressions."""

_SEPARATE = 2
"""Value of the tag for bands that are stored one after the other."""

_YCBCR = 6
"""Value of the tag for colours whose differences may have fewer pixels than the brightness."""

_MOST_DIRECTORIES = 1000
"""Number of images in one file, such as overviews and masks, that are looked at."""

_LONGEST_COPY = 258
"""Maximum number of bytes that a deflate stream copies from earlier ones at once."""

_PART_BYTES = 2**24
"""Number of bytes that are inflated at once."""


def check_deflate_blocks_of(file: BinaryIO, name: str) -> None:
    """Check that no block of a TIFF that is compressed by deflate holds more than its pixels.

    All images in the file are checked: overviews and masks, too. Other files and compressions pass.
    It takes as long as decoding the pixels.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    for tags in _directories(file, end):
        if tags.get(_COMPRESSION, (1,))[0] not in _DEFLATE:
            continue
        try:
            for offset, size, expected in _blocks(tags):
                file.seek(offset)
                data = file.read(min(size, end))
                # A block that is cut off is not decoded by libtiff.
                if len(data) == size:
                    _check(data, expected)
        except (LookupError, ValueError, ArithmeticError, OSError) as error:
            reason = "their tags are missing or impossible"
            if isinstance(error, ValueError):
                reason = str(error)
            raise DataError(
                f"{name} is damaged: its blocks, which are compressed by deflate, do not hold the "
                f"pixels of the image: {reason}.",
                remedy="Get or export the image again.",
            ) from error


def _directories(file: BinaryIO, end: int) -> Iterator[_Tags]:
    """Yield the tags of each image that can be found; none for a file that is not a TIFF."""
    begin = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(begin[:2])
    if order is None or len(begin) < 16:
        return
    kind = struct.unpack_from(order + "H", begin, 2)[0]
    if kind not in (42, 43):
        return
    # BigTIFF (43) has 8 bytes where TIFF has 4, and counts tags with 8 in place of 2.
    offset, count = ("I", "H") if kind == 42 else ("Q", "Q")
    entry = struct.Struct(order + "HH" + 2 * offset)
    place = struct.unpack_from(order + offset, begin, 4 if kind == 42 else 8)[0]
    seen: set[int] = set()
    while 0 < place < end and place not in seen and len(seen) < _MOST_DIRECTORIES:
        seen.add(place)
        file.seek(place)
        head = file.read(struct.calcsize(count))
        if len(head) < struct.calcsize(count):
            return
        entries = file.read(min(struct.unpack(order + count, head)[0] * entry.size, end))
        following = file.read(struct.calcsize(offset))
        tags: dict[int, tuple[int, ...]] = {}
        for at in range(0, len(entries) - entry.size + 1, entry.size):
            tag, code, number, value = entry.unpack_from(entries, at)
            form = _WHOLE_NUMBERS.get(code)
            # Of two tags with one number, libtiff reads the first.
            if tag not in _READ or tag in tags or form is None or number > end:
                continue
            form = f"{order}{number}{form}"
            data = entries[at + entry.size - struct.calcsize(offset) : at + entry.size]
            if struct.calcsize(form) > len(data):
                file.seek(min(value, end))
                data = file.read(struct.calcsize(form))
            if len(data) >= struct.calcsize(form) > 0:
                tags[tag] = struct.unpack_from(form, data)
        yield tags
        if len(following) < struct.calcsize(offset):
            return
        place = struct.unpack(order + offset, following)[0]


def _blocks(tags: _Tags) -> Iterator[tuple[int, int, int]]:
    """Yield the offset, the size and the bytes of the pixels of each block that is stored."""
    (width,), (length,) = tags[_WIDTH], tags[_LENGTH]
    samples = tags.get(_SAMPLES, (1,))[0]
    is_tiled = _TILES in tags
    if is_tiled:
        rows, columns = tags[_TILE_LENGTH][0], tags[_TILE_WIDTH][0]
        offsets, sizes = tags[_TILES], tags[_TILE_BYTES]
    else:
        rows, columns = min(tags.get(_ROWS, (length,))[0], length), width
        offsets, sizes = tags[_STRIPS], tags[_STRIP_BYTES]
    strips = -(-length // rows)
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        # A tile is stored whole; the last strip ends with the image.
        block_rows = rows if is_tiled else min(rows, length - number % strips * rows)
        if offset and size:
            yield offset, size, _bytes(tags, samples, block_rows, columns)


def _bytes(tags: _Tags, samples: int, rows: int, columns: int) -> int:
    """Return the number of bytes of a block before compression."""
    bits = tags.get(_BITS, (1,))[0]
    is_separate = tags.get(_PLANAR, (1,))[0] == _SEPARATE
    if tags.get(_PHOTOMETRIC, (0,))[0] == _YCBCR and samples == 3 and not is_separate:
        # A unit has the brightness of its pixels and two differences of colour.
        across, down = tags.get(_SUBSAMPLING, (2, 2))[:2]
        columns, rows, samples = -(-columns // across), -(-rows // down), across * down + 2
    return -(-columns * bits * (1 if is_separate else samples) // 8) * rows


def _check(data: bytes, expected: int) -> None:
    """Raise ValueError for a block whose rest libdeflate leaves out because its buffer is full.

    Other damage is left to libtiff, which reports it for the windows that need the block.
    """
    try:
        nbytes, is_ended = _inflate(data, expected + 1)
    except zlib.error as error:
        # Whether the last copy has space is asked before whether it is damaged.
        near = expected - _LONGEST_COPY
        with suppress(zlib.error):
            if _inflate(data, near)[0] >= near:
                raise ValueError(str(error)) from error
        return
    if nbytes > expected or not is_ended:
        raise ValueError(f"at least {nbytes} bytes; expected {expected}")


def _inflate(data: bytes, most: int) -> tuple[int, bool]:
    """Return the number of bytes, counted up to `most`, and whether the stream ends there."""
    stream, nbytes = zlib.decompressobj(), 0
    while nbytes < most and not stream.eof:
        # In parts, because a small block may inflate to more than the memory holds.
        part = stream.decompress(data, min(_PART_BYTES, most - nbytes))
        nbytes, data = nbytes + len(part), stream.unconsumed_tail
        if not part and not data:
            break
    return nbytes, stream.eof
