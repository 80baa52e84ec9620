"""The buildings that a scene is labelled with: as numbers on its pixels, and as polygons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes

from rooftrace.core.types import Mask, OutlineReader, Scene, Window
from rooftrace.data.separation import building_instances, told_instances
from rooftrace.data.shapes import areal_parts, mended

__all__ = ["Truth", "traced_outlines"]

_STAIRS_PX = 1.0
"""How far the outline of a mask is simplified: the stairs that its pixels make are no corners."""


@dataclass(frozen=True)
class Truth:
    """What is known of a scene.

    Args:
        mask: class indices.
        instances: (y, x) the number of the labelled building at each pixel, from 1; else 0.
        outlines: (n,) polygons of the buildings, in pixels of the image, x right and y down.
        drawn: whether a person drew the polygons; else they were traced along the mask, without
            the stairs of its pixels.
    """

    mask: Mask
    instances: NDArray[np.int32]
    outlines: NDArray[np.object_]
    drawn: bool

    @classmethod
    def of(cls, scene: Scene, building_class: int) -> Truth:
        """Read the label of a scene that has one.

        Raises:
            DataError: it cannot be read.
        """
        assert scene.label is not None
        mask = scene.label.read(Window.whole(scene.image.grid.shape))
        is_building = mask.data == building_class
        instances = building_instances(is_building, told_instances(scene.label))
        found = scene.label.read_outlines() if isinstance(scene.label, OutlineReader) else None
        if found is None:
            return cls(mask, instances, traced_outlines(instances), False)
        return cls(mask, instances, found[0][found[1] == building_class], True)


def traced_outlines(instances: NDArray[np.int32]) -> NDArray[np.object_]:
    """(n,) polygons of (y, x) numbered regions, within a pixel of the edges of their pixels."""
    traced = [
        shapely.Polygon(one["coordinates"][0], one["coordinates"][1:])
        for one, _ in shapes(instances, mask=instances > 0, connectivity=4)
    ]
    smooth = shapely.simplify(np.array([*traced, None], np.object_)[:-1], _STAIRS_PX)
    return areal_parts(mended(np.asarray(smooth, np.object_)))[0]
