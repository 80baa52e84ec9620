"""PMTiles archives of several zooms joined to one, by version 3 of the specification.

https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md
"""

import gzip
import json
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

_HEADER = struct.Struct("<7sB11Q6B4iB2i")
_MOST_ROOT_BYTES = 16_384 - _HEADER.size
"""Maximum size of the root directory: readers fetch it together with the header."""

_LEAF_ENTRIES = 4096


class _Header(NamedTuple):
    """Values of the header in their order."""

    magic: bytes
    version: int
    root_offset: int
    root_bytes: int
    metadata_offset: int
    metadata_bytes: int
    leaves_offset: int
    leaves_bytes: int
    tiles_offset: int
    tiles_bytes: int
    addressed: int
    entries: int
    contents: int
    clustered: int
    directory_compression: int
    tile_compression: int
    kind: int
    lowest: int
    highest: int
    west: int
    south: int
    east: int
    north: int
    centre_zoom: int
    centre_lon: int
    centre_lat: int


class _Entry(NamedTuple):
    """A tile and its repetitions, or the leaf from that tile on if `run` is 0."""

    tile: int
    run: int
    size: int
    offset: int


def join_zooms(path: Path, lower: Sequence[Path], members: Mapping[str, Any]) -> None:
    """Put the tiles of lower zooms before those of an archive, and members into its metadata.

    Args:
        path: Archive whose bounds and metadata stay; it is replaced.
        lower: Archives of one layer and lower zooms, in ascending order.
        members: Members of the metadata.
    """
    whole = path.with_suffix(".joined")
    entries: list[_Entry] = []
    heads, base = [], 0
    for archive in (*lower, path):
        with archive.open("rb") as file:
            head = _header(file)
            entries += [one._replace(offset=base + one.offset) for one in _entries(file, head)]
            text = gzip.decompress(_part(file, head.metadata_offset, head.metadata_bytes))
        heads.append(head)
        base += head.tiles_bytes
    lowest, metadata = heads[0].lowest, json.loads(text) | dict(members)
    metadata["minzoom"] = str(lowest)
    metadata["center"] = f"{metadata['center'].rpartition(',')[0]},{lowest}"
    for layer in metadata["vector_layers"]:
        layer["minzoom"] = lowest
    packed = gzip.compress(json.dumps(metadata).encode(), mtime=0)
    root, leaves = _directories(entries)
    ends = [_HEADER.size + len(root)]
    for size in (len(packed), len(leaves)):
        ends.append(ends[-1] + size)
    head = heads[-1]._replace(
        root_bytes=len(root), root_offset=_HEADER.size, metadata_offset=ends[0],
        metadata_bytes=len(packed), leaves_offset=ends[1], leaves_bytes=len(leaves),
        tiles_offset=ends[2], tiles_bytes=base, lowest=lowest, centre_zoom=lowest,
        addressed=sum(one.addressed for one in heads), entries=sum(one.entries for one in heads),
        contents=sum(one.contents for one in heads),
    )  # fmt: skip
    with whole.open("wb") as out:
        out.write(_HEADER.pack(*head) + root + packed + leaves)
        for archive, one in zip((*lower, path), heads):
            with archive.open("rb") as file:
                file.seek(one.tiles_offset)
                shutil.copyfileobj(file, out, 1 << 20)
                # GDAL writes the tiles last, so that nothing follows them.
                assert file.tell() == one.tiles_offset + one.tiles_bytes
    whole.replace(path)


def _header(file: BinaryIO) -> _Header:
    return _Header(*_HEADER.unpack(_part(file, 0, _HEADER.size)))


def _part(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _entries(file: BinaryIO, head: _Header) -> Iterator[_Entry]:
    """Yield the entries of an archive in the order of their tiles."""
    for one in _decoded(_part(file, head.root_offset, head.root_bytes)):
        if one.run:
            yield one
        else:
            yield from _decoded(_part(file, head.leaves_offset + one.offset, one.size))


def _decoded(packed: bytes) -> list[_Entry]:
    numbers = _varints(gzip.decompress(packed))
    count = next(numbers)
    steps, runs, sizes, offsets = ([next(numbers) for _ in range(count)] for _ in range(4))
    found, tile, end = [], 0, 0
    for step, run, size, offset in zip(steps, runs, sizes, offsets):
        tile += step
        # 0 is the place behind the tile before.
        start = offset - 1 if offset else end
        end = start + size
        found.append(_Entry(tile, run, size, start))
    return found


def _varints(data: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield value
            value = shift = 0


def _encoded(entries: Sequence[_Entry]) -> bytes:
    """Return a directory, packed."""
    tiles = [one.tile for one in entries]
    numbers = [len(entries), *(b - a for a, b in zip([0, *tiles], tiles))]
    numbers += [one.run for one in entries]
    numbers += [one.size for one in entries]
    numbers += [one.offset + 1 for one in entries]
    data = bytearray()
    for number in numbers:
        while number > 127:
            data.append(number & 127 | 128)
            number >>= 7
        data.append(number)
    return gzip.compress(bytes(data), mtime=0)


def _directories(entries: Sequence[_Entry]) -> tuple[bytes, bytes]:
    """Return the root and the leaves of a directory, packed."""
    root, leaves, size = _encoded(entries), b"", _LEAF_ENTRIES
    while len(root) > _MOST_ROOT_BYTES:
        parts = [entries[at : at + size] for at in range(0, len(entries), size)]
        packed = [_encoded(part) for part in parts]
        starts = accumulate(map(len, packed), initial=0)
        root = _encoded([
            _Entry(part[0].tile, 0, len(one), start)
            for part, one, start in zip(parts, packed, starts)
        ])  # fmt: skip
        leaves, size = b"".join(packed), size * 2
    return root, leaves
