"""Fingerprint of training data: what a bundle keeps of its training scenes to recognise them later.

It holds keypoints and hashes (`audit.keypoints`) of the scenes at two model pixels per pixel, and
no pixels. Of a square of 64 × 64 model pixels it keeps the signs of the 63 lowest frequencies,
which is less than a picture of 8 × 8.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rooftrace.core.config import Config
from rooftrace.core.errors import BundleError

# The audit is imported where it is used: every bundle is read with this module, few are compared.
if TYPE_CHECKING:
    from rooftrace.audit.keypoints import Keypoints
    from rooftrace.core.types import Scene

MAX_ENTRIES = 20_000
"""Maximum number of scenes and keypoints together, which take about 200 KB of the file."""

MAX_SCENES = 8_000
MAX_PX = 2**29
"""Maximum number of pixels that are read; an even sample is taken of more."""

_PX_PER_PX = 2
"""Model pixels per pixel of the fingerprint. At 1 there would be four times as many keypoints, more
than can be kept.
"""

_CELLS_TO_FIND = 2.5
"""Side of a square, in cells, that mostly holds enough keypoints to be recognised."""

Count = Annotated[int, Field(ge=0, le=2**20)]


class TrainingSet(Config):
    """One set that was used for training: its name, and its number of scenes."""

    name: str
    scenes: Annotated[int, Field(ge=0)]


class Fingerprint(Config):
    """Keypoints and hashes of scenes.

    Args:
        gsd_m: Metres per pixel at which the scenes were read; None for two model pixels per pixel.
        sets: Sets of the scenes; these are numbered through all sets, in order of their ids.
        share: Share of the scenes, or of their ground, that was read; below 1 it is an even sample.
        cell_px: Side of the squares in which only one keypoint is kept, in pixels of `gsd_m`.
        scenes: Number of scenes.
        landmarks: Number of keypoints of all scenes.
        data: base64 of deflated little-endian arrays. Per scene: its number and its number of
            keypoints (uint32 each) and its hash (uint64). Per keypoint: row and column (uint32
            each) and hash (uint64). The bytes of each array are sorted by their place in the
            number.
    """

    gsd_m: Annotated[float, Field(gt=0)] | None
    sets: tuple[TrainingSet, ...]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    cell_px: Annotated[int, Field(ge=1)]
    scenes: Count
    landmarks: Count
    data: str = Field(repr=False)

    @property
    def finds_px(self) -> int:
        """Side of a square, in pixels of `gsd_m`, that is mostly recognised."""
        from rooftrace.audit.keypoints import PATCH_PX

        return round(PATCH_PX + _CELLS_TO_FIND * self.cell_px)

    def unpack(self, source: str) -> tuple[list[Keypoints], list[int]]:
        """Return the scenes, and their numbers from 0 among all training scenes.

        Raises:
            BundleError: `data` contradicts the other fields.
        """
        from rooftrace.audit.keypoints import Keypoints

        n, m = self.scenes, self.landmarks
        size = 16 * (n + m)
        try:
            unfolded = zlib.decompressobj()
            raw = unfolded.decompress(base64.b64decode(self.data, validate=True), size + 1)
        except (binascii.Error, ValueError, zlib.error) as error:
            raise _unreadable(source, f"{type(error).__name__}: {error}") from error
        if len(raw) != size:
            raise _unreadable(source, f"not the {size} bytes of {n} scenes and {m} landmarks")
        number, count = _split(raw[: 8 * n], 4, 2)
        (whole,) = _split(raw[8 * n : 16 * n], 8, 1)
        row, col = _split(raw[16 * n : 16 * n + 8 * m], 4, 2)
        (hashes,) = _split(raw[16 * n + 8 * m :], 8, 1)
        total = sum(one.scenes for one in self.sets)
        if count.sum() != m or (n and int(number.max()) >= total) or max([0, *row, *col]) >= 2**31:
            raise _unreadable(source, "numbers out of range")
        places = np.stack([row, col], axis=1).astype(np.int32)
        ends = np.cumsum([0, *count.tolist()])
        scenes = [
            Keypoints(hashes[a:b], places[a:b], np.zeros(b - a, np.float32), int(one))
            for a, b, one in zip(ends[:-1], ends[1:], whole.tolist())
        ]
        return scenes, number.astype(np.int64).tolist()

    def place_of(self, number: int) -> tuple[int, int]:
        """Return the numbers, from 0, of a scene's set and of the scene in that set."""
        for which, one in enumerate(self.sets):
            if number < one.scenes:
                return which, number
            number -= one.scenes
        raise IndexError(f"there is no scene {number} beyond those of {len(self.sets)} sets")


def fingerprint_of(
    sets: Sequence[tuple[str, Sequence[Scene]]], model_gsd_m: float | None
) -> Fingerprint:
    """Compute the fingerprint of all training scenes of a model, of at most `MAX_PX` pixels.

    Args:
        sets: Names of the sets, with their scenes in order of their ids.
        model_gsd_m: See `BundleSpec.gsd_m`.

    Raises:
        DataError and its kinds: An image cannot be read.
    """
    from rooftrace.audit.duplicates import NO_HASH
    from rooftrace.audit.keypoints import detect_keypoints, thin_keypoints

    gsd_m = None if model_gsd_m is None else _PX_PER_PX * model_gsd_m
    scenes = [scene for _, part in sets for scene in part]
    pixels = sum(scene.image.grid.height * scene.image.grid.width for scene in scenes)
    share = min(1.0, MAX_PX / max(pixels, 1))
    taken = np.arange(len(scenes))
    if len(scenes) > MAX_SCENES:
        taken = np.linspace(0, len(scenes) - 1, MAX_SCENES).round().astype(int)
        share = min(1.0, share * len(scenes) / MAX_SCENES)
    looked = [
        detect_keypoints(scenes[i], gsd_m, assumed_gsd_m=model_gsd_m, share=share, start=i)
        for i in taken.tolist()
    ]
    kept = [k for k, one in enumerate(looked) if len(one) or one.whole != NO_HASH]
    found, cell_px = thin_keypoints([looked[k] for k in kept], MAX_ENTRIES - len(kept))
    hashes = [one.hashes for one in found]
    places = [one.places for one in found]
    counts = [len(one) for one in found]
    number = taken[kept]
    rows_cols = np.concatenate([np.zeros((0, 2), np.int32), *places])
    raw = b"".join(
        (
            _joined(number, 4),
            _joined(np.array(counts), 4),
            _joined(np.array([one.whole for one in found], dtype=np.uint64), 8),
            _joined(rows_cols[:, 0], 4),
            _joined(rows_cols[:, 1], 4),
            _joined(np.concatenate([np.zeros(0, np.uint64), *hashes]), 8),
        )
    )
    return Fingerprint(
        gsd_m=gsd_m,
        sets=tuple(TrainingSet(name=name, scenes=len(part)) for name, part in sets),
        share=share * len(taken) / len(scenes) if scenes else 1.0,
        cell_px=cell_px,
        scenes=len(found),
        landmarks=sum(counts),
        data=base64.b64encode(zlib.compress(raw, 9)).decode(),
    )


def _joined(values: NDArray[np.integer], width: int) -> bytes:
    """Return numbers as bytes: first the lowest of each, as similar bytes compress well."""
    plain = np.ascontiguousarray(values.astype(f"<u{width}"))
    return plain.view(np.uint8).reshape(-1, width).T.tobytes()


def _split(raw: bytes, width: int, arrays: int) -> list[NDArray[np.unsignedinteger]]:
    """Return `arrays` arrays of equal length from the output of `_joined`."""
    planes = np.frombuffer(raw, np.uint8).reshape(arrays, width, -1)
    return [
        np.ascontiguousarray(one.T).view(f"<u{width}")[:, 0].astype(f"u{width}") for one in planes
    ]


def _unreadable(source: str, why: str) -> BundleError:
    return BundleError(
        f"{source}: the fingerprint of what it was trained on cannot be read ({why}).",
        remedy="Get the file again from where it was trained, or export it again with rooftrace "
        "train.",
    )
