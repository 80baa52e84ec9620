"""Outlines that a person draws: checks, and cutting or joining of buildings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rooftrace.core.errors import DataError
from rooftrace.io.make_valid import polygon_parts

_SNAP_SHARE = 1e-3
"""Distance, as a share of a pixel, below which a corner counts as one that was not moved."""

_TOUCH_SHARE = 0.5
"""Gap, as a share of a pixel, across which two buildings can be joined."""


class OutlineError(DataError):
    """An outline that a person drew cannot be used."""


@dataclass(frozen=True)
class OutlineRules:
    """Checks of drawn outlines.

    Args:
        frame: Outer edge of the scene in the CRS of the layer.
        pixel: Side of a pixel in the unit of that CRS.
    """

    frame: BaseGeometry
    pixel: float

    def checked(self, outline: BaseGeometry, earlier: BaseGeometry | None = None) -> BaseGeometry:
        """Return an outline, cut at the edge of the scene.

        Args:
            outline: Polygon or multipolygon that a person drew.
            earlier: Outline that was changed; corners that were not moved stay exactly the same.

        Raises:
            OutlineError: It crosses itself, lies outside of the scene, or is smaller than a pixel.
        """
        if earlier is not None:
            outline = self._snapped(outline, earlier)
        if not outline.is_valid:
            reason = shapely.is_valid_reason(outline).partition("[")[0].lower()
            raise OutlineError(
                f"The outline crosses itself or touches itself ({reason}).",
                remedy="Move its corners so that no two edges cross.",
            )
        if not outline.within(self.frame):
            inside = np.array([shapely.intersection(outline, self.frame)], np.object_)
            parts, _ = polygon_parts(inside)
            outline = parts[0] if len(parts) == 1 else shapely.MultiPolygon(list(parts))
        if outline.is_empty:
            raise OutlineError(
                "The outline lies outside of the scene.", remedy="Draw it on the image."
            )
        if outline.area < self.pixel**2:
            raise OutlineError(
                "The outline is smaller than a pixel of the image.",
                remedy="Zoom in and draw it larger.",
            )
        return outline

    def _snapped(self, outline: BaseGeometry, earlier: BaseGeometry) -> Any:
        earlier_xy = shapely.get_coordinates(earlier)
        corners = shapely.STRtree(np.asarray(shapely.points(earlier_xy), np.object_))

        def snapped(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            nearest = earlier_xy[corners.nearest(shapely.points(xy))]
            near = np.hypot(*(xy - nearest).T) <= self.pixel * _SNAP_SHARE
            return np.where(near[:, None], nearest, xy)

        return shapely.transform(outline, snapped)


def split_outline(
    outline: BaseGeometry, line: BaseGeometry, rules: OutlineRules
) -> list[BaseGeometry]:
    """Cut a building along a line; the largest piece comes first.

    Raises:
        OutlineError: The line does not cross the whole building, or a piece is too small.
    """
    # Noding of all lines, then the faces that lie inside: court yards need no special case.
    noded = shapely.union_all([outline.boundary, line])
    faces = shapely.get_parts(shapely.polygonize([noded]))
    pieces = [one for one in faces if outline.contains(one.representative_point())]
    if len(pieces) <= len(shapely.get_parts(outline)):
        raise OutlineError(
            "The line does not cut the building into two.",
            remedy="Begin and end the line outside of the building.",
        )
    if min(one.area for one in pieces) < rules.pixel**2:
        raise OutlineError(
            "The line cuts off a piece that is smaller than a pixel of the image.",
            remedy="Draw the line elsewhere.",
        )
    return sorted(pieces, key=lambda one: one.area, reverse=True)


def join_outlines(outlines: Sequence[BaseGeometry], rules: OutlineRules) -> BaseGeometry:
    """Join buildings that touch, or are less than half a pixel from each other.

    Raises:
        OutlineError: They do not touch.
    """
    union = shapely.union_all(outlines)
    if union.geom_type != "Polygon":
        gap = rules.pixel * _TOUCH_SHARE / 2
        # Mitred corners stay where they are when the outline grows and shrinks again.
        grown = shapely.buffer(union, gap, join_style="mitre")
        union = shapely.union(shapely.buffer(grown, -gap, join_style="mitre"), union)
    if union.geom_type != "Polygon":
        raise OutlineError(
            "The two buildings do not touch, so they cannot become one.",
            remedy="Choose two buildings side by side, or draw the outline again.",
        )
    return union
