"""How near outlines come to those that people drew: polygon by polygon."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from rooftrace.metrics.tangents import max_tangent_angles

__all__ = ["PolygonCounts", "PolygonMatches", "match_polygons", "polis", "vertex_counts"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Polygons = NDArray[np.object_]


@dataclass(frozen=True)
class PolygonMatches:
    """Pairs of polygons that are one building.

    Args:
        truth: (m,) indices of the labelled ones, ascending.
        predicted: (m,) of those predicted.
        iou: (m,) intersection over union of each pair, in 0..1.
        labelled: how many the label has.
        found: how many the prediction has.
    """

    truth: Ints
    predicted: Ints
    iou: Floats
    labelled: int
    found: int

    def __len__(self) -> int:
        return len(self.iou)

    @property
    def recall(self) -> float:
        """The share of the labelled ones that were found; NaN where there are none."""
        return _ratio(len(self), self.labelled)

    @property
    def precision(self) -> float:
        """The share of the predicted ones that are labelled; NaN where there are none."""
        return _ratio(len(self), self.found)


def match_polygons(truth: Polygons, predicted: Polygons, min_iou: float = 0.5) -> PolygonMatches:
    """Pairs of an IoU of at least `min_iou`, those of the largest IoU first, each polygon once.

    Args:
        truth: (n,) valid shapely polygons.
        predicted: (k,) valid ones in the same plane.
        min_iou: above 0, at most 1.
    """
    return _Overlaps.of(truth, predicted).matches(min_iou)


@dataclass(frozen=True)
class _Overlaps:
    """A labelled and a predicted polygon that meet, for all such.

    Args:
        area, area_predicted: of each polygon.
        one, other: (pairs,) which labelled polygon, and which predicted one.
        common: (pairs,) the area that they share.
    """

    area: Floats
    area_predicted: Floats
    one: Ints
    other: Ints
    common: Floats

    @classmethod
    def of(cls, truth: Polygons, predicted: Polygons) -> _Overlaps:
        one, other = shapely.STRtree(truth).query(predicted, predicate="intersects")[::-1]
        common = shapely.area(shapely.intersection(truth[one], predicted[other]))
        return cls(shapely.area(truth), shapely.area(predicted), one, other, common)

    def matches(self, min_iou: float) -> PolygonMatches:
        one, other, common = self.one, self.other, self.common
        iou = common / (self.area[one] + self.area_predicted[other] - common)
        near = iou >= min_iou
        one, other, iou = one[near], other[near], iou[near]
        taken: tuple[set[int], set[int]] = set(), set()
        pairs = []
        # Where neither set overlaps itself, pairs above a half are unique; labels may overlap.
        for pair in np.lexsort((other, one, -iou)):
            ends = int(one[pair]), int(other[pair])
            if ends[0] not in taken[0] and ends[1] not in taken[1]:
                taken[0].add(ends[0])
                taken[1].add(ends[1])
                pairs.append(pair)
        kept = np.array(pairs, np.int64)
        kept = kept[np.argsort(one[kept])]
        sizes = len(self.area), len(self.area_predicted)
        return PolygonMatches(one[kept], other[kept], iou[kept], *sizes)

    def without(self, usable: Bools, usable_predicted: Bools) -> tuple[Bools, Bools]:
        """What is left on both sides where polygons of each are left out: also those that lie in
        one of them by more than a half. A match lies in its partner by more than that.
        """
        inside = self.common > self.area[self.one] / 2
        inside_predicted = self.common > self.area_predicted[self.other] / 2
        left, left_predicted = usable.copy(), usable_predicted.copy()
        left[self.one[inside & ~usable_predicted[self.other]]] = False
        left_predicted[self.other[inside_predicted & ~usable[self.one]]] = False
        return left, left_predicted


def polis(one: Polygons, other: Polygons) -> Floats:
    """The mean distance between the outlines of polygons, pair by pair.

    From every corner of each polygon to the nearest point of the other's outline, averaged over the
    corners of each and then over the two (Avbelj et al. 2015, doi:10.1109/LGRS.2014.2330695).
    Holes count as outlines.

    Args:
        one: (n,) shapely polygons.
        other: (n,) shapely polygons in the same plane.

    Returns:
        (n,) in the unit of the coordinates, 0 where the outlines are the same.
    """
    return (_mean_distance(one, other) + _mean_distance(other, one)) / 2


def _mean_distance(corners_of: Polygons, outlines_of: Polygons) -> Floats:
    """(n,) from the corners of a polygon to the outline of the other."""
    rings, owner = shapely.get_rings(corners_of, return_index=True)
    corner, ring = shapely.get_coordinates(rings, return_index=True)
    # A ring repeats its first corner at its end.
    kept = np.diff(ring, append=-1) == 0
    corner, owner = corner[kept], owner[ring[kept]]
    outlines = shapely.boundary(outlines_of)
    shapely.prepare(outlines)
    away = shapely.distance(shapely.points(corner), outlines[owner])
    size = len(corners_of)
    return np.asarray(np.bincount(owner, away, size) / np.bincount(owner, minlength=size))


def vertex_counts(polygons: Polygons) -> Ints:
    """(n,) corners of each polygon, those of its holes included."""
    rings = 1 + shapely.get_num_interior_rings(polygons)
    return np.asarray(shapely.get_num_coordinates(polygons) - rings, np.int64)


@dataclass(frozen=True)
class PolygonCounts:
    """Sums over polygons, of which `figures` are the means; they add up over images.

    - Of each pair that matches: IoU, `polis`, `max_tangent_angles`, and C-IoU, which is the IoU
      times 1 - |n - k| / (n + k) for n and k corners: outlines of many corners are no better for
      it (Zorzi et al. 2022, "PolyWorld: Polygonal Building Extraction with Graph Neural Networks in
      Satellite Images", CVPR).
    - Of all polygons, matched or not: the N ratio, corners of the predicted ones over those of the
      labelled ones (the same).
    - Of each image: C-IoU as its authors take it, the IoU of all that the polygons cover, with the
      corners of all of them.

    Args:
        labelled, found: polygons of the label and of the prediction.
        pairs: of both, of an IoU of at least 0.5.
        iou_sum, c_iou_sum, polis_sum: over the pairs.
        angle_sum: degrees, over the pairs that have an angle.
        angles: how many those are.
        corners, corners_labelled: of the polygons of the pairs.
        all_corners, all_corners_labelled: of all polygons.
        images: those with a polygon on either side.
        image_c_iou_sum: over those.
        unit: that of `polis_sum`.
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
        usable_truth: Bools | None = None,
        usable_predicted: Bools | None = None,
    ) -> PolygonCounts:
        """Match and measure the polygons of one image.

        A polygon that is not usable takes no part: one that the edge of an image or nodata cuts
        has corners that are not of the building. Nor does one of the other side that lies in it by
        more than a half: its match, or a piece of it.

        Args:
            truth: (n,) valid shapely polygons in pixels.
            predicted: (k,) valid ones in the same plane.
            scale_m: metres per pixel, for PoLiS in metres.
            usable_truth, usable_predicted: (n,) and (k,); default all.
        """
        overlaps = _Overlaps.of(truth, predicted)
        left, left_predicted = overlaps.without(
            np.ones(len(truth), bool) if usable_truth is None else usable_truth,
            np.ones(len(predicted), bool) if usable_predicted is None else usable_predicted,
        )
        pairs = overlaps.matches(0.5)
        kept = left[pairs.truth] & left_predicted[pairs.predicted]
        at, at_predicted = pairs.truth[kept], pairs.predicted[kept]
        one, other = truth[at], predicted[at_predicted]
        common = shapely.area(shapely.intersection(one, other))
        iou = common / (overlaps.area[at] + overlaps.area_predicted[at_predicted] - common)
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
        """Of both.

        Raises:
            ValueError: both have pairs, but distances in different units.
        """
        if self.pairs and other.pairs and self.unit != other.unit:
            raise ValueError(f"distances in {self.unit} and {other.unit} cannot be added")
        names = (name for name in vars(self) if name != "unit")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return PolygonCounts(**sums, unit=self.unit if self.pairs else other.unit)

    def figures(self) -> dict[str, float | int]:
        """Counts and means; NaN where there is nothing to take the mean of.

        `polis_m` is `polis_px` where the scale is not known.
        """
        return {
            "labelled": self.labelled,
            "found": self.found,
            "pairs": self.pairs,
            "iou": _ratio(self.iou_sum, self.pairs),
            "c_iou": _ratio(self.c_iou_sum, self.pairs),
            f"polis_{self.unit}": _ratio(self.polis_sum, self.pairs),
            "max_tangent_angle_deg": _ratio(self.angle_sum, self.angles),
            "corners": _ratio(self.corners, self.pairs),
            "corners_labelled": _ratio(self.corners_labelled, self.pairs),
            "n_ratio": _ratio(self.all_corners, self.all_corners_labelled),
            "image_c_iou": _ratio(self.image_c_iou_sum, self.images),
        }


def _likeness(corners: Ints | int, others: Ints | int) -> Floats:
    """1 where both have as many corners, towards 0 where one has ever more."""
    return np.asarray(1 - np.abs(np.subtract(corners, others)) / np.add(corners, others))


def _covered_iou(truth: Polygons, predicted: Polygons) -> float:
    """Of all that either side covers."""
    one, other = shapely.union_all(truth), shapely.union_all(predicted)
    common = shapely.area(shapely.intersection(one, other))
    return float(common / (shapely.area(one) + shapely.area(other) - common))


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else math.nan
