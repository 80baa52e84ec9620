"""Count and measure the buildings of a mask that comes in parts."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SPECK_PX = 9
"""Area of 3 × 3 pixels. Smaller regions come from slips of the hand or from conversions, and no
network learns their shape."""

Edges = tuple[bool, bool, bool, bool]
"""Four flags: the top, bottom, left and right of a part are edges of the whole mask."""

_NONE = np.zeros(0, dtype=np.int64)

_QUADS = np.zeros(256, dtype=np.int8)
"""Contribution of 2 × 2 pixels, by their bits, to four times the Euler number. One pixel of four is
a convex corner, three are a concave corner, and two on a diagonal touch in a point."""
_QUADS[[1, 2, 4, 8]] = 1
_QUADS[[7, 11, 13, 14]] = -1
_QUADS[[6, 9]] = -2


@dataclass(frozen=True, slots=True)
class Buildings:
    """Figures of the 8-connected components of a mask.

    Args:
        areas_px: (n,) int64 area of each.
        cut: Number of components that touch the edge of the image.
        specks: Number of other components that are smaller than SPECK_PX.
        holes: Number of holes that are smaller than SPECK_PX.
    """

    areas_px: NDArray[np.int64]
    cut: int
    specks: int
    holes: int


@dataclass(frozen=True, slots=True)
class _WindowComponents:
    """The components of one part, numbered from 0.

    Args:
        areas_px: (n,) int64 areas.
        sides: (n, 4) bool, True if a component touches the top, bottom, left or right.
        top, bottom: (x,) int64 number of the component in the first and last row; -1 for none.
        holes: Number of small holes.
    """

    areas_px: NDArray[np.int64]
    sides: NDArray[np.bool_]
    top: NDArray[np.int64]
    bottom: NDArray[np.int64]
    holes: int


class BuildingCounter:
    """Counter of the buildings of a mask that comes in parts: `feed` each, then `finish`.

    Args:
        strips: True if the parts are strips of the full width, from top to bottom. Buildings are
            then joined across the seams, but holes on a seam are not counted. False if they are
            separate windows; buildings that reach out of a window are then left out.
    """

    def __init__(self, *, strips: bool) -> None:
        self._strips = strips
        self._areas: list[NDArray[np.int64]] = []
        self._cut: list[NDArray[np.bool_]] = []
        self._parent: dict[int, int] = {}
        self._count = self._holes = 0
        self._above: NDArray[np.int64] | None = None

    def feed(self, binary: NDArray[np.uint8], edges: Edges) -> None:
        """Count the buildings of a part.

        Args:
            binary: (y, x) mask, 1 for buildings and 0 elsewhere.
            edges: Flags that say which sides of the part are edges of the image.
        """
        part = _find_components(binary)
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
        """Return the buildings of all parts."""
        if not self._count:
            return Buildings(_NONE, 0, 0, self._holes)
        areas, cut = np.concatenate(self._areas), np.concatenate(self._cut)
        # Parents have lower numbers. From high to low, every area is added up to its root.
        for number in sorted(self._parent, reverse=True):
            areas[self._parent[number]] += areas[number]
            cut[self._parent[number]] |= cut[number]
        rest = np.ones(self._count, dtype=bool)
        rest[list(self._parent)] = False
        areas, cut = areas[rest], cut[rest]
        specks = int(np.count_nonzero((areas < SPECK_PX) & ~cut))
        return Buildings(areas, int(np.count_nonzero(cut)), specks, self._holes)


def _find_components(binary: NDArray[np.uint8]) -> _WindowComponents:
    if not binary.any():
        nothing = np.full(binary.shape[1], -1, dtype=np.int64)
        return _WindowComponents(_NONE, np.zeros((0, 4), dtype=bool), nothing, nothing, 0)
    # A pixel lies between any two components, which limits their number. 16-bit labels are faster.
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
    return _WindowComponents(areas[1:], sides[1:], top, bottom, holes)


def _euler_number(binary: NDArray[np.uint8]) -> int:
    """Return the number of 8-connected components minus holes, from counts of 2 × 2 pixels.

    The method is that of S. B. Gray, Local properties of binary images in two dimensions (1971). It
    is three times as fast as a search for holes, and most masks have none.
    """
    ringed = np.asarray(cv2.copyMakeBorder(binary, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0))
    pattern = ringed[:-1, :-1] + 2 * ringed[:-1, 1:]
    pattern += 4 * ringed[1:, :-1]
    pattern += 8 * ringed[1:, 1:]
    return round(cv2.sumElems(cv2.LUT(pattern, _QUADS))[0] / 4)


def _small_holes(binary: NDArray[np.uint8]) -> int:
    """Return the number of enclosed holes that are smaller than SPECK_PX.

    A hole is a 4-connected component of the background inside an 8-connected building.
    """
    background = cv2.copyMakeBorder(
        (binary == 0).view(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1
    )
    # The added ring joins all open background. The ring and the buildings are not holes.
    count, labels = cv2.connectedComponents(background, connectivity=4, ltype=cv2.CV_32S)
    areas = np.bincount(labels.reshape(-1), minlength=count)
    return int(np.count_nonzero(np.delete(areas, (0, labels[0, 0])) < SPECK_PX))


def _join(above: NDArray[np.int64], below: NDArray[np.int64], parent: dict[int, int]) -> None:
    """Join components of two rows that touch, also at corners; the lower number is the parent."""

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
