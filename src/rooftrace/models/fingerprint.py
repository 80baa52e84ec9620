"""What a bundle keeps of the scenes that it was trained on, so that they are known again.

Landmarks and hashes (`data.landmarks`), at two model pixels a pixel, and no pixels: of a square of
64 × 64 model pixels the signs of its 63 lowest frequencies, which is less than a picture of 8 × 8.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rooftrace.core.errors import BundleError
from rooftrace.core.types import Scene
from rooftrace.data.duplicates import NO_HASH
from rooftrace.data.landmarks import PATCH_PX, Landmarks, landmarks_of, thinned

__all__ = ["Fingerprint", "TrainedOn", "fingerprint_of", "look_gsd_m"]

MOST_ENTRIES = 20_000
"""Scenes and landmarks together: about 200 KB of the file."""

MOST_SCENES = 8_000
MOST_PX = 2**29
"""Of more, an even sample is read."""

_LOOK = 2
"""Pixels of the model that a pixel of the fingerprint spans: of 4 times as many landmarks, which
come at 1, no more could be kept."""

_SQUARES = 2.5
"""Squares of so many cells, or more, mostly hold the landmarks that are needed."""

Count = Annotated[int, Field(ge=0, le=2**20)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TrainedOn(_Frozen):
    """One set that was trained on: its name, and how many scenes of it."""

    name: str
    scenes: Annotated[int, Field(ge=0)]


class Fingerprint(_Frozen):
    """Landmarks and hashes of scenes.

    Args:
        gsd_m: metres per pixel in which they were looked at; None for two pixels of each scene.
        sets: whose scenes they are; these are numbered through, in order of their ids.
        share: of the scenes, or of their ground, that was looked at; below 1 it was an even sample.
        cell_px: of the landmarks in a square of this side only one is kept, in pixels of `gsd_m`.
        scenes: how many are kept.
        landmarks: how many are kept, in all.
        data: base64 of deflated little-endian arrays: by scene its number and its landmarks
            (uint32 each) and its hash (uint64), by landmark row and column (uint32 each) and hash
            (uint64); the bytes of each array are sorted by their place in the number.
    """

    gsd_m: Annotated[float, Field(gt=0)] | None
    sets: tuple[TrainedOn, ...]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    cell_px: Annotated[int, Field(ge=1)]
    scenes: Count
    landmarks: Count
    data: str = Field(repr=False)

    @property
    def finds_px(self) -> int:
        """Side of a square, in pixels of `gsd_m`, which is mostly known again."""
        return round(PATCH_PX + _SQUARES * self.cell_px)

    def unpacked(self, source: str) -> tuple[list[Landmarks], list[int]]:
        """The scenes, and their numbers from 0 among all that were trained on.

        Args:
            source: of the bundle, for messages.

        Raises:
            BundleError: `data` is not what the other fields say.
        """
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
            Landmarks(hashes[a:b], places[a:b], np.zeros(b - a, np.float32), int(one))
            for a, b, one in zip(ends[:-1], ends[1:], whole.tolist())
        ]
        return scenes, number.astype(np.int64).tolist()

    def place_of(self, number: int) -> tuple[int, int]:
        """The number of a scene's set, and that of the scene in it, both from 0."""
        for which, one in enumerate(self.sets):
            if number < one.scenes:
                return which, number
            number -= one.scenes
        raise IndexError(f"there is no scene {number} beyond those of {len(self.sets)} sets")


def look_gsd_m(model_gsd_m: float | None) -> float | None:
    """The metres per pixel in which scenes are looked at for a model; None if it knows none."""
    return None if model_gsd_m is None else _LOOK * model_gsd_m


def fingerprint_of(
    sets: Sequence[tuple[str, Sequence[Scene]]],
    model_gsd_m: float | None,
    *,
    most_px: int = MOST_PX,
) -> Fingerprint:
    """Look at all scenes that a model is trained on.

    Args:
        sets: names, and scenes in order of their ids.
        model_gsd_m: see `BundleSpec.gsd_m`.
        most_px: of scenes with more pixels in all, an even sample is read.

    Raises:
        DataError and its kinds: an image cannot be read.
    """
    gsd_m = look_gsd_m(model_gsd_m)
    scenes = [scene for _, part in sets for scene in part]
    pixels = sum(scene.image.grid.height * scene.image.grid.width for scene in scenes)
    share = min(1.0, most_px / max(pixels, 1))
    taken = np.arange(len(scenes))
    if len(scenes) > MOST_SCENES:
        taken = np.linspace(0, len(scenes) - 1, MOST_SCENES).round().astype(int)
        share = min(1.0, share * len(scenes) / MOST_SCENES)
    looked = [
        landmarks_of(scenes[i], gsd_m, assumed_gsd_m=model_gsd_m, share=share, start=i)
        for i in taken.tolist()
    ]
    kept = [k for k, one in enumerate(looked) if len(one) or one.whole != NO_HASH]
    found, cell_px = thinned([looked[k] for k in kept], MOST_ENTRIES - len(kept))
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
        sets=tuple(TrainedOn(name=name, scenes=len(part)) for name, part in sets),
        share=share * len(taken) / len(scenes) if scenes else 1.0,
        cell_px=cell_px,
        scenes=len(found),
        landmarks=sum(counts),
        data=base64.b64encode(zlib.compress(raw, 9)).decode(),
    )


def _joined(values: NDArray[np.integer], width: int) -> bytes:
    """Numbers as bytes, first the lowest of each, then the next: like beside like packs well."""
    plain = np.ascontiguousarray(values.astype(f"<u{width}"))
    return plain.view(np.uint8).reshape(-1, width).T.tobytes()


def _split(raw: bytes, width: int, arrays: int) -> list[NDArray[np.unsignedinteger]]:
    """`arrays` of numbers, as many in each, from what `_joined` made of them."""
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
