"""How well the outlines of a class agree.

The IoU of areas hardly moves when an outline is off by a pixel or two. Here only what lies at an
outline counts:

- Boundary IoU (Cheng et al. 2021, "Boundary IoU: Improving Object-Centric Image Segmentation
  Evaluation"): the IoU of the two inner bands, the pixels of the class at most `band_px` away from
  one that is not the class. The paper gives the width as a share of the image's diagonal; an aerial
  image may be of any size, so here it is given in pixels.
- Boundary F1 (Csurka et al. 2013, "What is a good evaluation measure for semantic segmentation?";
  Perazzi et al. 2016, DAVIS): precision is the share of the predicted contour's pixels that have
  one of the true contour within a tolerance, recall the reverse. Contours are bands of width 1.

Distances are Euclidean, between centres of pixels. An outline is where the class meets what is
known not to be the class: the edge of an image and the edge of nodata are none. A pixel is judged
only where all that decides on it is known, so that it is judged in a part of an image as it is in
the whole. Counts are added over images before ratios are taken, or ratios averaged over images:
see `metrics.pixel`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from rooftrace.core.types import Window

__all__ = ["BAND_PX", "TOLERANCES_PX", "BoundaryCounts", "boundary_per_image"]

BAND_PX = 3
TOLERANCES_PX = (1, 2, 3)

_ROWS = 2048
"""Rows that are judged together, which bounds the memory for large scenes."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class BoundaryCounts:
    """What Boundary IoU and F1 are ratios of, for one class.

    Args:
        band: (2,) int64: pixels in both bands, and in one at least.
        contours: (tolerance, 4) int64: pixels of the true contour that are matched, and all;
            pixels of the predicted contour that are matched, and all.
        band_px: width of the bands.
        tolerances_px: how far a match may be away.
    """

    band: NDArray[np.int64]
    contours: NDArray[np.int64]
    band_px: int = BAND_PX
    tolerances_px: tuple[int, ...] = TOLERANCES_PX

    @classmethod
    def zero(
        cls, *, band_px: int = BAND_PX, tolerances_px: tuple[int, ...] = TOLERANCES_PX
    ) -> BoundaryCounts:
        return cls(
            np.zeros(2, np.int64), np.zeros((len(tolerances_px), 4), np.int64),
            band_px, tolerances_px,
        )  # fmt: skip

    @classmethod
    def of(
        cls,
        truth: Bools,
        predicted: Bools,
        valid: Bools | None = None,
        *,
        band_px: int = BAND_PX,
        tolerances_px: tuple[int, ...] = TOLERANCES_PX,
    ) -> BoundaryCounts:
        """Count pixels of (y, x) arrays that say where the class is.

        Args:
            valid: where both sides are known; default everywhere.

        Raises:
            ValueError: shapes differ.
        """
        known = np.ones(truth.shape, bool) if valid is None else valid
        if not truth.shape == predicted.shape == known.shape:
            raise ValueError(
                f"truth has shape {truth.shape}, prediction {predicted.shape}, "
                f"validity {known.shape}"
            )
        counts = cls.zero(band_px=band_px, tolerances_px=tolerances_px)
        whole = Window.whole((truth.shape[0], truth.shape[1]))
        reach = max((band_px, *(px + 1 for px in tolerances_px)))
        for strip in whole.strips(_ROWS):
            seen = strip.padded(reach).intersection(whole)
            assert seen is not None
            part = seen.slices()
            counts += _count(
                truth[part], predicted[part], known[part], strip.slices(seen), band_px,
                tolerances_px,
            )  # fmt: skip
        return counts

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        ours, theirs = (self.band_px, self.tolerances_px), (other.band_px, other.tolerances_px)
        if ours != theirs:
            raise ValueError(f"counts of widths {ours} and {theirs} cannot be added")
        return BoundaryCounts(self.band + other.band, self.contours + other.contours, *ours)

    @property
    def iou(self) -> float:
        """Boundary IoU; NaN where neither side has an outline."""
        both, either = self.band.tolist()
        return both / either if either else math.nan

    def f1(self, tolerance_px: int) -> float:
        """Boundary F1 at one of the tolerances; NaN where neither side has an outline, 0 where
        one has none.
        """
        row = self.contours[self.tolerances_px.index(tolerance_px)]
        matched_truth, truth, matched_predicted, predicted = row.tolist()
        if not truth and not predicted:
            return math.nan
        if not matched_truth or not matched_predicted:
            return 0.0
        precision, recall = matched_predicted / predicted, matched_truth / truth
        return float(2 * precision * recall / (precision + recall))

    def figures(self) -> dict[str, float]:
        """`boundary_iou` and, for each tolerance, such as `boundary_f1_2px`."""
        return {
            "boundary_iou": self.iou,
            **{f"boundary_f1_{px}px": self.f1(px) for px in self.tolerances_px},
        }


def boundary_per_image(counts: Sequence[BoundaryCounts]) -> dict[str, float]:
    """Mean over images of each of `figures`; an image without an outline on either side counts as
    1, as in `metrics.pixel.per_image`.
    """
    each = [image.figures() for image in counts]
    return {
        name: float(np.mean([1.0 if math.isnan(row[name]) else row[name] for row in each]))
        for name in (each[0] if each else ())
    }


def _count(
    truth: Bools,
    predicted: Bools,
    known: Bools,
    inner: tuple[slice, slice],
    band_px: int,
    tolerances_px: tuple[int, ...],
) -> BoundaryCounts:
    """Of the pixels in `inner` alone; those around it are only looked at."""
    judged = _all_known(known, band_px)[inner]
    bands = [_band(side, known, band_px)[inner] & judged for side in (truth, predicted)]
    band = [int((bands[0] & bands[1]).sum()), int((bands[0] | bands[1]).sum())]
    lines = [_band(side, known, 1) for side in (truth, predicted)]
    rows = []
    for px in tolerances_px:
        # One more than the tolerance: whether a partner is of the contour, its neighbours decide.
        judged = _all_known(known, px + 1)[inner]
        row = []
        for line, other in (lines, lines[::-1]):
            judged_line = line[inner] & judged
            row += [int((judged_line & _grown(other, px)[inner]).sum()), int(judged_line.sum())]
        rows.append(row)
    contours = np.array(rows, np.int64).reshape(len(tolerances_px), 4)
    return BoundaryCounts(np.array(band, np.int64), contours, band_px, tolerances_px)


def _band(side: Bools, known: Bools, px: int) -> Bools:
    """The known pixels of a class that have a known pixel of no such class within `px`."""
    return side & known & _grown(~side & known, px)


def _all_known(known: Bools, px: int) -> Bools:
    """Where every pixel within `px` is known; beyond the array nothing is."""
    return ~_grown(~known, px, beyond=True)


def _grown(mask: Bools, px: int, *, beyond: bool = False) -> Bools:
    """Dilated by a disc of radius `px`; `beyond` says what lies outside of the array."""
    grown = cv2.dilate(
        mask.astype(np.uint8), _disc(px), borderType=cv2.BORDER_CONSTANT, borderValue=int(beyond)
    )
    return np.asarray(grown, dtype=bool)


@cache
def _disc(px: int) -> NDArray[np.uint8]:
    rows, cols = np.mgrid[-px : px + 1, -px : px + 1]
    disc: NDArray[np.uint8] = (rows**2 + cols**2 <= px**2).astype(np.uint8)
    return disc
