"""Checkpoints: finished blocks of a scene on disk, from which a killed run resumes."""

import json
import shutil
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Window
from rooftrace.io.files import exporting, write_atomically
from rooftrace.io.legend import NODATA
from rooftrace.predict.block import Block, Halo, TileOutput, TileStats

_MAGIC = b"rooftrace part 3\n"
"""First line of a checkpoint file, with the version of the format."""

_KEY = "scene.json"
"""Name of the file that records what the checkpoints of a folder depend on."""

_LEVEL = 1
"""Level of the zlib compression."""

_COUNTS = ("tiles_run", "tiles_empty", "tiles_failed", "images_lost")
"""Fields of `TileStats` that are stored."""


@dataclass(frozen=True)
class Checkpoint:
    """Finished block, and the contributions of its tiles to later blocks.

    Args:
        block: Finished block. Scores of the background are not stored. If all pixels are nodata,
            only the window is stored.
        halo: Outputs of its tiles that contribute to later blocks.
    """

    block: Block
    halo: Halo


class CheckpointStore:
    """Folder of checkpoints of one scene.

    If the folder contains checkpoints of another image or model, they are removed.

    Args:
        folder: Folder of the checkpoints, created if missing.
        made_with: Everything on which a checkpoint depends, as plain data.
    """

    def __init__(self, folder: Path, made_with: Mapping[str, Any]) -> None:
        self.folder = folder
        self._made_with = wanted = (json.dumps(made_with, sort_keys=True, indent=1) + "\n").encode()
        key = folder / _KEY
        with exporting(folder):
            stored = key.read_bytes() if key.exists() else None
            if stored != wanted:
                shutil.rmtree(folder, ignore_errors=True)
                write_atomically(key, wanted)
        self.replaced = stored is not None and stored != wanted
        """True if checkpoints of another run were removed."""

    def load(self, number: int) -> Checkpoint | None:
        """Return the checkpoint of a block; None if it is missing or damaged."""
        try:
            data = self._path(number).read_bytes()
        except OSError:
            return None
        with suppress(ValueError):
            return unpack(data)
        return None

    def save(self, number: int, checkpoint: Checkpoint) -> None:
        """Write the checkpoint of a block; after a crash it is complete or absent.

        Raises:
            ExportError: The file cannot be written, for example because the disk is full.
        """
        self.save_packed(number, pack(checkpoint))

    def save_packed(self, number: int, packed: bytes) -> None:
        """Write the bytes of a checkpoint that `pack` has returned; see `save`."""
        write_atomically(self._path(number), packed, sync=True)

    @property
    def is_visible(self) -> bool:
        """True if this machine has access to the folder."""
        try:
            return (self.folder / _KEY).read_bytes() == self._made_with
        except OSError:
            return False

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:07d}.part"


def pack(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a checkpoint, with a checksum."""
    block = checkpoint.block
    classes = np.flatnonzero(block.count[1:]) + 1
    planes: list[int] = [] if block.is_empty else classes.tolist()
    # One bit for each pixel and class compresses ten times as fast as bytes.
    kept: list[NDArray[Any] | None] = [np.packbits(block.mask == index) for index in planes]
    kept.append(None if block.is_empty else block.score[_scored(block.mask)])
    kept += [None, None] if block.is_empty or block.thumbnail is None else [*block.thumbnail]
    kept += [output.probability for _, output in checkpoint.halo]
    # Scores and pixels of photographs hardly compress.
    plain = len(planes), len(planes) + 1
    body = [
        None if one is None else _compressed(one, 0 if number in plain else _LEVEL)
        for number, one in enumerate(kept)
    ]
    head = {
        "window": _numbers(block.window),
        "figures": {name: getattr(block.tiles, name) for name in _COUNTS},
        "planes": planes,
        "handed_on": [
            [number, *output.index, *_numbers(output.extent)] for number, output in checkpoint.halo
        ],
        "arrays": [
            None if one is None else [one.dtype.str, list(one.shape), len(packed or b"")]
            for one, packed in zip(kept, body)
        ],
    }
    line = json.dumps(head).encode() + b"\n"
    payload = line + b"".join(packed for packed in body if packed is not None)
    return _MAGIC + f"{zlib.crc32(payload):08x}\n".encode() + payload


def _compressed(values: NDArray[Any], level: int) -> bytes:
    # Repetitions of single bytes are found faster, and those of masks take less space.
    deflate = zlib.compressobj(level, strategy=zlib.Z_RLE)
    return deflate.compress(np.ascontiguousarray(values).data) + deflate.flush()


def _scored(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the pixels whose scores are stored: neither background nor nodata."""
    scored: NDArray[np.bool_] = (mask != 0) & (mask != NODATA)
    return scored


def unpack(data: bytes) -> Checkpoint:
    """Return the checkpoint that `pack` has turned into bytes.

    Raises:
        ValueError: The bytes are not those of a checkpoint, or are damaged.
    """
    at = len(_MAGIC) + 9
    if data[:at] != _MAGIC + f"{zlib.crc32(data[at:]):08x}\n".encode():
        raise ValueError("damaged")
    stop = data.index(b"\n", at)
    head = json.loads(data[at:stop])
    at = stop + 1
    arrays: list[NDArray[Any] | None] = []
    for entry in head["arrays"]:
        if entry is None:
            arrays.append(None)
            continue
        kind, shape, size = entry
        values = np.frombuffer(zlib.decompress(data[at : at + size]), dtype=kind)
        arrays.append(values.reshape(shape))
        at += size
    count = len(head["planes"])
    planes, (scores, pixels, valid, *probabilities) = arrays[:count], arrays[count:]
    halo = tuple(
        (entry[0], TileOutput((entry[1], entry[2]), Window(*entry[3:]), probability))
        for entry, probability in zip(head["handed_on"], probabilities)
    )
    window = Window(*head["window"])
    block = Block.empty(window)
    if scores is not None:
        mask = np.zeros(window.shape_yx, dtype=np.uint8)
        for index, plane in zip(head["planes"], planes):
            bits = _bits(plane, window).view(np.uint8)
            # A pixel has one class, so that planes can be added; choosing takes ten times as long.
            mask += bits if index == 1 else bits * np.uint8(index)
        score = np.zeros(window.shape_yx, dtype=np.uint8)
        score[_scored(mask)] = scores
        block = Block.of(window, mask, score)
    thumbnail = None if pixels is None or valid is None else (pixels, valid)
    tiles = TileStats(**head["figures"])
    return Checkpoint(replace(block, thumbnail=thumbnail, tiles=tiles), halo)


def _bits(packed: NDArray[np.uint8] | None, window: Window) -> NDArray[np.bool_]:
    assert packed is not None
    bits = np.unpackbits(packed, count=window.area_px)
    return np.asarray(bits.reshape(window.shape_yx), dtype=np.bool_)


def _numbers(window: Window) -> Sequence[int]:
    return [int(n) for n in (window.row, window.col, window.height, window.width)]
