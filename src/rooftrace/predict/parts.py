"""Finished blocks of a scene on disk, so that a run that was killed goes on where it stopped."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Window
from rooftrace.io.atomic import export_error, write_atomically
from rooftrace.io.masks import NODATA
from rooftrace.predict.block import Block, Piece

__all__ = ["Part", "PartStore", "pack", "unpack"]

_MAGIC = b"rooftrace part 2\n"
_KEY = "scene.json"
_LEVEL = 1


@dataclass(frozen=True)
class Part:
    """What is kept of a finished block.

    Args:
        block: the block itself; of its scores those of the background are left out, and of one of
            nodata alone everything.
        handed_on: for which later block, what a tile of this one says of it.
        glance: (y, x, band) and (y, x) of the picture of the scene, see `Preview.crop`.
        figures: whole numbers to be added up over the scene.
    """

    block: Block
    handed_on: tuple[tuple[int, Piece], ...]
    glance: tuple[NDArray[Any], NDArray[np.bool_]] | None
    figures: Mapping[str, int]


class PartStore:
    """A folder of parts that were made alike.

    A folder whose parts were made otherwise, of another image or with another model, is emptied.

    Args:
        folder: made where it is missing.
        made_with: all that a part depends on; plain data.

    Raises:
        ExportError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, made_with: Mapping[str, Any]) -> None:
        self.folder = folder
        self._made_with = wanted = (json.dumps(made_with, sort_keys=True, indent=1) + "\n").encode()
        key = folder / _KEY
        try:
            known = key.read_bytes() if key.exists() else None
            if known != wanted:
                shutil.rmtree(folder, ignore_errors=True)
                write_atomically(key, wanted)
        except OSError as error:
            raise export_error(folder, error) from error
        self.replaced = known is not None and known != wanted
        """Whether parts of another run lay there."""

    def load(self, number: int) -> Part | None:
        """The part of a block; None where it was not finished, or is damaged."""
        try:
            data = self._path(number).read_bytes()
        except OSError:
            return None
        with suppress(ValueError):
            return unpack(data)
        return None

    def save(self, number: int, part: Part) -> None:
        """Keep a part; it is there whole, or not at all.

        Raises:
            ExportError: it cannot be written, for want of room, say.
        """
        self.keep(number, pack(part))

    def keep(self, number: int, packed: bytes) -> None:
        """As `save`, what `pack` made of a part."""
        write_atomically(self._path(number), packed, lasting=True)

    @property
    def is_here(self) -> bool:
        """Whether the folder can be seen from here, which may be another machine."""
        try:
            return (self.folder / _KEY).read_bytes() == self._made_with
        except OSError:
            return False

    def discard(self) -> None:
        """Remove the folder, when what the parts were for is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.part"


def pack(part: Part) -> bytes:
    """A part as bytes, with a checksum."""
    block = part.block
    found = np.flatnonzero(block.count[1:]) + 1
    planes: list[int] = [] if block.is_empty else found.tolist()
    # One bit for a pixel and class takes a tenth of the time that bytes take to compress.
    kept: list[NDArray[Any] | None] = [np.packbits(block.mask == index) for index in planes]
    kept.append(None if block.is_empty else block.score[_scored(block.mask)])
    kept.append(None if block.cores is None else np.packbits(block.cores))
    kept += [None, None] if block.is_empty or part.glance is None else [*part.glance]
    kept += [piece.answer for _, piece in part.handed_on]
    # Scores are noise, which does not compress.
    levels = [0 if number == len(planes) else _LEVEL for number in range(len(kept))]
    body = [
        None if one is None else zlib.compress(np.ascontiguousarray(one).data, level)
        for one, level in zip(kept, levels)
    ]
    head = {
        "window": _numbers(block.window),
        "figures": dict(part.figures),
        "planes": planes,
        "handed_on": [
            [number, *piece.index, *_numbers(piece.extent)] for number, piece in part.handed_on
        ],
        "arrays": [
            None if one is None else [one.dtype.str, list(one.shape), len(packed or b"")]
            for one, packed in zip(kept, body)
        ],
    }
    told = json.dumps(head).encode() + b"\n"
    payload = told + b"".join(packed for packed in body if packed is not None)
    return _MAGIC + f"{zlib.crc32(payload):08x}\n".encode() + payload


def _scored(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where a score is of use: not in the background, nor in nodata."""
    scored: NDArray[np.bool_] = (mask != 0) & (mask != NODATA)
    return scored


def unpack(data: bytes, *, with_scores: bool = True) -> Part:
    """What `pack` made bytes of.

    Args:
        with_scores: else all of the block's are 0, where its polygons are there already.

    Raises:
        ValueError: the bytes are not those of a part.
    """
    at = len(_MAGIC) + 9
    if data[:at] != _MAGIC + f"{zlib.crc32(data[at:]):08x}\n".encode():
        raise ValueError("damaged")
    stop = data.index(b"\n", at)
    head = json.loads(data[at:stop])
    at = stop + 1
    arrays: list[NDArray[Any] | None] = []
    for told in head["arrays"]:
        if told is None:
            arrays.append(None)
            continue
        kind, shape, size = told
        values = np.frombuffer(zlib.decompress(data[at : at + size]), dtype=kind)
        arrays.append(values.reshape(shape))
        at += size
    count = len(head["planes"])
    planes, (scores, cores, pixels, valid, *answers) = arrays[:count], arrays[count:]
    handed_on = tuple(
        (told[0], Piece((told[1], told[2]), Window(*told[3:]), answer))
        for told, answer in zip(head["handed_on"], answers)
    )
    glance = None if pixels is None or valid is None else (pixels, valid)
    window = Window(*head["window"])
    block = Block.empty(window)
    if scores is not None:
        mask = np.zeros(window.shape_yx, dtype=np.uint8)
        for index, plane in zip(head["planes"], planes):
            bits = _bits(plane, window).view(np.uint8)
            # Classes share no pixel; to add takes a tenth of the time that choosing does.
            mask += bits if index == 1 else bits * np.uint8(index)
        score: NDArray[np.uint8] = np.broadcast_to(np.uint8(0), window.shape_yx)
        if with_scores:
            score = np.zeros(window.shape_yx, dtype=np.uint8)
            score[_scored(mask)] = scores
        inside = None if cores is None else _bits(cores, window).view(np.uint8)
        block = Block.of(window, mask, score, inside)
    return Part(block, handed_on, glance, head["figures"])


def _bits(packed: NDArray[np.uint8] | None, window: Window) -> NDArray[np.bool_]:
    assert packed is not None
    bits = np.unpackbits(packed, count=window.area_px)
    return np.asarray(bits.reshape(window.shape_yx), dtype=np.bool_)


def _numbers(window: Window) -> Sequence[int]:
    return [int(n) for n in (window.row, window.col, window.height, window.width)]
