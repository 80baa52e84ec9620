"""Points by which ground is known again, wherever a picture of it was cut.

A hash of a whole picture (`data.duplicates`) says nothing of a piece of it. So what stands out from
its surroundings is looked for first: maxima of the difference of two Gaussians (D. G. Lowe,
Distinctive Image Features from Scale-Invariant Keypoints, 2004, section 3; here at one scale, since
the metres are known), which lie at the same places in every piece. Each gets the perceptual hash of
the square around it. `data.sameground` compares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import GeoGrid, Raster, Scene, Window
from rooftrace.data.duplicates import NO_HASH, hash_of, phash
from rooftrace.data.glance import luma_of
from rooftrace.io.resample import Resampler, Scaling

__all__ = ["CELL_PX", "PATCH_PX", "Landmarks", "landmarks_of", "thinned"]

PATCH_PX = 32
"""Side of the square around a point that is hashed."""

CELL_PX = 16
"""Of a cell of this side only the point that stands out most is taken."""

_INNER_PX, _OUTER_PX = 1.5, 2.4
"""Standard deviations of the two Gaussians."""

_APART_PX = 4
"""A point stands out among all that are so near, down and along."""

_BLOCK_PX = 1024
_MARGIN_PX = 32
"""More than what a point's square and the Gaussians reach."""

_STEP_PX = 4
"""By so much cells grow until few enough points are left."""

_GOLDEN = (5**0.5 - 1) / 2

_SAME_GSD = 0.02
"""What a scene says of its metres, and what its georeference does, are one within this share."""


@dataclass(frozen=True)
class Landmarks:
    """What a scene is known again by; lengths are in pixels of the scale that was asked for.

    Args:
        hashes: (n,) uint64, of the squares around points.
        places: (n, 2) int32, row and column of each point.
        strength: (n,) float32, how far each stands out, in pixel values.
        whole: hash of all of the scene; NO_HASH of one that is large or half empty, or shows
            nothing.
    """

    hashes: NDArray[np.uint64]
    places: NDArray[np.int32]
    strength: NDArray[np.float32]
    whole: int = NO_HASH

    def __len__(self) -> int:
        return len(self.hashes)

    def only(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Landmarks:
        """Those points alone: their numbers, or (n,) bool."""
        return Landmarks(
            self.hashes[chosen], self.places[chosen], self.strength[chosen], self.whole
        )


def landmarks_of(
    scene: Scene,
    gsd_m: float | None,
    *,
    assumed_gsd_m: float | None = None,
    share: float = 1.0,
    start: int = 0,
) -> Landmarks:
    """The landmarks of a scene of any size, in bounded memory; labels are not read.

    Args:
        gsd_m: metres per pixel that it is looked at in; None for two pixels of the scene, whatever
            they span.
        assumed_gsd_m: of a scene that does not say its own; default half of `gsd_m`.
        share: of its blocks of 1024 × 1024 pixels only so many are looked at, spread evenly.
        start: number of its first block among those of all scenes that are looked at so.

    Raises:
        DataError and its kinds: the image cannot be read.
    """
    pixels = Resampler(
        scene.image, _scaling(scene, gsd_m, assumed_gsd_m), (0.0,) * scene.image.bands
    )
    whole = Window.whole(pixels.shape_yx)
    parts, hashed = [_none()], NO_HASH
    for number, core in enumerate(_blocks(whole), start):
        window = core.padded(_MARGIN_PX).intersection(whole)
        assert window is not None
        if number * _GOLDEN % 1 >= share or pixels.is_empty(window):
            continue
        data, valid = pixels.read(window)
        if not valid.any():
            continue
        luma = luma_of(Raster(data, valid, GeoGrid(window.shape_yx)))
        parts.append(_points(luma, valid, window, core))
        if core == whole:
            hashed = phash(luma, valid)
    return Landmarks(
        np.concatenate([part.hashes for part in parts]),
        np.concatenate([part.places for part in parts]),
        np.concatenate([part.strength for part in parts]),
        hashed,
    )


def thinned(scenes: Sequence[Landmarks], most: int) -> tuple[list[Landmarks], int]:
    """At most so many points of all scenes together, spread evenly over their ground.

    Returns:
        The scenes with those points that stand out most in cells of one size, and the side of
        these; beyond any reasonable size of a cell no points at all.
    """
    cell_px, kept = CELL_PX, list(scenes)
    while sum(map(len, kept)) > most:
        cell_px += _STEP_PX
        if cell_px > _BLOCK_PX:
            return [one.only(np.zeros(0, dtype=np.intp)) for one in scenes], cell_px
        kept = [one.only(_strongest(one.places, one.strength, cell_px)) for one in scenes]
    return kept, cell_px


def _none() -> Landmarks:
    none = np.zeros(0)
    return Landmarks(none.astype(np.uint64), np.zeros((0, 2), np.int32), none.astype(np.float32))


def _points(
    luma: NDArray[np.uint8] | NDArray[np.float32],
    valid: NDArray[np.bool_],
    window: Window,
    core: Window,
) -> Landmarks:
    """Those in `core`, of a part of the scene that lies at `window`."""
    picture = luma.astype(np.float32)
    inner, outer = (cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in (_INNER_PX, _OUTER_PX))
    response: NDArray[np.float32] = np.abs(inner - outer)
    near = np.ones((2 * _APART_PX + 1,) * 2, np.uint8)
    chosen = (response == np.asarray(cv2.dilate(response, near))) & (response > 0)
    chosen &= _whole_squares(valid)
    inside = np.zeros(luma.shape, dtype=bool)
    inside[core.slices(window)] = True
    chosen &= inside
    found, strength = np.argwhere(chosen), response[chosen]
    places = found + np.array([window.row, window.col])
    kept = _strongest(places, strength, CELL_PX)
    # Means of 2 × 2 pixels lie at their corners, so that the point is in the middle of a square of
    # an even side, and stays there when that is turned.
    means: NDArray[np.float32] = np.asarray(cv2.blur(picture, (2, 2), anchor=(0, 0)), np.float32)
    brightest = 255.0 if luma.dtype == np.uint8 else None
    hashes = np.array(
        [_hash(means, row, col, brightest) for row, col in found[kept].tolist()], dtype=np.uint64
    )
    marks = Landmarks(hashes, places[kept].astype(np.int32), strength[kept].astype(np.float32))
    return marks.only(hashes != NO_HASH)


def _whole_squares(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(y, x) where the square around a pixel is valid, and lies in the picture."""
    square = np.ones((PATCH_PX + 1,) * 2, np.uint8)
    known = cv2.erode(valid.view(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(known).astype(bool)


def _hash(means: NDArray[np.float32], row: int, col: int, brightest: float | None) -> int:
    half = PATCH_PX // 2
    square = means[row - half : row + half, col - half : col + half]
    brightest = brightest or float(square.max())
    return hash_of(square / np.float32(brightest)) if brightest > 0 else NO_HASH


def _strongest(
    places: NDArray[np.integer], strength: NDArray[np.floating], cell_px: int
) -> NDArray[np.intp]:
    """Numbers, rising, of the strongest point of each cell that has one."""
    cells = places // cell_px
    order = np.lexsort((-strength, cells[:, 1], cells[:, 0]))
    ranked = cells[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    return np.sort(order[fresh])


def _blocks(whole: Window) -> Iterator[Window]:
    for row in range(0, whole.height, _BLOCK_PX):
        for col in range(0, whole.width, _BLOCK_PX):
            block = Window(row, col, _BLOCK_PX, _BLOCK_PX).intersection(whole)
            assert block is not None
            yield block


def _scaling(scene: Scene, gsd_m: float | None, assumed_gsd_m: float | None) -> Scaling:
    if gsd_m is None:
        return Scaling((512, 512))
    own = scene.gsd_m or assumed_gsd_m or gsd_m / 2
    grid = scene.image.grid
    # What a person said outweighs the georeference, which knows both axes.
    told = grid.gsd_m is not None and abs(own / grid.gsd_m - 1) < _SAME_GSD
    down, along = grid.gsd_yx_m if told and grid.gsd_yx_m is not None else (own, own)
    return Scaling((max(1, round(256 * gsd_m / down)), max(1, round(256 * gsd_m / along))))
