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
of another class; image and nodata edges do not count as outlines. A pixel counts only
where every pixel that decides on it is known, so a part of an image gives the same result as the
whole image. Either counts are added over images before ratios are taken, or ratios are averaged
over images: see `metrics.pixel`.

Polygons of predicted and labelled buildings (`PolygonCounts`) are compared pair by pair: PoLiS,
C-IoU, N ratio and max tangent angle error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.core.arrays import numbered
from rooftrace.core.types import BoolArray, Floats, Ints, Polygons, Window
from rooftrace.metrics.resampling import share_of
from rooftrace.vector.match import PolygonOverlaps, pair_iou
from rooftrace.vector.trace import ring_vertices

WIDTH_PX = 3
"""Width in pixels of the bands of boundary IoU."""

TOLERANCES_PX = (1, 2, 3)

_ROWS = 2048
"""Number of rows counted at once; limits the memory for large scenes."""


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
        """
        known = np.ones(truth.shape, bool) if valid is None else valid
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
        return share_of(*self.band.tolist())

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
    rows, cols = np.mgrid[-px : px + 1, -px : px + 1]
    disc = (rows**2 + cols**2 <= px**2).astype(np.uint8)
    grown = cv2.dilate(
        mask.astype(np.uint8), disc, borderType=cv2.BORDER_CONSTANT, borderValue=int(beyond)
    )
    return np.asarray(grown, dtype=bool)


_SPACING = 2.0
"""Spacing of the points along an outline, in the unit of the coordinates; the authors use 2 px."""

_MOST_STRETCH = 2.0


def max_tangent_angles(predicted: Polygons, truth: Polygons) -> Floats:
    """Return the largest angle between a predicted outline and the labelled one, pair by pair.

    Each edge of the predicted outline is cut into equal steps of about `_SPACING`. The points are
    moved to the nearest point of the labelled outline, and each step is compared with its image
    there, in any direction of travel. A step whose image is shorter or longer by a factor of 2 is
    left out: it says nothing about a tangent, because at a corner all points move to one. This is
    the max tangent angle error of Girard et al. 2021, "Polygonal Building Extraction by Frame Field
    Learning", CVPR, with the authors' spacing and factor. The authors move points to the nearest
    outline of any labelled polygon; here it is the outline of the pair. Holes count as outlines.

    A corner inside of the labelled outline is equally near to both sides, and the step from it
    crosses over. A rectangle that is too small by 1 on all sides has an error of 18° at a spacing
    of 2; one that is too large has none.

    Args:
        predicted: (n,) shapely polygons.
        truth: (n,) shapely polygons in the same plane.

    Returns:
        (n,) degrees in 0..90; NaN where every step was left out.
    """
    corner, ring, owner = ring_vertices(predicted)
    points, ring = _laid(corner, ring)
    outlines = shapely.boundary(truth)
    nearest = shapely.shortest_line(shapely.points(points), outlines[owner[ring]])
    # Each line goes from the point to its new position.
    moved = shapely.get_coordinates(nearest)[1::2]
    is_step = ring[1:] == ring[:-1]
    original, image = np.diff(points, axis=0)[is_step], np.diff(moved, axis=0)[is_step]
    length, length_image = np.hypot(*original.T), np.hypot(*image.T)
    kept = (length < _MOST_STRETCH * length_image) & (length_image < _MOST_STRETCH * length)
    cosine = (original * image).sum(axis=1)[kept] / (length * length_image)[kept]
    least = np.full(len(predicted), np.inf)
    np.minimum.at(least, owner[ring[1:][is_step][kept]], np.abs(cosine))
    least[np.isinf(least)] = np.nan
    return np.asarray(np.degrees(np.arccos(np.minimum(least, 1.0))), np.float64)


def _laid(corner: Floats, ring: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    """Return (m, 2) points along closed rings of corners, including these, and the ring of each.

    The first point of a ring is repeated as its last.
    """
    step = np.zeros_like(corner)
    step[:-1] = np.diff(corner, axis=0)
    is_last = np.diff(ring, append=-1) != 0
    step[is_last] = 0
    parts = np.maximum(1, np.round(np.hypot(*step.T) / _SPACING)).astype(np.int64)
    edge, place = numbered(parts)
    return corner[edge] + step[edge] * (place / parts[edge])[:, None], ring[edge]


def polis(one: Polygons, other: Polygons) -> Floats:
    """Return PoLiS, the mean distance between the outlines of two polygons, pair by pair.

    The distance from every corner of each polygon to the nearest point of the other outline is
    averaged over the corners of each polygon, and then over the two (Avbelj et al. 2015,
    doi:10.1109/LGRS.2014.2330695). Holes count as outlines.

    Args:
        one: (n,) shapely polygons.
        other: (n,) shapely polygons in the same plane.

    Returns:
        (n,) distances in the unit of the coordinates, 0 where the outlines are equal.
    """
    return (_mean_distance(one, other) + _mean_distance(other, one)) / 2


def _mean_distance(corners_of: Polygons, outlines_of: Polygons) -> Floats:
    """Return the (n,) mean distance from the corners of a polygon to the outline of the other."""
    corner, ring, owner = ring_vertices(corners_of)
    # A ring repeats its first corner at its end.
    kept = np.diff(ring, append=-1) == 0
    corner, owner = corner[kept], owner[ring[kept]]
    outlines = shapely.boundary(outlines_of)
    shapely.prepare(outlines)
    away = shapely.distance(shapely.points(corner), outlines[owner])
    size = len(corners_of)
    return np.asarray(np.bincount(owner, away, size) / np.bincount(owner, minlength=size))


def vertex_counts(polygons: Polygons) -> Ints:
    """Return the (n,) number of corners of each polygon, including its holes."""
    rings = 1 + shapely.get_num_interior_rings(polygons)
    return np.asarray(shapely.get_num_coordinates(polygons) - rings, np.int64)


@dataclass(frozen=True)
class PolygonCounts:
    """Sums over polygons, which add up over images; `figures` are means computed from them.

    - Over matching pairs: IoU, `polis`, `max_tangent_angles`, and C-IoU, which is the IoU times 1 -
      |n - k| / (n + k) for n and k corners, so that many corners do not improve it (Zorzi et al.
      2022, "PolyWorld: Polygonal Building Extraction with Graph Neural Networks in Satellite
      Images", CVPR).
    - Over all polygons: the N ratio, the number of corners of the predicted polygons divided by
      that of the labelled polygons (Zorzi et al. 2022).
    - Over images: C-IoU as its authors define it, from the IoU of the areas that all polygons cover
      and the number of all corners.

    Args:
        labelled, found: Number of labelled and of predicted polygons.
        pairs: Number of pairs with an IoU of at least 0.5.
        iou_sum, c_iou_sum, polis_sum: Sums over the pairs.
        angle_sum: Sum in degrees over the pairs that have an angle.
        angles: Number of pairs that have an angle.
        corners, corners_labelled: Corners of the polygons of the pairs.
        all_corners, all_corners_labelled: Corners of all polygons.
        images: Number of images with a polygon on either side.
        image_c_iou_sum: Sum over these images.
        unit: Unit of `polis_sum`.
    """

    labelled: int = 0
    found: int = 0
    pairs: int = 0
    iou_sum: float = 0.0
    c_iou_sum: float = 0.0
    polis_sum: float = 0.0
    angle_sum: float = 0.0
    angles: int = 0
    corners: int = 0
    corners_labelled: int = 0
    all_corners: int = 0
    all_corners_labelled: int = 0
    images: int = 0
    image_c_iou_sum: float = 0.0
    unit: Literal["px", "m"] = "px"

    @classmethod
    def of(
        cls,
        truth: Polygons,
        predicted: Polygons,
        *,
        scale_m: float | None = None,
        usable_truth: BoolArray | None = None,
        usable_predicted: BoolArray | None = None,
    ) -> PolygonCounts:
        """Match and measure the polygons of one image.

        A polygon that is not usable is left out: corners made by the edge of an image or of nodata
        are not corners of the building. A polygon of the other side with more than half of its area
        in an unusable one is left out, too; it is a match, or a piece of one.

        Args:
            truth: (n,) valid shapely polygons in pixels.
            predicted: (k,) valid polygons in the same plane.
            scale_m: Metres per pixel, for PoLiS in metres.
            usable_truth, usable_predicted: (n,) and (k,) usable polygons; default all.
        """
        overlaps = PolygonOverlaps.of(truth, predicted)
        left, left_predicted = overlaps.without(
            np.ones(len(truth), bool) if usable_truth is None else usable_truth,
            np.ones(len(predicted), bool) if usable_predicted is None else usable_predicted,
        )
        pairs = overlaps.matches(0.5)
        kept = left[pairs.one] & left_predicted[pairs.other]
        one, other = truth[pairs.one[kept]], predicted[pairs.other[kept]]
        iou = pairs.iou[kept]
        corners, corners_labelled = vertex_counts(other), vertex_counts(one)
        angles = max_tangent_angles(other, one)
        sides = truth[left], predicted[left_predicted]
        every, every_predicted = (int(vertex_counts(side).sum()) for side in sides)
        some = bool(left.any() or left_predicted.any())
        image_c_iou = _covered_iou(*sides) * _likeness(every_predicted, every) if some else 0.0
        return cls(
            labelled=int(left.sum()),
            found=int(left_predicted.sum()),
            pairs=len(iou),
            iou_sum=float(iou.sum()),
            c_iou_sum=float((iou * _likeness(corners, corners_labelled)).sum()),
            polis_sum=float(polis(one, other).sum()) * (1.0 if scale_m is None else scale_m),
            angle_sum=float(np.nansum(angles)),
            angles=int((~np.isnan(angles)).sum()),
            corners=int(corners.sum()),
            corners_labelled=int(corners_labelled.sum()),
            all_corners=every_predicted,
            all_corners_labelled=every,
            images=int(some),
            image_c_iou_sum=float(image_c_iou),
            unit="px" if scale_m is None else "m",
        )

    def __add__(self, other: PolygonCounts) -> PolygonCounts:
        """Add the sums of two images.

        Raises:
            ValueError: Both have pairs, with distances in different units.
        """
        if self.pairs and other.pairs and self.unit != other.unit:
            raise ValueError(f"distances in {self.unit} and {other.unit} cannot be added")
        names = (name for name in vars(self) if name != "unit")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return PolygonCounts(**sums, unit=self.unit if self.pairs else other.unit)

    def figures(self) -> dict[str, float | int]:
        """Return counts and means; NaN where there is nothing to average.

        `polis_px` takes the place of `polis_m` where the scale is not known.
        """
        return {
            "labelled": self.labelled,
            "found": self.found,
            "pairs": self.pairs,
            "iou": share_of(self.iou_sum, self.pairs),
            "c_iou": share_of(self.c_iou_sum, self.pairs),
            f"polis_{self.unit}": share_of(self.polis_sum, self.pairs),
            "max_tangent_angle_deg": share_of(self.angle_sum, self.angles),
            "corners": share_of(self.corners, self.pairs),
            "corners_labelled": share_of(self.corners_labelled, self.pairs),
            "n_ratio": share_of(self.all_corners, self.all_corners_labelled),
            "image_c_iou": share_of(self.image_c_iou_sum, self.images),
        }


def _likeness(corners: Ints | int, others: Ints | int) -> Floats:
    """Return 1 for equal numbers of corners, and values towards 0 for very different ones."""
    return np.asarray(1 - np.abs(np.subtract(corners, others)) / np.add(corners, others))


def _covered_iou(truth: Polygons, predicted: Polygons) -> float:
    """Return the IoU of the areas that all polygons of each side cover."""
    covered = (np.array([shapely.union_all(side)], np.object_) for side in (truth, predicted))
    return float(pair_iou(*covered)[0])
