"""Detect keypoints in scenes, and find scenes that overlap on the ground.

The hash of a whole image (`audit.duplicates`) does not match a part of it. Keypoints are therefore
detected first: maxima of the difference of two Gaussians (D. G. Lowe, Distinctive Image Features
from Scale-Invariant Keypoints, 2004, section 3; here at one scale, because the metres per pixel are
known). They lie at the same places in every part of an image. Each keypoint gets the perceptual
hash of the square around it.

A single similar hash is chance, and so are several at inconsistent places. Keypoints whose places
agree up to one shift and one rotation or mirroring show the same ground (the voting of D. G. Lowe,
section 7.3). Small scenes are also compared as a whole, for which no metres are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.audit.duplicates import NO_HASH, across, hash_of, luma_of, phash
from rooftrace.core.types import Scene, Window, is_known_empty
from rooftrace.io.resample import Resampler, Scaling

PATCH_PX = 32
"""Side in pixels of the square around a keypoint that is hashed."""

CELL_PX = 16
"""Side in pixels of a cell, of which only the strongest keypoint is kept."""

_INNER_PX, _OUTER_PX = 1.5, 2.4
"""Standard deviations of the two Gaussians in pixels."""

_NEAR_PX = 4
"""Distance in pixels, along rows and columns, within which a keypoint must be the maximum."""

_BLOCK_PX = 1024
"""Side in pixels of the blocks in which a scene is read."""

_MARGIN_PX = 32
"""Margin in pixels around a block, more than the squares and the Gaussians reach."""

_STEP_PX = 4
"""Step in pixels by which cells grow until few enough keypoints are left."""

_GOLDEN = (5**0.5 - 1) / 2

_SAME_GSD = 0.02
"""Relative difference up to which a scene's metres per pixel equal those of its georeference."""


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of a scene; lengths are in pixels of the requested scale.

    Args:
        hashes: (n,) uint64 hashes of the squares around the keypoints.
        places: (n, 2) int32 row and column of each keypoint.
        strength: (n,) float32 strength of each keypoint, in pixel values.
        whole: Hash of the whole scene; NO_HASH if it is larger than a block or without detail.
        side_px: Shorter side of the scene; 0 for a scene of a fingerprint, which does not keep it.
    """

    hashes: NDArray[np.uint64]
    places: NDArray[np.int32]
    strength: NDArray[np.float32]
    whole: int = NO_HASH
    side_px: int = 0

    def __len__(self) -> int:
        return len(self.hashes)

    def only(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Keypoints:
        """Return the keypoints selected by indices or by a mask (n,)."""
        return replace(
            self,
            hashes=self.hashes[chosen],
            places=self.places[chosen],
            strength=self.strength[chosen],
        )


NO_KEYPOINTS = Keypoints(
    np.zeros(0, np.uint64), np.zeros((0, 2), np.int32), np.zeros(0, np.float32)
)


def detect_keypoints(
    scene: Scene,
    gsd_m: float | None,
    *,
    assumed_gsd_m: float | None = None,
    share: float = 1.0,
    start: int = 0,
) -> Keypoints:
    """Detect the keypoints of a scene of any size in bounded memory; labels are not read.

    Args:
        gsd_m: Metres per pixel of the scale in which keypoints are detected; None for a pixel of
            twice the scene's own.
        assumed_gsd_m: Metres per pixel of a scene that does not know its own; None for half of
            `gsd_m`.
        share: Share of the blocks of 1024 × 1024 pixels that are read, spread evenly.
        start: Number of the scene's first block in the sequence of blocks of all scenes.
    """
    pixels = Resampler(scene.image, _scaling(scene, gsd_m, assumed_gsd_m))
    whole = Window.whole(pixels.shape_yx)
    parts, hashed = [NO_KEYPOINTS], NO_HASH
    for number, core in enumerate(whole.blocks(_BLOCK_PX, _BLOCK_PX), start):
        window = core.padded(_MARGIN_PX).intersection(whole)
        assert window is not None
        if number * _GOLDEN % 1 >= share or is_known_empty(scene.image, pixels.reach(window)):
            continue
        data, valid = pixels.read(window)
        if not valid.any():
            continue
        luma = np.where(valid, luma_of(data), 0)
        parts.append(_points(luma, valid, window, core))
        if core == whole:
            hashed = phash(luma, valid)
    return Keypoints(
        np.concatenate([part.hashes for part in parts]),
        np.concatenate([part.places for part in parts]),
        np.concatenate([part.strength for part in parts]),
        hashed,
        min(pixels.shape_yx),
    )


def thin_keypoints(scenes: Sequence[Keypoints], most: int) -> tuple[list[Keypoints], int]:
    """Keep at most `most` keypoints of all scenes together, spread evenly over the ground.

    Args:
        scenes: Keypoints of each scene.
        most: Maximum number of keypoints.

    Returns:
        The scenes with the strongest keypoint of each cell, and the side of the cells. If cells
        would become larger than a block, no keypoints are kept.
    """
    cell_px, kept = CELL_PX, list(scenes)
    while sum(map(len, kept)) > most:
        cell_px += _STEP_PX
        if cell_px > _BLOCK_PX:
            return [one.only(np.zeros(0, dtype=np.intp)) for one in scenes], cell_px
        kept = [one.only(_strongest(one.places, one.strength, cell_px)) for one in scenes]
    return kept, cell_px


def _points(
    luma: NDArray[np.uint8] | NDArray[np.float32],
    valid: NDArray[np.bool_],
    window: Window,
    core: Window,
) -> Keypoints:
    """Return the keypoints in `core`, from the part of the scene at `window`."""
    picture = luma.astype(np.float32)
    inner, outer = (cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in (_INNER_PX, _OUTER_PX))
    response: NDArray[np.float32] = np.abs(inner - outer)
    near = np.ones((2 * _NEAR_PX + 1,) * 2, np.uint8)
    chosen = (response == np.asarray(cv2.dilate(response, near))) & (response > 0)
    # The square around a keypoint is valid and inside the image.
    square = np.ones((PATCH_PX + 1,) * 2, np.uint8)
    known = cv2.erode(valid.view(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    inside = np.zeros(luma.shape, dtype=bool)
    inside[core.slices(window)] = True
    chosen &= inside & (np.asarray(known) > 0)
    found, strength = np.argwhere(chosen), response[chosen]
    places = found + np.array([window.row, window.col])
    kept = _strongest(places, strength, CELL_PX)
    # Means of 2 × 2 pixels lie at their common corner. So the keypoint is in the middle of a square
    # with an even side, and stays there when the square is rotated.
    means: NDArray[np.float32] = np.asarray(cv2.blur(picture, (2, 2), anchor=(0, 0)), np.float32)
    brightest = 255.0 if luma.dtype == np.uint8 else None
    hashes = np.array(
        [_hash(means, row, col, brightest) for row, col in found[kept].tolist()], dtype=np.uint64
    )
    marks = Keypoints(hashes, places[kept].astype(np.int32), strength[kept].astype(np.float32))
    return marks.only(hashes != NO_HASH)


def _hash(means: NDArray[np.float32], row: int, col: int, brightest: float | None) -> int:
    half = PATCH_PX // 2
    square = means[row - half : row + half, col - half : col + half]
    brightest = brightest or float(square.max())
    return hash_of(square / np.float32(brightest)) if brightest > 0 else NO_HASH


def _strongest(
    places: NDArray[np.integer], strength: NDArray[np.floating], cell_px: int
) -> NDArray[np.intp]:
    """Return the indices, in ascending order, of the strongest keypoint of each cell."""
    cells = places // cell_px
    order = np.lexsort((-strength, cells[:, 1], cells[:, 0]))
    ranked = cells[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    return np.sort(order[fresh])


def _scaling(scene: Scene, gsd_m: float | None, assumed_gsd_m: float | None) -> Scaling:
    if gsd_m is None:
        return Scaling((512, 512))
    own = scene.gsd_m or assumed_gsd_m or gsd_m / 2
    grid = scene.image.grid
    # The configuration outweighs the georeference, but only the latter knows both axes.
    same = grid.gsd_m is not None and abs(own / grid.gsd_m - 1) < _SAME_GSD
    down, along = grid.gsd_yx_m if same and grid.gsd_yx_m is not None else (own, own)
    return Scaling((max(1, round(256 * gsd_m / down)), max(1, round(256 * gsd_m / along))))


LEAST_POINTS = 2
"""Least number of keypoints that must agree in two scenes."""

_LEAST_SHARE = 0.2
"""Least share of agreeing keypoints in the common area, so that chance does not decide in large
scenes.

In a comparison of 2,100 tiles and scenes of nine places with 231 of nine sets, scenes of the same
ground agreed in a share of 0.38 or more, and chance matches of three keypoints in 0.00 (with all
keypoints kept).
"""

_PAIR_SHARE = 0.5
_PAIR_BITS = 4
"""Stricter limits for two keypoints: a pair of tiles from two continents had 0.5 and 5 bits."""

_POINT_BITS = 9
"""Maximum number of bits in which the hashes of two keypoints differ."""

_WHOLE_BITS = 4
"""Maximum number of bits in which the hashes of two whole scenes differ. It is lower than that of
keypoints, because nothing else confirms the match."""

_AGREE_PX = 4
"""Maximum difference in pixels between shifts that agree."""

Places = NDArray[np.int64]


@dataclass(frozen=True)
class SceneOverlap:
    """Two scenes that show the same ground.

    Args:
        first, second: Indices of the scenes.
        points: Number of keypoints that agree; 0 if the scenes match as a whole.
        bits: Number of bits of 64 in which the hashes differ; the median over keypoints.
        share: Share of the keypoints in the common area that agree, 0..1; for scenes that match as
            a whole, the share of equal bits.
    """

    first: int
    second: int
    points: int
    bits: float
    share: float


def shows_overlaps(scene: Keypoints, side_px: int) -> bool:
    """Return True if a scene is large enough, and has enough keypoints, for an overlap to be found.

    Args:
        scene: Keypoints of the scene.
        side_px: Side of a square that is mostly recognised.
    """
    return scene.side_px >= side_px and len(scene) >= LEAST_POINTS


def match_scenes(first: Sequence[Keypoints], second: Sequence[Keypoints]) -> list[SceneOverlap]:
    """Return the pairs of scenes of two sets that show the same ground, in order of their indices.

    Args:
        first, second: Keypoints of the scenes, all detected at the same metres per pixel.
    """
    found: dict[tuple[int, int], SceneOverlap] = {}
    whole = [np.array([one.whole for one in each], dtype=np.uint64) for each in (first, second)]
    alike = across(*whole, most_bits=_WHOLE_BITS)
    for i, j, bits in zip(alike.first.tolist(), alike.second.tolist(), alike.bits.tolist()):
        found[i, j] = SceneOverlap(i, j, 0, bits, 1 - bits / 64)
    for one in _agreeing(_AllKeypoints(first), _AllKeypoints(second)):
        before = found.get((one.first, one.second))
        if before is None or before.points < one.points:
            found[one.first, one.second] = one
    return [found[pair] for pair in sorted(found)]


class _AllKeypoints:
    """The keypoints of all scenes, one after another, each with the index of its scene."""

    def __init__(self, scenes: Sequence[Keypoints]) -> None:
        counts = [len(scene) for scene in scenes]
        self.hashes = np.concatenate([np.zeros(0, np.uint64), *(scene.hashes for scene in scenes)])
        places = [np.zeros((0, 2), np.int32), *(scene.places for scene in scenes)]
        self.places: Places = np.concatenate(places).astype(np.int64)
        self.owner = np.repeat(np.arange(len(scenes)), counts)
        self._ends = np.cumsum([0, *counts])

    def of(self, scene: int) -> Places:
        """Return the (n, 2) places of one scene's keypoints."""
        return self.places[self._ends[scene] : self._ends[scene + 1]]


def _agreeing(one: _AllKeypoints, other: _AllKeypoints) -> Iterator[SceneOverlap]:
    """Yield pairs of scenes with keypoints that agree, some pairs several times."""
    pairs = across(one.hashes, other.hashes, most_bits=_POINT_BITS)
    if len(pairs) < LEAST_POINTS:
        return
    shift = one.places[pairs.first] - _turned(other.places[pairs.second], pairs.symmetry)
    scenes = np.stack([one.owner[pairs.first], other.owner[pairs.second], pairs.symmetry], axis=1)
    side = 2 * _AGREE_PX
    # Shifts that agree may fall into two bins, but not in all four layouts of the bins.
    for layout in ((0, 0), (0, _AGREE_PX), (_AGREE_PX, 0), (_AGREE_PX, _AGREE_PX)):
        keys = np.concatenate([scenes, (shift + np.array(layout)) // side], axis=1)
        _, vote = np.unique(keys, axis=0, return_inverse=True)
        vote = vote.reshape(-1)
        # A keypoint that is similar to many others counts once, in either scene.
        votes = np.minimum(_distinct(vote, pairs.first), _distinct(vote, pairs.second))
        order = np.argsort(vote, kind="stable")
        starts = np.searchsorted(vote[order], np.arange(len(votes) + 1))
        for number in np.flatnonzero(votes >= LEAST_POINTS).tolist():
            members = order[starts[number] : starts[number + 1]]
            i, j, symmetry = scenes[members[0]].tolist()
            shifted = _turned(other.of(j), np.full(len(other.of(j)), symmetry))
            places, others = one.of(i), shifted + np.median(shift[members], axis=0)
            # As many keypoints could agree as the scene with fewer has in the common rectangle.
            expected = min(_inside(places, others), _inside(others, places))
            share = min(1.0, int(votes[number]) / max(expected, 1))
            bits = float(np.median(pairs.bits[members]))
            is_pair = share >= _PAIR_SHARE and bits <= _PAIR_BITS
            if share >= _LEAST_SHARE and (votes[number] > LEAST_POINTS or is_pair):
                yield SceneOverlap(i, j, int(votes[number]), bits, share)


def _turned(places: Places, symmetry: NDArray[np.integer]) -> Places:
    """Return (n, 2) places rotated or mirrored around the origin, see `duplicates.symmetries`."""
    turned = np.where((symmetry >= 4)[:, None], places[:, ::-1], places)
    rows = np.where(symmetry % 4 >= 2, -1, 1)
    cols = np.where(symmetry % 2 == 1, -1, 1)
    return np.asarray(turned * np.stack([rows, cols], axis=1), dtype=np.int64)


def _inside(places: NDArray[np.number], others: NDArray[np.number]) -> int:
    low, high = others.min(axis=0) - _AGREE_PX, others.max(axis=0) + _AGREE_PX
    return int(((places >= low) & (places <= high)).all(axis=1).sum())


def _distinct(vote: NDArray[np.intp], point: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the (votes,) number of different keypoints of each vote."""
    pairs = np.unique(np.stack([vote, point], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=int(vote.max()) + 1)
