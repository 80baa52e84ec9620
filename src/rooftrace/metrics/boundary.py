"""Boundary IoU and boundary F1: agreement of the outlines of a class.

The IoU of areas hardly changes when an outline is off by a pixel or two. The measures here count
only pixels near an outline:

- Boundary IoU (Cheng et al. 2021, "Boundary IoU: Improving Object-Centric Image Segmentation
  Evaluation") is the IoU of the two inner bands. An inner band holds the pixels of the class that
  are at most a band's width away from a pixel outside of the class. The paper gives the width as
  2 % of the image's diagonal. An aerial image may have any size, so the default is in pixels.
- Boundary F1 (Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?";
  Perazzi et al. 2016, DAVIS): precision is the share of the pixels of the predicted contour that
  have a pixel of the true contour within a tolerance; recall is the reverse. Contours are bands of
  width 1.

Distances are Euclidean, between centres of pixels. An outline is where the class meets known pixels
of another class; the edge of an image and the edge of nodata are no outlines. A pixel counts only
where every pixel that decides on it is known, so a part of an image gives the same result as the
whole image. Either counts are added over images before ratios are taken, or ratios are averaged
over images: see `metrics.pixel`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import BoolArray, Window

WIDTH_PX = 3
"""Width in pixels of the bands of boundary IoU."""

TOLERANCES_PX = (1, 2, 3)

_ROWS = 2048
"""Number of rows counted at once; limits the memory for large scenes."""

_LARGEST_DISC_PX = 8
"""Largest radius dilated by a disc; beyond it, a distance transform is faster."""


@dataclass(frozen=True)
class BoundaryCounts:
    """Counts for one class, from which boundary IoU and boundary F1 are computed.

    Args:
        band: (2,) int64: number of pixels in both bands, and in at least one of them.
        contours: (tolerance, 4) int64: matched pixels and all pixels of the true contour; matched
            pixels and all pixels of the predicted contour.
    """

    band: NDArray[np.int64]
    contours: NDArray[np.int64]

    @classmethod
    def zero(cls) -> BoundaryCounts:
        return cls(np.zeros(2, np.int64), np.zeros((len(TOLERANCES_PX), 4), np.int64))

    @classmethod
    def of(
        cls, truth: BoolArray, predicted: BoolArray, valid: BoolArray | None = None
    ) -> BoundaryCounts:
        """Count the pixels of two (y, x) masks of the class.

        Args:
            valid: Pixels that both sides know; default all.

        Raises:
            ValueError: The shapes differ.
        """
        known = np.ones(truth.shape, bool) if valid is None else valid
        if not truth.shape == predicted.shape == known.shape:
            raise ValueError(
                f"truth has shape {truth.shape}, prediction {predicted.shape}, "
                f"validity {known.shape}"
            )
        counts = cls.zero()
        whole = Window.whole((truth.shape[0], truth.shape[1]))
        reach = max((WIDTH_PX, *(px + 1 for px in TOLERANCES_PX)))
        for strip in whole.strips(_ROWS):
            seen = strip.padded(reach).intersection(whole)
            assert seen is not None
            part = seen.slices()
            inner = strip.slices(seen)
            counts += cls(*_count(truth[part], predicted[part], known[part], inner))
        return counts

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(self.band + other.band, self.contours + other.contours)

    @property
    def iou(self) -> float:
        """Return boundary IoU; NaN where neither side has an outline."""
        both, either = self.band.tolist()
        return both / either if either else math.nan

    def f1(self, tolerance_px: int) -> float:
        """Return boundary F1 at one of the tolerances: NaN where neither side has an outline, 0
        where only one side has one.
        """
        row = self.contours[TOLERANCES_PX.index(tolerance_px)]
        matched_truth, truth, matched_predicted, predicted = row.tolist()
        if not truth and not predicted:
            return math.nan
        if not matched_truth or not matched_predicted:
            return 0.0
        precision, recall = matched_predicted / predicted, matched_truth / truth
        return float(2 * precision * recall / (precision + recall))

    def figures(self) -> dict[str, float]:
        """Return `boundary_iou` and one entry for each tolerance, such as `boundary_f1_2px`."""
        return {
            "boundary_iou": self.iou,
            **{f"boundary_f1_{px}px": self.f1(px) for px in TOLERANCES_PX},
        }


def boundary_per_image(counts: Sequence[BoundaryCounts]) -> dict[str, float]:
    """Return the mean over images of each of `figures`.

    An image without an outline on either side counts as 1, as in `metrics.pixel.per_image`.
    """
    each = [image.figures() for image in counts]
    return {
        name: float(np.mean([1.0 if math.isnan(row[name]) else row[name] for row in each]))
        for name in (each[0] if each else ())
    }


def _count(
    truth: BoolArray,
    predicted: BoolArray,
    known: BoolArray,
    inner: tuple[slice, slice],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `band` and `contours` of the pixels in `inner`; others are only neighbours."""
    judged = _all_known(known, WIDTH_PX)[inner]
    bands = [_band(side, known, WIDTH_PX)[inner] & judged for side in (truth, predicted)]
    band = [int((bands[0] & bands[1]).sum()), int((bands[0] | bands[1]).sum())]
    lines = [_band(side, known, 1) for side in (truth, predicted)]
    rows = []
    for px in TOLERANCES_PX:
        # One more than the tolerance: the neighbours of a partner decide if it is on the contour.
        judged = _all_known(known, px + 1)[inner]
        row = []
        for line, other in (lines, lines[::-1]):
            judged_line = line[inner] & judged
            row += [int((judged_line & _grown(other, px)[inner]).sum()), int(judged_line.sum())]
        rows.append(row)
    return np.array(band, np.int64), np.array(rows, np.int64).reshape(len(TOLERANCES_PX), 4)


def _band(side: BoolArray, known: BoolArray, px: int) -> BoolArray:
    """Return the known pixels of a class with a known pixel of another class within `px`."""
    return side & known & _grown(~side & known, px)


def _all_known(known: BoolArray, px: int) -> BoolArray:
    """Return the pixels around which every pixel within `px` is known; none is beyond the array."""
    return ~_grown(~known, px, beyond=True)


def _grown(mask: BoolArray, px: int, *, beyond: bool = False) -> BoolArray:
    """Dilate a mask by a disc of radius `px`; `beyond` is its value outside of the array."""
    if px > _LARGEST_DISC_PX:
        edged = np.pad(mask, 1, constant_values=beyond)
        if not edged.any():
            return np.zeros_like(mask)
        # Exact: the distances of whole numbers of pixels differ by more than float32 rounds.
        away = cv2.distanceTransform((~edged).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.asarray(away[1:-1, 1:-1] <= px, dtype=bool)
    grown = cv2.dilate(
        mask.astype(np.uint8), _disc(px), borderType=cv2.BORDER_CONSTANT, borderValue=int(beyond)
    )
    return np.asarray(grown, dtype=bool)


@cache
def _disc(px: int) -> NDArray[np.uint8]:
    rows, cols = np.mgrid[-px : px + 1, -px : px + 1]
    disc: NDArray[np.uint8] = (rows**2 + cols**2 <= px**2).astype(np.uint8)
    return disc
