"""The buildings of a mask: how many, how large, which are cut, and how ragged they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["SPECK_PX", "BuildingCounter", "Buildings", "Edges"]

SPECK_PX = 9
"""A square of 3 pixels: what is smaller is a slip of the hand or of a conversion, and no network
learns its shape."""

Edges = tuple[bool, bool, bool, bool]
"""Of a part: whether its top, bottom, left and right are edges of the whole."""

_NONE = np.zeros(0, dtype=np.int64)

_QUADS = np.zeros(256, dtype=np.int8)
"""What 2 × 2 pixels add to four times the Euler number, by their bits: one pixel of four is a
corner, three are a corner inwards, and two across hold by a point."""
_QUADS[[1, 2, 4, 8]] = 1
_QUADS[[7, 11, 13, 14]] = -1
_QUADS[[6, 9]] = -2


@dataclass(frozen=True, slots=True)
class Buildings:
    """The 8-connected components of a mask.

    Args:
        areas_px: (n,) int64, the area of each.
        cut: how many touch the edge of the image.
        specks: how many of the others are smaller than SPECK_PX.
        holes: how many holes they have that are smaller than SPECK_PX.
    """

    areas_px: NDArray[np.int64]
    cut: int
    specks: int
    holes: int


@dataclass(frozen=True, slots=True)
class _Part:
    """The components of one window, numbered from 0.

    Args:
        areas_px: (n,) int64.
        sides: (n, 4) bool, which touch its top, bottom, left and right.
        top, bottom: (x,) int64, the number of the component in the first and last row; -1 where
            there is none.
        holes: how many small ones there are.
    """

    areas_px: NDArray[np.int64]
    sides: NDArray[np.bool_]
    top: NDArray[np.int64]
    bottom: NDArray[np.int64]
    holes: int


class BuildingCounter:
    """Counts the buildings of a mask that comes in parts: `feed` each, then `finish`.

    Args:
        strips: whether the parts are strips of the full width, from top to bottom: then buildings
            are whole across seams (holes on one are not counted). Else they are windows, and what
            reaches out of one is left out.
    """

    def __init__(self, *, strips: bool) -> None:
        self._strips = strips
        self._areas: list[NDArray[np.int64]] = []
        self._cut: list[NDArray[np.bool_]] = []
        self._parent: dict[int, int] = {}
        self._count = self._holes = 0
        self._above: NDArray[np.int64] | None = None

    def feed(self, binary: NDArray[np.uint8], edges: Edges) -> None:
        """Take in a part.

        Args:
            binary: (y, x), 1 where there is a building, else 0.
            edges: which of its top, bottom, left and right are edges of the image.
        """
        part = _part(binary)
        self._holes += part.holes
        at_edge: NDArray[np.bool_] = np.array(edges)
        areas = part.areas_px
        cut: NDArray[np.bool_] = np.any(part.sides & at_edge, axis=1)
        if self._strips:
            if self._above is not None:
                _join(self._above, part.top + self._count * (part.top >= 0), self._parent)
            self._above = part.bottom + self._count * (part.bottom >= 0)
        else:
            whole: NDArray[np.bool_] = ~np.any(part.sides & ~at_edge, axis=1)
            areas, cut = areas[whole], cut[whole]
        self._areas.append(areas)
        self._cut.append(cut)
        self._count += len(areas)

    def finish(self) -> Buildings:
        """All buildings of what was fed."""
        if not self._count:
            return Buildings(_NONE, 0, 0, self._holes)
        areas, cut = np.concatenate(self._areas), np.concatenate(self._cut)
        # Parents are lower numbers: from high to low, everything reaches the first of its kind.
        for number in sorted(self._parent, reverse=True):
            areas[self._parent[number]] += areas[number]
            cut[self._parent[number]] |= cut[number]
        rest = np.ones(self._count, dtype=bool)
        rest[list(self._parent)] = False
        areas, cut = areas[rest], cut[rest]
        specks = int(np.count_nonzero((areas < SPECK_PX) & ~cut))
        return Buildings(areas, int(np.count_nonzero(cut)), specks, self._holes)


def _part(binary: NDArray[np.uint8]) -> _Part:
    if not binary.any():
        nothing = np.full(binary.shape[1], -1, dtype=np.int64)
        return _Part(_NONE, np.zeros((0, 4), dtype=bool), nothing, nothing, 0)
    # Components lie a pixel apart, so that there are so many; short numbers are counted faster.
    most = ((binary.shape[0] + 1) // 2) * ((binary.shape[1] + 1) // 2)
    ltype = cv2.CV_16U if most < 2**16 - 1 else cv2.CV_32S
    count, labels = cv2.connectedComponents(binary, connectivity=8, ltype=ltype)
    if ltype == cv2.CV_16U:
        histogram = cv2.calcHist([labels], [0], None, [count], [0, count])
        areas = np.asarray(histogram).ravel().astype(np.int64)
    else:
        areas = np.bincount(labels[binary != 0], minlength=count).astype(np.int64)
    sides = np.zeros((count, 4), dtype=bool)
    for side, line in enumerate((labels[0], labels[-1], labels[:, 0], labels[:, -1])):
        sides[line, side] = True
    top, bottom = labels[0].astype(np.int64) - 1, labels[-1].astype(np.int64) - 1
    holes = 0 if count - 1 == _euler_number(binary) else _small_holes(binary)
    return _Part(areas[1:], sides[1:], top, bottom, holes)


def _euler_number(binary: NDArray[np.uint8]) -> int:
    """8-connected components less their holes, from counts of 2 × 2 pixels.

    S. B. Gray, Local properties of binary images in two dimensions (1971). Three times as fast as
    to look for the holes, and most masks have none.
    """
    ringed = np.asarray(cv2.copyMakeBorder(binary, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0))
    pattern = ringed[:-1, :-1] + 2 * ringed[:-1, 1:]
    pattern += 4 * ringed[1:, :-1]
    pattern += 8 * ringed[1:, 1:]
    return round(cv2.sumElems(cv2.LUT(pattern, _QUADS))[0] / 4)


def _small_holes(binary: NDArray[np.uint8]) -> int:
    """4-connected components of the background, smaller than SPECK_PX and closed in on all sides.

    Such a hole lies in the 8-connected building around it.
    """
    background = cv2.copyMakeBorder(
        (binary == 0).view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1
    )
    # The ring that was laid around joins all that is open; it, and the buildings, are no holes.
    count, labels = cv2.connectedComponents(background, connectivity=4, ltype=cv2.CV_32S)
    areas = np.bincount(labels.reshape(-1), minlength=count)
    return int(np.count_nonzero(np.delete(areas, (0, labels[0, 0])) < SPECK_PX))


def _join(above: NDArray[np.int64], below: NDArray[np.int64], parent: dict[int, int]) -> None:
    """Note which components of two rows touch, corners included: `parent` is always the lower."""

    def root(number: int) -> int:
        while number in parent:
            number = parent[number]
        return number

    width = len(above)
    for shift in (-1, 0, 1):
        one = above[max(0, -shift) : width - max(0, shift)]
        other = below[max(0, shift) : width - max(0, -shift)]
        touching = (one >= 0) & (other >= 0)
        for pair in np.unique(np.stack([one[touching], other[touching]]), axis=1).T.tolist():
            low, high = sorted(map(root, pair))
            if low != high:
                parent[high] = low
